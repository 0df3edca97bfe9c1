"""Fixtures of this room."""

from tests.support.evaluation_fixtures import images, llava, llava_folder, llm, llm_folder, tokenizer  # noqa: F401
