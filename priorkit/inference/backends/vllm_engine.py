"""Models run by vLLM's offline engine, where it is installed: greedy, answers as of any other back end.

Source: ``vllm.LLM`` and ``vllm.SamplingParams`` of vLLM 0.10 and later. Prompts are token ids with one placeholder per
image, which vLLM repeats for each position of the image; log-probabilities of a continuation are those of the prompt's
last tokens.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from priorkit.core.errors import InputError, ResourceError, library_reads
from priorkit.core.process import runtime
from priorkit.inference.backends.base import Ids, Prompt, Reply, encode_plain
from priorkit.inference.backends.images import decode_all
from priorkit.inference.likelihood.requests import LikelihoodRequest
from priorkit.models.language.tokenizer import prepend_bos

MAX_IMAGES = 8
"""Most images of a prompt: vLLM reserves memory for as many when it starts."""


def check_vllm() -> None:
    """Check that vLLM can be used.

    Raises:
        ResourceError: it is not installed, or several processes would each start an engine.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ResourceError(
            "vLLM is not installed",
            where="--backend vllm",
            hint="install it (pip install vllm), or leave it out",
        )
    if runtime.world_size() > 1:
        raise ResourceError(
            "vLLM uses several GPUs by itself", where="--backend vllm", hint="run it without torchrun"
        )


@dataclass
class VllmBackend:
    """A model in vLLM's offline engine.

    Attributes:
        engine: ``vllm.LLM``.
        tokenizer: the model's, as transformers loads it.
        image_token: what a prompt's text has for an image.
        max_length: most positions the engine takes.
        end_tokens: tokens that end an answer.
        bos_ids: ids that every prompt begins with.
        max_pixels: larger images are scaled down to this; 0 leaves it to the processor.
        workers: threads that decode images.
    """

    engine: Any
    tokenizer: Any
    image_token: str
    max_length: int
    end_tokens: frozenset[int]
    bos_ids: list[int] = field(default_factory=list[int])
    max_pixels: int = 0
    workers: int = 0
    joins_lines: bool = False

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Reply]:
        """See :class:`priorkit.inference.backends.base.Backend`."""
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=max_new_tokens,
            stop_token_ids=sorted(self.end_tokens),
            skip_special_tokens=True,
        )
        rows = [self._ids(prompt.text) for prompt in prompts]
        return [
            reply if reply.problem else Reply(output.outputs[0].text, image_tokens=reply.image_tokens)
            for reply, output in self._run(prompts, rows, sampling)
        ]

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[Ids]]) -> list[Reply]:
        """See :class:`priorkit.inference.backends.base.Backend`; each continuation is a prompt of its own."""
        given = [(number, ids) for number, several in enumerate(continuations) for ids in several]
        rows = [[*self._ids(prompts[number].text), *ids] for number, ids in given]
        outputs = self._run([prompts[number] for number, _ in given], rows, _scoring())
        scores: list[list[float]] = [[] for _ in prompts]
        replies: dict[int, Reply] = {}
        for (number, ids), (reply, output) in zip(given, outputs, strict=True):
            if reply.problem or number not in replies:
                replies[number] = reply
            if not reply.problem:
                scores[number].append(_tail(output, ids))
        return [
            reply if reply.problem else Reply(scores=tuple(scores[number]), image_tokens=reply.image_tokens)
            for number, reply in sorted(replies.items())
        ]

    def score_text(self, requests: Sequence[LikelihoodRequest]) -> list[float]:
        """See :class:`priorkit.inference.backends.base.Backend`."""
        rows = [[*request.context, *request.continuations[0]] for request in requests]
        outputs = self._run([Prompt("")] * len(rows), rows, _scoring())
        for reply, _ in outputs:
            if reply.problem:
                raise InputError(reply.problem, where="--backend vllm")
        return [
            _tail(output, request.continuations[0])
            for request, (_, output) in zip(requests, outputs, strict=True)
        ]

    def _ids(self, text: str) -> list[int]:
        return prepend_bos(encode_plain(self.tokenizer, text), self.bos_ids)

    def _run(
        self, prompts: Sequence[Prompt], rows: Sequence[Sequence[int]], sampling: Any
    ) -> list[tuple[Reply, Any]]:
        """Each prompt's image positions or problem, and the engine's output."""
        problems = {
            number: f"it has {len(prompt.images)} images, the engine takes {MAX_IMAGES}"
            for number, prompt in enumerate(prompts)
            if len(prompt.images) > MAX_IMAGES
        } | {
            number: f"images and question take {len(ids)} tokens or more, the model takes {self.max_length}"
            for number, ids in enumerate(rows)
            if len(ids) >= self.max_length
        }
        asked = [number for number in range(len(prompts)) if number not in problems]
        images = decode_all([prompts[number].images for number in asked], self.max_pixels, self.workers)
        requests: list[dict[str, Any]] = [
            {
                "prompt_token_ids": list(rows[number]),
                **({"multi_modal_data": {"image": pictures}} if pictures else {}),
            }
            for number, pictures in zip(asked, images, strict=True)
        ]
        outputs: dict[int, Any] = {}
        # One after the other where the engine refuses a batch, so that its reason goes with the prompt.
        try:
            outputs = dict(zip(asked, self.engine.generate(requests, sampling, use_tqdm=False), strict=True))
        except ValueError:
            for number, request in zip(asked, requests, strict=True):
                try:
                    (outputs[number],) = self.engine.generate([request], sampling, use_tqdm=False)
                except ValueError as error:
                    problems[number] = f"vLLM does not take it: {' '.join(str(error).split())[:200]}"
        return [
            (Reply(problem=problems[number]), None)
            if number in problems
            else (self._reply(rows[number], prompts[number], outputs[number]), outputs[number])
            for number in range(len(prompts))
        ]

    def _reply(self, ids: Sequence[int], prompt: Prompt, output: Any) -> Reply:
        """How many positions the images took: what vLLM's own prompt has more than the text."""
        expanded = len(output.prompt_token_ids) - len(ids)
        return Reply(image_tokens=expanded + len(prompt.images) if prompt.images else 0)


def _scoring() -> Any:
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

    # Only the prompt's own tokens; an engine generates one token at least.
    return SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)


def _tail(output: Any, ids: Ids) -> float:
    """Summed log-probability of the prompt's last tokens."""
    last = output.prompt_logprobs[-len(ids) :]
    return math.fsum(float(found[token].logprob) for found, token in zip(last, ids, strict=True))


def load_vllm(
    folder: Path, tokenizer: Any, image_token: str, end_tokens: frozenset[int], seed: int,
    precision: Literal["fp32", "bf16"], images: bool,
) -> VllmBackend:  # fmt: skip
    """Start an engine.

    Args:
        folder: the model's.
        tokenizer: with the chat template.
        image_token: what a prompt's text has for an image.
        end_tokens: tokens that end an answer.
        seed: of the engine.
        precision: dtype of weights and products.
        images: whether the model takes images.

    Raises:
        InputError: vLLM does not load the model.
    """
    from vllm import LLM  # pyright: ignore[reportMissingImports]

    limit = {"limit_mm_per_prompt": {"image": MAX_IMAGES}} if images else {}
    with library_reads("vLLM cannot load the model", str(folder)):
        engine = LLM(
            model=str(folder),
            dtype="float32" if precision == "fp32" else "bfloat16",
            seed=seed,
            trust_remote_code=False,
            **limit,
        )
    length = int(engine.llm_engine.model_config.max_model_len)
    return VllmBackend(engine, tokenizer, image_token, length, end_tokens)
