"""The model under evaluation, reduced to what asking it needs: token ids and images in, logits out."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from priorkit.architectures.lion.artifact import base_of, is_lion_adapter
from priorkit.core.errors import InputError
from priorkit.core.inputs import Input, resolve
from priorkit.core.safetensors_header import read_header
from priorkit.data.images.decoding import ImageRef, image_key
from priorkit.inference.encode import encode_batches, patch_features
from priorkit.inference.logits_slicing import slice_last_mlp
from priorkit.models.folder import read_config, read_json, tensor_files
from priorkit.models.language.causal_lm import check_llm, load_llm
from priorkit.models.language.tokenizer import IMAGE, load_tokenizer, opened, opening_ids
from priorkit.models.multimodal.llava import Multimodal, check_multimodal, load_multimodal
from priorkit.models.vision.loading import check_encoder

logger = logging.getLogger(__name__)

ModelKind = Literal["llm", "mllm", "encoder"]

KEEP_FEATURES_BYTES = 2 << 30
"""Patch features are kept in memory up to this size, for further questions about the same image."""


@dataclass(frozen=True)
class Checked:
    """A model as its headers describe it.

    Attributes:
        kind: what it can do.
        folder: its directory, or the base model's.
        adapter: the directory of a PEFT adapter on it.
        base: the base model of an adapter as an input, for its digest.
    """

    kind: ModelKind
    folder: Path
    adapter: Path | None = None
    base: Input | None = None


def check_model(folder: Path) -> Checked:
    """Tell from headers what a model directory holds.

    Raises:
        InputError: no model, an adapter without base or of a type PEFT does not know, or broken weights.
    """
    if (folder / "adapter_config.json").is_file():
        return _check_adapter(folder)
    config = read_config(folder)
    if config["model_type"] == "lion":
        tensor_files(folder)
        return Checked("mllm", folder)
    if config["model_type"] == "llava":
        check_multimodal(folder)
        return Checked("mllm", folder)
    if "vision_config" in config and "text_config" in config:
        check_encoder(folder)
        return Checked("encoder", folder)
    check_llm(folder)
    return Checked("llm", folder)


def _check_adapter(folder: Path) -> Checked:
    if is_lion_adapter(folder):
        base = base_of(folder)
        check_multimodal(base.path)
        return Checked("mllm", base.path, folder, base)
    config = read_json(folder / "adapter_config.json")
    where = str(folder / "adapter_config.json")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError("base_model_name_or_path is missing", where=where)
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if config.get("peft_type") not in {
        str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING
    }:
        raise InputError(f"PEFT knows no adapter type '{config.get('peft_type')}'", where=where)
    read_header(folder / "adapter_model.safetensors")
    found = resolve(base, "base", ("llm", "mllm"), "model", f"{where} base_model_name_or_path")
    checked = check_model(found.path)
    if checked.kind == "encoder" or checked.adapter is not None:
        raise InputError("the base of an adapter must be a language model or multimodal model", where=where)
    return Checked(checked.kind, checked.folder, folder, found)


@dataclass
class Subject:
    """A language model or multimodal model that is being asked.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        max_length: most positions it takes.
        multimodal: the same model with its image part; None for a language model.
        workers: how many threads decode and prepare images; 0 leaves it to the calling one.
    """

    model: Any
    tokenizer: Any
    max_length: int
    multimodal: Multimodal | None = None
    workers: int = 0
    _features: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    _kept_bytes: int = 0

    @cached_property
    def _known(self) -> frozenset[str]:
        """Arguments of the model's forward pass."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @cached_property
    def widest(self) -> int:
        """Numbers that a token takes where a layer is widest, outside attention."""
        config = self.model.config.get_text_config()
        hidden = int(config.hidden_size)
        return max(hidden, int(getattr(config, "intermediate_size", None) or 4 * hidden))

    @property
    def prefix(self) -> int:
        """The token that stands for an empty context: beginning of text, or else end of text.

        Raises:
            InputError: the tokenizer has neither.
        """
        for found in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if found is not None:
                return int(found)
        raise InputError("the tokenizer has neither a beginning-of-text nor an end-of-text token")

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        configured = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        several = configured if isinstance(configured, list) else [configured]
        return frozenset(int(own) for own in (*several, self.tokenizer.eos_token_id) if own is not None)

    @cached_property
    def _opening(self) -> list[int]:
        return opening_ids(self.tokenizer)

    def encode(self, text: str, chat: bool = False) -> list[int]:
        """Token ids without special tokens; an image's placeholder is repeated for each of its positions.

        A chat begins as the tokenizer begins a text when it is called, as in training.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if chat:
            ids = opened(ids, self._opening)
        if self.multimodal is None or IMAGE not in text:
            return ids
        image, count = self.multimodal.model.config.image_token_id, self.multimodal.image_tokens
        return [own for token in ids for own in ([token] * count if token == image else (token,))]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` of texts without images, in one call of the tokenizer."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def image_end(self, ids: Sequence[int]) -> int:
        """How many tokens of a prompt there are up to the end of its last image; 0 without one."""
        if self.multimodal is None:
            return 0
        image = self.multimodal.model.config.image_token_id
        return max((place + 1 for place, token in enumerate(ids) if token == image), default=0)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        *,
        keep: int,
        images: Sequence[ImageRef] = (),
        task_types: Sequence[str] = (),
        cache: Any = None,
        use_cache: bool = False,
    ) -> tuple[Tensor, Any]:
        """Logits of the last ``keep`` positions, and the cache of keys and values.

        Args:
            ids: ``[batch, time]``, padded on the left.
            mask: ``[batch, cached time + time]``, 0 at padding.
            positions: ``[batch, time]``.
            keep: how many positions' logits are wanted.
            images: those of the rows that have one, in order.
            task_types: of each row, for a model whose adapters are routed by it.
            cache: what an earlier call returned.
            use_cache: whether a cache will be needed.
        """
        device = self.device
        ids, mask, positions = ids.to(device), mask.to(device), positions.to(device)
        options: dict[str, Any] = {"use_cache": use_cache, "past_key_values": cache}
        if self.multimodal is not None:
            features = self.features(images) if images else None
            options |= self.multimodal.row_options(ids, images, cache, use_cache, task_types)
            with self._reading(keep):
                output = self.multimodal.hidden(ids, mask, features, position_ids=positions, **options)
            return self.multimodal.logits(output.last_hidden_state[:, -keep:]), output.past_key_values
        if "position_ids" in self._known:
            options["position_ids"] = positions
        if "logits_to_keep" in self._known:
            options["logits_to_keep"] = keep
        with self._reading(keep):
            output = self.model(input_ids=ids, attention_mask=mask, **options)
        return output.logits[:, -keep:], output.past_key_values

    def _reading(self, keep: int) -> AbstractContextManager[None]:
        """Only the last positions' output is wanted; LION's layers hold adapters of their own and stay whole."""
        if getattr(self.multimodal, "asks_for_looks", False):
            return nullcontext()
        return slice_last_mlp(self.model.get_decoder(), keep)

    def logits_at(
        self, ids: Tensor, keep: Tensor, positions: Tensor | None = None, allowed: Tensor | None = None
    ) -> Tensor:
        """Logits of a text at chosen positions, ``[kept, vocabulary]``; see :meth:`hidden_at`."""
        return self.model.get_output_embeddings()(self.hidden_at(ids, keep, positions, allowed))

    def hidden_at(
        self, ids: Tensor, keep: Tensor, positions: Tensor | None = None, allowed: Tensor | None = None
    ) -> Tensor:
        """The last hidden state of a text at chosen positions, ``[kept, width]``.

        Texts stand at the left and causal attention never looks at the padding behind them, so that no mask
        is needed and attention takes its fastest path; nor is the vocabulary computed where it is not wanted.

        Args:
            ids: ``[batch, time]`` int64, padded on the right.
            keep: ``[batch, time]`` bool.
            positions: ``[batch, time]`` where they do not simply count up.
            allowed: ``[batch, time, time]`` bool, what each position attends to, where that is not all before.
        """
        ids, keep = ids.to(self.device), keep.to(self.device)
        options: dict[str, Any] = {}
        if positions is not None and allowed is not None:
            dtype = next(self.model.parameters()).dtype
            bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
            options = {
                "position_ids": positions.to(self.device),
                "attention_mask": bias[:, None].to(self.device),
            }
        hidden = self.model.base_model(input_ids=ids, use_cache=False, **options).last_hidden_state
        return hidden[keep]

    @cached_property
    def plain_head(self) -> bool:
        """Whether the logits are the output embeddings of the last hidden state and nothing else."""
        return self._agrees([[1, 2, 3]], None, None)

    @cached_property
    def takes_masks(self) -> bool:
        """Whether the model attends as it is told, so that several continuations fit behind one context."""
        allowed = torch.ones(1, 4, 4, dtype=torch.bool).tril()
        allowed[0, 3, 2] = False
        positions = torch.tensor([[0, 1, 2, 2]])
        return self.plain_head and self._agrees([[1, 2, 3, 4]], positions, allowed)

    @torch.no_grad()
    def _agrees(self, rows: list[list[int]], positions: Tensor | None, allowed: Tensor | None) -> bool:
        """Whether :meth:`logits_at` gives what the model's own forward pass gives for the last token."""
        if self.multimodal is not None or not hasattr(self.model, "base_model"):
            return False
        most = self.model.get_output_embeddings().weight.shape[0] - 1
        ids = torch.tensor(rows).clamp(max=most)
        own = ids if positions is None else torch.cat([ids[:, :2], ids[:, 3:]], dim=1)
        try:
            expected = self.model(input_ids=own.to(self.device), use_cache=False).logits[0, -1]
            found = self.logits_at(ids, torch.ones_like(ids, dtype=torch.bool), positions, allowed)[-1]
            return torch.allclose(found, expected, atol=1e-5)
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return False

    def features(self, images: Sequence[ImageRef]) -> Tensor:
        """Patch features of images, ``[images, positions, width]``; each image passes the encoder once."""
        if self.multimodal is None:
            raise InputError("a language model takes no images")
        keys = [image_key(image) for image in images]
        wanted = dict(zip(keys, images, strict=True))
        fresh = {key: image for key, image in wanted.items() if key not in self._features}
        found = {key: self._features[key] for key in wanted if key in self._features}
        if fresh:
            batches = encode_batches(
                list(fresh.values()),
                self.multimodal,
                patch_features,
                batch_size=len(fresh),
                threads=self.workers,
            )
            computed = next(batches).features
            assert computed is not None
            for key, own in zip(fresh, computed, strict=True):
                found[key] = own
                if self._kept_bytes < KEEP_FEATURES_BYTES:
                    self._features[key] = own.clone()
                    self._kept_bytes += own.numel() * own.element_size()
        return torch.stack([found[key] for key in keys])

    def forget(self) -> None:
        """Let go of the images' features, between benchmarks."""
        self._features.clear()
        self._kept_bytes = 0


