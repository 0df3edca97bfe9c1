"""LION's processor: text with images, task types, questions for the Q-Former, tags as a soft prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoProcessor, BatchFeature, LlavaProcessor

from priorkit.architectures.lion.modeling.configuration import LionConfig, task_index
from priorkit.core.errors import InputError
from priorkit.data.conversations.tag_prompt import SOFT_TOKEN, insert_sentence, tag_sentence
from priorkit.models.language.tokenizer import bos_ids, prepend_bos


def question_ids(tokenizer: Any, question: str, length: int) -> list[int]:
    """Token ids of a question for the Q-Former; a longer one loses its beginning (released code)."""
    text = question.replace("<image>", " ").replace(SOFT_TOKEN, " ").strip()
    return tokenizer(text, add_special_tokens=False)["input_ids"][-length:]


def pad_questions(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask ``[rows, longest]``, padded on the right; at least one position."""
    longest = max(1, *map(len, rows)) if rows else 1
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return ids, mask


class LionProcessor(LlavaProcessor):
    """LLaVA's processor with LION's inputs in addition to text and images.

    Args:
        image_processor: the encoder's.
        tokenizer: the language model's, with the image token and, for soft tags, the soft token.
        chat_template: of conversations.
        image_tokens: visual tokens of one image, all branches together.
        instruction_length: most tokens of a question for the Q-Former.
        tags: ``off``, ``hard`` or ``soft``.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_tokens: int = 0,
        instruction_length: int = 128,
        tags: str = "off",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_tokens, self.instruction_length, self.tags = image_tokens, instruction_length, tags

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        task_types: Sequence[str] | str | None = None,
        questions: Sequence[str] | str | None = None,
        tags: Sequence[Sequence[str]] | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Model inputs of prompts, padded on the left.

        Args:
            images: one per image placeholder, in order.
            text: prompts with ``<image>`` at each image.
            task_types: of each prompt: ``region-level`` or ``image-level``.
            questions: the bare question to each image, for the Q-Former; the prompt's text where not given.
            tags: tags of each prompt's image; their instruction is put behind the image's placeholder.
            max_length: prompts longer than this are refused.
            **kwargs: for the image processor.

        Returns:
            ``input_ids``, ``attention_mask``, and as far as given ``pixel_values``, ``task_types``,
            ``qformer_input_ids``, ``qformer_attention_mask``.

        Raises:
            InputError: an unknown task type, a prompt that is too long, counts that do not match.
        """
        prompts = [text] if isinstance(text, str) else list(text or [])
        kwargs.pop("return_tensors", None)
        kwargs.pop("padding", None)
        if any(SOFT_TOKEN in prompt for prompt in prompts):
            raise InputError(f"a prompt holds the reserved token {SOFT_TOKEN}", hint="give tags with tags=")
        if questions is None:
            questions = [prompt for prompt in prompts for _ in range(prompt.count(self.image_token))]
        per_image = [questions] if isinstance(questions, str) else list(questions)
        if tags is not None:
            prompts = [
                insert_sentence(prompt, tag_sentence(image_tags, self.tags), self.image_token)
                for prompt, image_tags in zip(prompts, tags, strict=True)
            ]
        rows = [self._ids(prompt, max_length) for prompt in prompts]
        ids, mask = _left(rows, _pad_id(self.tokenizer))
        data: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if images is not None:
            pixels = self.image_processor(images=images, return_tensors="pt", **kwargs)["pixel_values"]
            wanted = sum(prompt.count(self.image_token) for prompt in prompts)
            if wanted != len(pixels) or len(per_image) != len(pixels):
                raise InputError(
                    f"{wanted} image placeholders, {len(pixels)} images, {len(per_image)} questions"
                )
            data["pixel_values"] = pixels
            question_rows = [
                question_ids(self.tokenizer, question, self.instruction_length) for question in per_image
            ]
            data["qformer_input_ids"], data["qformer_attention_mask"] = pad_questions(
                question_rows, _pad_id(self.tokenizer)
            )
        if task_types is not None:
            given = [task_types] * len(prompts) if isinstance(task_types, str) else list(task_types)
            if len(given) != len(prompts):
                raise InputError(f"{len(prompts)} prompts, {len(given)} task types")
            data["task_types"] = torch.tensor([task_index(name) for name in given])
        return BatchFeature(data)

    def _ids(self, prompt: str, max_length: int | None) -> list[int]:
        expanded = prompt.replace(self.image_token, self.image_token * self.image_tokens)
        ids: list[int] = self.tokenizer(expanded, add_special_tokens=False)["input_ids"]
        ids = prepend_bos(ids, bos_ids(self.tokenizer))
        if max_length is not None and len(ids) > max_length:
            raise InputError(
                f"the prompt takes {len(ids)} tokens, {max_length} are allowed; image and soft tokens are "
                "never cut",
                hint="shorten the question or the list of tags",
            )
        return ids


def _pad_id(tokenizer: Any) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0


def _left(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[index, longest - len(row) :] = 1
    return ids, mask


AutoProcessor.register(LionConfig, LionProcessor, exist_ok=True)
