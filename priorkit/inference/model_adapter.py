"""One interface to language models and multimodal models: token ids and images in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef, image_key
from priorkit.data.text.document_encoder import DocumentEncoder, document_encoder
from priorkit.inference.bos import BosRule, bos_ids_of
from priorkit.inference.images.batches import encode_batches
from priorkit.inference.images.features import patch_features
from priorkit.inference.logits_slicing import slice_last_mlp
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.models.language.attention_window import attention_window
from priorkit.models.language.end_tokens import end_tokens_of
from priorkit.models.language.tokenizer import IMAGE, prepend_bos
from priorkit.models.multimodal.base import Capabilities, MultimodalModel

KEEP_FEATURES_BYTES = 2 << 30
"""Patch features are kept in memory up to this size, for further questions about the same image."""


@dataclass
class ModelAdapter:
    """A loaded language model or multimodal model.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        max_length: most positions it takes.
        multimodal: the same model with its image part; None for a language model.
        workers: how many threads decode and prepare images; 0 leaves it to the calling one.
        bos_token: whether prompts begin with the beginning-of-text token.
        fixed_cache: whether it can decode with a cache of fixed size; None until that is tried.
        takes_trees: whether continuations can follow their context as a tree; None until that is tried.
    """

    model: Any
    tokenizer: Any
    max_length: int
    multimodal: MultimodalModel | None = None
    workers: int = 0
    bos_token: BosRule = "auto"
    fixed_cache: bool | None = None
    takes_trees: bool | None = None
    _features: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    _kept_bytes: int = 0

    @cached_property
    def _known(self) -> frozenset[str]:
        """Arguments of the model's forward pass."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @property
    def takes_positions(self) -> bool:
        """Whether positions can be given to it; otherwise it counts them itself."""
        return self.multimodal is not None or "position_ids" in self._known

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

    def sees_all(self, length: int) -> bool:
        """Whether every layer attends to all tokens before, in a sequence of this length."""
        window = attention_window(self.model.config)
        return window is None or length <= window

    @property
    def prefix(self) -> int:
        """The token used as an empty context: beginning of text, or else end of text.

        Raises:
            InputError: the tokenizer has neither.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise InputError("the tokenizer has neither a beginning-of-text nor an end-of-text token")

    @property
    def image_token(self) -> str:
        """What stands for an image in a prompt: the model's own token, or the general placeholder."""
        return self.multimodal.image_token if self.multimodal is not None else IMAGE

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return end_tokens_of(getattr(self.model, "generation_config", None), self.tokenizer)

    @cached_property
    def bos_ids(self) -> list[int]:
        """Token ids that every prompt begins with."""
        return bos_ids_of(self.tokenizer, self.bos_token)

    def prepend_bos(self, ids: list[int]) -> list[int]:
        """A prompt's token ids with those that every prompt begins with."""
        return prepend_bos(ids, self.bos_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens; an image's placeholder is repeated for each of its positions."""
        if self.multimodal is not None:
            text = text.replace(IMAGE, self.image_token)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.multimodal is None or self.image_token not in text:
            return ids
        image, count = self.multimodal.model.config.image_token_id, self.multimodal.image_tokens
        return [repeated for token in ids for repeated in ([token] * count if token == image else (token,))]

    @cached_property
    def document_encoder(self) -> DocumentEncoder:
        """Encodes documents; the names of special tokens in them are text, as in a corpus."""
        return document_encoder(self.tokenizer)

    def image_end(self, ids: Sequence[int]) -> int:
        """How many tokens of a prompt there are up to the end of its last image; 0 without one."""
        if self.multimodal is None:
            return 0
        image = self.multimodal.model.config.image_token_id
        return max((index + 1 for index, token in enumerate(ids) if token == image), default=0)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        *,
        keep: int,
        inputs: Sequence[PromptInputs] = (),
        cache: Any = None,
        use_cache: bool = False,
    ) -> tuple[Tensor, Any]:
        """Logits of the last ``keep`` positions, and the cache of keys and values.

        Args:
            ids: ``[batch, time]``, padded on the left.
            mask: ``[batch, cached time + time]``, 0 at padding.
            positions: ``[batch, time]``.
            keep: how many positions' logits are returned.
            inputs: images, question and task type of each row; nothing with a cache.
            cache: what an earlier call returned.
            use_cache: whether a cache will be needed.
        """
        device = self.device
        ids, mask, positions = ids.to(device), mask.to(device), positions.to(device)
        options: dict[str, Any] = {"use_cache": use_cache, "past_key_values": cache}
        if self.multimodal is not None:
            images = [image for row in inputs for image in row.images]
            questions = [row.question for row in inputs for _ in row.images]
            task_types = [row.task_type for row in inputs]
            features = self.features(images) if images else None
            options |= self.multimodal.row_options(ids, questions, task_types, cache, use_cache)
            with self._sliced(keep):
                output = self.multimodal.hidden(ids, mask, features, position_ids=positions, **options)
            return self.multimodal.logits(output.last_hidden_state[:, -keep:]), output.past_key_values
        if self.takes_positions:
            options["position_ids"] = positions
        if "logits_to_keep" in self._known:
            options["logits_to_keep"] = keep
        with self._sliced(keep):
            output = self.model(input_ids=ids, attention_mask=mask, **options)
        return output.logits[:, -keep:], output.past_key_values

    @property
    def capabilities(self) -> Capabilities:
        """What the multimodal model must be given and allows; a language model needs nothing."""
        return self.multimodal.capabilities if self.multimodal is not None else Capabilities()

    def _sliced(self, keep: int) -> AbstractContextManager[None]:
        """Run the last layer's MLP only at the last positions, if the model allows it."""
        if not self.capabilities.last_layer_slicing:
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

        Texts are padded on the right and causal attention never reads the padding, so that no mask
        is needed and attention takes its fastest path; nor is the vocabulary computed where it is not needed.

        Args:
            ids: ``[batch, time]`` int64, padded on the right.
            keep: ``[batch, time]`` bool.
            positions: ``[batch, time]`` where they do not simply count up.
            allowed: ``[batch, time, time]`` bool, what each position attends to, where that is not all before.
        """
        ids = ids.to(self.device)
        # Places are found in main memory: a mask on a GPU must be waited for.
        rows, columns = (index.to(self.device) for index in keep.nonzero(as_tuple=True))
        options: dict[str, Any] = {}
        if positions is not None and allowed is not None:
            dtype = next(self.model.parameters()).dtype
            bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
            options = {
                "position_ids": positions.to(self.device),
                "attention_mask": bias[:, None].to(self.device),
            }
        hidden = self.model.base_model(input_ids=ids, use_cache=False, **options).last_hidden_state
        return hidden[rows, columns]

    @cached_property
    def plain_head(self) -> bool:
        """Whether the logits are the output embeddings of the last hidden state and nothing else."""
        return self._agrees([[1, 2, 3]], None, None)

    @cached_property
    def takes_masks(self) -> bool:
        """Whether the model follows its attention mask, so that several continuations can follow one context."""
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
        uncut = ids if positions is None else torch.cat([ids[:, :2], ids[:, 3:]], dim=1)
        try:
            expected = self.model(input_ids=uncut.to(self.device), use_cache=False).logits[0, -1]
            computed = self.logits_at(ids, torch.ones_like(ids, dtype=torch.bool), positions, allowed)[-1]
            return torch.allclose(computed, expected, atol=1e-5)
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return False

    def features(self, images: Sequence[ImageRef]) -> Tensor:
        """Patch features of images, ``[images, positions, width]``; each image passes the encoder once."""
        if self.multimodal is None:
            raise InputError("a language model takes no images")
        keys = [image_key(image) for image in images]
        by_key = dict(zip(keys, images, strict=True))
        fresh = {key: image for key, image in by_key.items() if key not in self._features}
        known = {key: self._features[key] for key in by_key if key in self._features}
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
            for key, features in zip(fresh, computed, strict=True):
                known[key] = features
                if self._kept_bytes < KEEP_FEATURES_BYTES:
                    self._features[key] = features.clone()
                    self._kept_bytes += features.numel() * features.element_size()
        return torch.stack([known[key] for key in keys])

    def forget(self) -> None:
        """Let go of the images' features, between benchmarks."""
        self._features.clear()
        self._kept_bytes = 0
