"""Fixtures of this room."""

from tests.support.evaluation_fixtures import (  # noqa: F401
    images,
    llava,
    llava_folder,
    llm,
    llm_folder,
    texts,
    tokenizer,
)
