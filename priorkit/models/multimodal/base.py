"""What a multimodal model offers: the protocol that every architecture's model fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from PIL import Image
    from torch import Tensor

TagUse = Literal["off", "hard", "soft"]


@dataclass(frozen=True)
class Capabilities:
    """What inference must give to a multimodal model, and what it may do with it.

    Attributes:
        questions: what an image contributes depends on the question about it and on the task type, so that
            prompts about one image share no prefix.
        tags: how tags of an image are given with its question.
        last_layer_slicing: whether the last layer's MLP may run only at the positions that are read; not
            where layers carry hooks that see all positions.
    """

    questions: bool = False
    tags: TagUse = "off"
    last_layer_slicing: bool = True


class TrainableModel(Protocol):
    """What instruction tuning needs of a model; also a language model without images fulfils it."""

    model: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        ...

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        features: Tensor | None,
        placeholder: Tensor | None = None,
        image_positions: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The language model's output over text and images.

        Args:
            input_ids: ``[batch, time]``, with a placeholder for each position of an image.
            attention_mask: ``[batch, time]``, or what the attention implementation takes instead.
            features: what :meth:`MultimodalModel.patch_features` gave for the images, in order; None where
                the batch has no image.
            placeholder: embeddings ``[placeholders, width]`` for images that are withheld.
            image_positions: the placeholders' positions in the concatenated rows, int64, where they are known;
                the backward pass then need not find them.
            **options: for the language model (cache, positions), and what :meth:`MultimodalModel.row_options`
                gave.
        """
        ...

    def parameter_part(self, name: str) -> str:
        """The part that a parameter belongs to."""
        ...


class MultimodalModel(TrainableModel, Protocol):
    """A model that takes images, with its processor."""

    processor: Any

    @property
    def capabilities(self) -> Capabilities:
        """What inference must give to it and may do with it."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        ...

    @property
    def image_token(self) -> str:
        """The token that marks an image's positions."""
        ...

    @property
    def image_tokens(self) -> int:
        """How many positions an image takes in the sequence."""
        ...

    @property
    def max_length(self) -> int:
        """The longest sequence the language model takes."""
        ...

    def prepare(self, image: Image.Image) -> Tensor:
        """Resize and crop as the encoder was trained: uint8 ``[3, height, width]``."""
        ...

    def patch_features(self, pixels: Tensor) -> Tensor:
        """What the encoder passes on, ``[images, ...]``, for uint8 pixels ``[images, 3, height, width]``."""
        ...

    def row_options(
        self, ids: Tensor, questions: Sequence[str], task_types: Sequence[str], cache: Any, use_cache: bool
    ) -> dict[str, Any]:
        """Further arguments of :meth:`hidden` for a batch of prompts.

        Args:
            ids: ``[batch, time]``.
            questions: the question to each image, in order; empty strings where the model needs none.
            task_types: of each row; empty where the batch continues from a cache.
            cache: what an earlier call returned.
            use_cache: whether a cache will be needed.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""
        ...

    def save(self, folder: Path) -> None:
        """Save model and processor."""
        ...