def load_subject(
    checked: Checked, device: torch.device, dtype: torch.dtype | None = None, workers: int = 0
) -> Subject:
    """Load a language model or multimodal model, fold an adapter into it, and put it on a device.

    Args:
        checked: what it is.
        device: where to.
        dtype: of a language model's weights; fp32 where not given.
        workers: threads that decode and prepare images.

    Raises:
        InputError: it cannot be loaded.
    """
    if checked.kind == "mllm":
        multimodal = _load_multimodal(checked)
        multimodal.model.to(device).eval()
        limit = multimodal.max_length
        return Subject(multimodal.model, multimodal.tokenizer, limit, multimodal, workers)
    model = _adapted(load_llm(checked.folder, dtype), checked).to(device).eval()
    return Subject(model, load_tokenizer(checked.folder), _max_length(model.config))


def _load_multimodal(checked: Checked) -> Multimodal:
    """A LLaVA model, perhaps with a folded adapter, or a LION model, whole or as an adapter on its base."""
    lion = read_config(checked.folder)["model_type"] == "lion"
    if lion or (checked.adapter is not None and is_lion_adapter(checked.adapter)):
        from priorkit.architectures.lion.build import load_lion, load_on_base

        return load_on_base(checked.folder, checked.adapter) if checked.adapter else load_lion(checked.folder)
    multimodal = load_multimodal(checked.folder)
    multimodal.model = _adapted(multimodal.model, checked)
    return multimodal


def _adapted(model: Any, checked: Checked) -> Any:
    if checked.adapter is None:
        return model
    from peft import PeftModel

    logger.info(f"  adapter {checked.adapter} on {checked.folder}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adapted: Any = PeftModel.from_pretrained(model, str(checked.adapter), local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"the adapter cannot be loaded: {first}", where=str(checked.adapter)) from None
    missing = [str(item.message) for item in caught if "missing adapter keys" in str(item.message)]
    if missing:
        raise InputError(f"the adapter does not fit its base: {missing[0][:200]}", where=str(checked.adapter))
    return adapted.merge_and_unload()


def _max_length(config: Any) -> int:
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return 2048
