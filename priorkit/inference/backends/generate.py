"""Models run by transformers' ``generate``, with the model's own processor: any family, one code path.

Positions, caches, masks over images and prefixes differ from family to family; ``generate`` knows them all. So
log-probabilities are read from it as well: the tokens of a continuation are forced, and what the model gave each
is added up. That is what the model would have assigned while writing, for every family.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import GuardError, InputError, is_out_of_memory
from priorkit.data.images.decoding import ImageRef
from priorkit.inference.backends.base import Ids, Prompt, Reply, with_bos
from priorkit.inference.backends.images import decode_all
from priorkit.inference.likelihood.requests import LikelihoodRequest

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far logits in a batch may be from those of each prompt by itself, relative to the largest, until prompts pass one at a time."""


@dataclass
class GenerateBackend:
    """A model of transformers with its processor or tokenizer.

    Attributes:
        model: has ``generate``; in evaluation mode.
        processor: takes texts with placeholders and images; None for a language model.
        tokenizer: the processor's.
        image_token: what a prompt's text has for an image.
        max_length: most positions the model takes.
        end_tokens: tokens that end an answer.
        bos_ids: ids that every prompt begins with.
        max_pixels: larger images are scaled down to this; 0 leaves it to the processor.
        workers: threads that decode images.
        batch_size: rows per forward pass.
        resized: images that were scaled down so far.
    """

    model: Any
    processor: Any
    tokenizer: Any
    image_token: str
    max_length: int
    end_tokens: frozenset[int]
    bos_ids: list[int] = field(default_factory=list[int])
    max_pixels: int = 0
    workers: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        from transformers import GenerationConfig

        # Greedy and nothing else: penalties and forced tokens of a model's own settings change what is compared.
        pad = self.tokenizer.pad_token_id
        if pad is None:
            pad = min(self.end_tokens, default=0)
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(pad)
        self.tokenizer.padding_side = "left"
        self.model.generation_config = GenerationConfig(
            do_sample=False, num_beams=1, use_cache=True, pad_token_id=int(pad)
        )

    @property
    def joins_lines(self) -> bool:
        """Whether the processor ends every prompt with a line break of its own."""
        return self._ends_prompts_with_line_break

    @cached_property
    def _ends_prompts_with_line_break(self) -> bool:
        if self.processor is None:
            return False
        ids = self._inputs([Prompt(f"{self.image_token}a", (blank_image(28),))])["input_ids"][0].tolist()
        return self.tokenizer.decode(ids).endswith("a\n")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Reply]:
        """See :class:`priorkit.inference.backends.base.Backend`."""
        replies: dict[int, Reply] = {}
        for rows, inputs in self._batches(prompts, [1] * len(prompts), replies):
            # Rows near the model's length would carry a batch beyond it.
            room = [min(max_new_tokens, self.max_length - length) for length in _lengths(inputs)]
            parts = [rows] if min(room) == max_new_tokens else [[row] for row in rows]
            for part in parts:
                given = inputs if part is rows else self._inputs([prompts[row] for row in part])
                counts = self._image_tokens(given)
                written = self._run(
                    given,
                    max_new_tokens=room[rows.index(part[0])] if len(parts) > 1 else max_new_tokens,
                    eos_token_id=sorted(self.end_tokens) or None,
                )[:, given["input_ids"].shape[1] :].tolist()
                texts = self.tokenizer.batch_decode(
                    [self._ended(ids) for ids in written], skip_special_tokens=True
                )
                replies |= {
                    row: Reply(text, image_tokens=count)
                    for row, text, count in zip(part, texts, counts, strict=True)
                }
        return [replies[row] for row in range(len(prompts))]

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """An answer up to its end token."""
        end = next((place for place, token in enumerate(ids) if token in self.end_tokens), len(ids))
        return list(ids[:end])

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[Ids]]) -> list[Reply]:
        """See :class:`priorkit.inference.backends.base.Backend`.

        A prompt whose continuations have one token each passes once, any other once per continuation.
        """
        rows = [
            (number, part)
            for number, ids in enumerate(continuations)
            for part in ([list(ids)] if all(len(one) == 1 for one in ids) else [[one] for one in ids])
        ]
        values: list[list[float]] = [[] for _ in prompts]
        replies: dict[int, Reply] = {}
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            failed: dict[int, Reply] = {}
            sizes = [max(map(len, ids)) for _, ids in part]
            for taken, inputs in self._batches([prompts[row] for row, _ in part], sizes, failed):
                forced = _ForcedTokens([part[index][1] for index in taken])
                self._run(
                    inputs,
                    max_new_tokens=max(sizes[index] for index in taken),
                    logits_processor=[forced],
                )
                counts = self._image_tokens(inputs)
                for index, sums, count in zip(taken, forced.sums, counts, strict=True):
                    row = part[index][0]
                    values[row] += sums
                    replies.setdefault(row, Reply(image_tokens=count))
            replies |= {part[index][0]: reply for index, reply in failed.items()}
        for row, reply in replies.items():
            if not reply.problem and any(map(math.isnan, values[row])):
                raise GuardError(
                    "the model's log-probabilities are not numbers (NaN)",
                    hint="its weights are damaged or overflow: check them, or use --precision fp32",
                )
        return [
            reply if reply.problem else Reply(scores=tuple(values[row]), image_tokens=reply.image_tokens)
            for row, reply in sorted(replies.items())
        ]

    @torch.no_grad()
    def score_text(self, requests: Sequence[LikelihoodRequest]) -> list[float]:
        """See :class:`priorkit.inference.backends.base.Backend`.

        Raises:
            InputError: the model attends to later text, so that a text has no likelihood.
        """
        if not self._causal:
            raise InputError(
                "this model's text attends to later text, so that a document has no likelihood",
                where=str(getattr(self.model, "name_or_path", "")),
            )
        sums: list[float] = []
        for request in requests:
            (continuation,) = request.continuations
            logits = self._text_logits([*request.context, *continuation[:-1]])[-len(continuation) :]
            targets = torch.tensor(continuation, device=logits.device)[:, None]
            taken = logits.float().log_softmax(-1).gather(-1, targets)
            sums.append(float(taken.double().sum()))
        return sums

    def _text_logits(self, ids: Sequence[int]) -> Tensor:
        """Logits of a text, ``[time, vocabulary]``."""
        inputs = torch.tensor([list(ids)], device=self.device)
        return self.model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits[0]

    @cached_property
    def _causal(self) -> bool:
        ids = list(range(1, 9))
        before, after = self._text_logits(ids)[:-1], self._text_logits([*ids[:-1], 9])[:-1]
        return torch.allclose(before, after, atol=1e-3, rtol=1e-3)

    def _batches(
        self, prompts: Sequence[Prompt], new_tokens: Sequence[int], replies: dict[int, Reply]
    ) -> Iterator[tuple[list[int], Mapping[str, Tensor]]]:
        """Prompts as the model takes them; those that it cannot take are replied to with their problem.

        Args:
            prompts: one batch.
            new_tokens: how many tokens each needs room for.
            replies: takes the problems, by number of the prompt.
        """
        groups: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            groups.setdefault(len(prompt.images), []).append(row)
        for group in groups.values():
            together = len(group) > 1 and self._batch_is_exact(bool(prompts[group[0]].images))
            for rows in [group] if together else [[row] for row in group]:
                yield from self._usable(prompts, rows, new_tokens, replies)

    def _usable(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[int],
        new_tokens: Sequence[int],
        replies: dict[int, Reply],
    ) -> Iterator[tuple[list[int], Mapping[str, Tensor]]]:
        try:
            inputs = self._inputs([prompts[row] for row in rows])
        except Exception as error:  # processors raise errors of many kinds on what they do not expect
            if is_out_of_memory(error):
                raise
            if len(rows) == 1:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                replies[rows[0]] = Reply(problem=f"its processor does not take it: {reason}")
            else:
                for row in rows:
                    yield from self._usable(prompts, [row], new_tokens, replies)
            return
        lengths = _lengths(inputs)
        kept: list[int] = []
        for row, length in zip(rows, lengths, strict=True):
            needed = length + new_tokens[row] - 1
            if needed >= self.max_length:
                replies[row] = Reply(
                    problem=f"images and question take {needed} tokens, the model takes {self.max_length}"
                )
            else:
                kept.append(row)
        if len(kept) < len(rows) and kept:
            inputs = self._inputs([prompts[row] for row in kept])
        if kept:
            yield kept, inputs

    def _inputs(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """What the model takes for prompts with equally many images, padded on the left."""
        texts = [with_bos(self, prompt.text) for prompt in prompts]
        options: dict[str, Any] = {"return_tensors": "pt", "padding": True, "add_special_tokens": False}
        if self.processor is None or not prompts[0].images:
            # Some processors refuse prompts without images, which only are text.
            ending = "\n" if self.joins_lines else ""
            texts = [text + ending for text in texts]
            types = "token_type_ids" in getattr(self.processor, "model_input_names", ())
            encoded: Any = self.tokenizer(texts, return_token_type_ids=types, **options)
        else:
            images = decode_all([prompt.images for prompt in prompts], self.max_pixels, self.workers)
            encoded = self.processor(text=texts, images=images, padding_side="left", **options)
        dtype = next(self.model.parameters()).dtype
        # Processors that also serve training add labels.
        return {
            name: value.to(self.device, dtype if value.is_floating_point() else None)
            for name, value in encoded.items()
            if name != "labels" and isinstance(value, Tensor)
        }

    def _run(self, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
        # Some models keep positions of the last batch in their state.
        return self.model.generate(**inputs, **options)

    def _image_tokens(self, inputs: Mapping[str, Tensor]) -> list[int]:
        """How many positions of each row belong to images."""
        known = [token for token in getattr(self.processor, "image_token_ids", ()) if token is not None]
        ids = inputs["input_ids"]
        return torch.isin(ids, torch.tensor(known, device=ids.device, dtype=ids.dtype)).sum(1).tolist()

    def _batch_is_exact(self, images: bool) -> bool:
        """Whether rows of a batch do not influence each other, found out on two prompts of different length."""
        if images not in self._exact:
            self._exact[images] = self._compare_batch(images)
            if not self._exact[images]:
                logger.info(
                    "  rows of a batch influence each other in this model: prompts pass one at a time"
                )
        return self._exact[images]

    _exact: dict[bool, bool] = field(default_factory=dict[bool, bool])

    def _compare_batch(self, images: bool) -> bool:
        prompts = [
            Prompt((self.image_token if images else "") + text, (blank_image(side),) if images else ())
            for text, side in (("a b c d e f g", 40), ("a", 72))
        ]
        try:
            together = self._first_logits(prompts)
            alone = torch.cat([self._first_logits([prompt]) for prompt in prompts])
        except (ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            return False
        tolerance = TOLERANCE.get(next(self.model.parameters()).dtype, 1e-3)
        return bool((together - alone).abs().max() <= tolerance * alone.abs().max())

    def first_logits(self, prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], Tensor]]:
        """Logits of the token that follows each prompt, for reading a model's states by hooks in the meantime.

        Args:
            prompts: one batch.

        Yields:
            Numbers of prompts that passed together, and their logits, fp32 ``[prompts, vocabulary]``.

        Raises:
            InputError: the model cannot take a prompt.
        """
        problems: dict[int, Reply] = {}
        for rows, inputs in self._batches(prompts, [1] * len(prompts), problems):
            yield rows, self._next_logits(inputs)
        for row, reply in problems.items():
            raise InputError(reply.problem, where=", ".join(image.name for image in prompts[row].images))

    def _first_logits(self, prompts: Sequence[Prompt]) -> Tensor:
        return self._next_logits(self._inputs(prompts))

    def _next_logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        output: Any = self.model.generate(
            **inputs, max_new_tokens=1, return_dict_in_generate=True, output_logits=True
        )
        return output.logits[0].float()


class _ForcedTokens:
    """A logits processor that forces each row's continuation and adds up its log-probabilities.

    Args:
        rows: for each row either one continuation, or several of one token.
    """

    def __init__(self, rows: Sequence[Sequence[Ids]]) -> None:
        self.rows = rows
        self.sums = [[0.0] * len(continuations) for continuations in rows]
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Force the next token; ``scores`` are raw logits ``[rows, vocabulary]``."""
        likelihoods = scores.float().log_softmax(-1)
        forced = torch.zeros(len(self.rows), dtype=torch.long)
        for row, continuations in enumerate(self.rows):
            for place, ids in enumerate(continuations):
                if self.step < len(ids):
                    self.sums[row][place] += float(likelihoods[row, ids[self.step]])
                    forced[row] = ids[self.step]
        self.step += 1
        return torch.full_like(scores, -math.inf).scatter(1, forced[:, None].to(scores.device), 0.0)


def _lengths(inputs: Mapping[str, Tensor]) -> list[int]:
    return inputs["attention_mask"].sum(1).tolist()


def blank_image(side: int) -> ImageRef:
    """A square picture of a gradient, for finding out how a processor treats images."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((side, side)).save(buffer, "PNG")
    return ImageRef(f"{side}.png", content=buffer.getvalue())
