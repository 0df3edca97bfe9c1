"""A module with the interface of vLLM's offline engine that computes with transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer


@dataclass
class SamplingParams:
    """The parameters that priorkit gives."""

    temperature: float = 1.0
    max_tokens: int = 16
    stop_token_ids: Sequence[int] = ()
    skip_special_tokens: bool = True
    prompt_logprobs: int | None = None


@dataclass
class LLM:
    """As ``vllm.LLM``: placeholders in token ids are expanded by the model's processor."""

    model: str
    dtype: str
    seed: int
    trust_remote_code: bool
    limit_mm_per_prompt: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert (self.dtype, self.trust_remote_code) == ("float32", False)
        if self.limit_mm_per_prompt:
            self.loaded: Any = AutoModelForImageTextToText.from_pretrained(self.model)
            self.processor: Any = AutoProcessor.from_pretrained(self.model)
            self.tokenizer: Any = self.processor.tokenizer
        else:
            self.loaded = AutoModelForCausalLM.from_pretrained(self.model)
            self.processor, self.tokenizer = None, AutoTokenizer.from_pretrained(self.model)
        self.loaded.eval()
        length = self.loaded.config.get_text_config().max_position_embeddings
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=length))

    def generate(self, prompts: list[dict[str, Any]], sampling: SamplingParams, use_tqdm: bool) -> list[Any]:
        assert sampling.temperature == 0.0
        assert not use_tqdm
        return [self._answer(prompt, sampling) for prompt in prompts]

    @torch.no_grad()
    def _answer(self, prompt: dict[str, Any], sampling: SamplingParams) -> Any:
        text = self.tokenizer.decode(prompt["prompt_token_ids"])
        images = prompt.get("multi_modal_data", {}).get("image")
        if images:
            if len(images) > self.limit_mm_per_prompt["image"]:
                raise ValueError("too many images")
            given = self.processor(
                text=[text], images=[images], return_tensors="pt", add_special_tokens=False
            )
        else:
            given = self.tokenizer([text], return_tensors="pt", add_special_tokens=False)
        given = {name: value for name, value in given.items() if name != "token_type_ids" or images}
        ids = given["input_ids"][0].tolist()
        logprobs = None
        if sampling.prompt_logprobs is not None:
            rows = self.loaded(**given).logits[0].log_softmax(-1)
            logprobs = [None] + [
                {token: SimpleNamespace(logprob=float(row[token]))}
                for row, token in zip(rows[:-1], ids[1:], strict=True)
            ]
        ends = list(sampling.stop_token_ids)
        written = self.loaded.generate(
            **given, max_new_tokens=sampling.max_tokens, do_sample=False, eos_token_id=ends or None
        )[0, len(ids) :]
        text = self.tokenizer.decode(written, skip_special_tokens=sampling.skip_special_tokens)
        return SimpleNamespace(
            prompt_token_ids=ids, prompt_logprobs=logprobs, outputs=[SimpleNamespace(text=text)]
        )


def install_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``import vllm`` find the stand-in."""
    module: Any = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
