"""LLaVA models with their processors: the forward pass in parts, loading, saving and checks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError, library_reads
from priorkit.models.folder import read_config, tensor_files
from priorkit.models.language.chat_template import ChatTokenizer, check_chat_template
from priorkit.models.language.content_parts import accept_parts
from priorkit.models.language.conversation_formats import use_template
from priorkit.models.language.tokenizer import CHAT_TEMPLATE, IMAGE
from priorkit.models.multimodal.base import Capabilities
from priorkit.models.multimodal.embeddings import replace_embeddings
from priorkit.models.pretrained import load_preprocessor, load_pretrained, refuse_missing_tensors
from priorkit.models.vision.image_tower import TOWER_CONCAT
from priorkit.models.vision.preprocessing import Preprocessing
from priorkit.models.vision.processor_settings import check_processor
from priorkit.models.vision.towers import register_tower

if TYPE_CHECKING:
    from PIL import Image

PARTS = ("projector", "llm", "encoder")
"""The parts of a multimodal model that can be trained."""


def llava_part(name: str) -> str:
    """Which of :data:`PARTS` a tensor of a LLaVA model belongs to, by its name."""
    if "multi_modal_projector" in name:
        return "projector"
    return "encoder" if "vision_tower" in name else "llm"


@dataclass
class LlavaMultimodal:
    """A LLaVA model with its processor.

    Attributes:
        model: ``LlavaForConditionalGeneration``.
        processor: ``LlavaProcessor``: image processor, tokenizer, chat template.
    """

    model: Any
    processor: Any

    @property
    def capabilities(self) -> Capabilities:
        """What inference must give it and may do with it."""
        return Capabilities()

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        return self.model.model.language_model

    @property
    def image_tokens(self) -> int:
        """How many positions an image takes in the sequence."""
        return int(self.model.config.image_seq_length)

    @property
    def max_length(self) -> int:
        """The longest sequence the language model takes."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def image_token(self) -> str:
        """The token that marks an image's positions."""
        return image_token(self.tokenizer, self.model.config.image_token_id)

    def chat_tokenizer(self, max_length: int = 0) -> ChatTokenizer:
        """The tokenizer of conversations.

        Args:
            max_length: maximum length of a conversation in tokens; 0 for the model's.
        """
        return ChatTokenizer(
            self.tokenizer, self.image_tokens, max_length or self.max_length, self.image_token
        )

    @cached_property
    def _preprocessing(self) -> Preprocessing:
        return Preprocessing(self.processor.image_processor)

    def prepare(self, image: Image.Image) -> Tensor:
        """Resize and crop as the encoder was trained: uint8 ``[3, height, width]``."""
        return self._preprocessing.prepare(image)

    def patch_features(self, pixels: Tensor) -> Tensor:
        """The patch features that the projector reads.

        Args:
            pixels: uint8 ``[images, 3, height, width]``.

        Returns:
            ``[images, image_tokens, width]``: the hidden state of ``vision_feature_layer``, without the
            class token where the strategy is ``default``; several layers are concatenated.
        """
        config = self.model.config
        output = self.model.model.vision_tower(
            pixel_values=self._preprocessing.normalize(pixels), output_hidden_states=True, return_dict=True
        )
        layers = config.vision_feature_layer
        states = [output.hidden_states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        if config.vision_feature_select_strategy == "default":
            states = [state[:, 1:] for state in states]
        return states[0] if len(states) == 1 else torch.cat(states, dim=-1)

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
            input_ids: ``[batch, time]`` with :attr:`image_tokens` placeholders per image.
            attention_mask: ``[batch, time]``, or what the attention implementation takes instead.
            features: patch features of the images in order, ``[images, image_tokens, width]``; None
                where the batch has no image.
            placeholder: embeddings ``[positions, width]`` of withheld images; of no effect with ``features``.
            image_positions: the placeholders' positions in the concatenated rows, int64, where they are known.
            **options: for the language model (cache, positions).
        """
        embedded = self.model.get_input_embeddings()(input_ids)
        if features is not None:
            placeholder = self.model.model.multi_modal_projector(features)
        if placeholder is not None:
            places = input_ids == self.model.config.image_token_id
            embedded = replace_embeddings(embedded, places, placeholder, image_positions)
        return self.model.model.language_model(
            inputs_embeds=embedded, attention_mask=attention_mask, **options
        )

    def row_options(
        self, ids: Tensor, questions: Sequence[str], task_types: Sequence[str], cache: Any, use_cache: bool
    ) -> dict[str, Any]:
        """None: a LLaVA model takes tokens and images only."""
        return {}

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""
        return self.model.lm_head(hidden)

    @torch.no_grad()
    def calibrate(self, pixels: Tensor) -> None:
        """Scale a fresh projector so that image embeddings have the standard deviation of text embeddings.

        With the default initialization it is some 80 times larger in a small model (4.7 against 0.06). Image
        embeddings then dominate the residual stream, and the language model learns next to nothing from them.

        Args:
            pixels: a sample of images, uint8 ``[images, 3, height, width]``.
        """
        projector = self.model.model.multi_modal_projector
        text_std = self.model.get_input_embeddings().weight.float().std()
        image_std = projector(self.patch_features(pixels.to(self.device))).float().std()
        # The second matrix of a linear projector is the identity and stays so.
        linear = projector.linear_1 if has_linear_projector(self.model) else projector.linear_2
        linear.weight.mul_(text_std / image_std)
        linear.bias.mul_(text_std / image_std)

    def parameter_part(self, name: str) -> str:
        """The part that a parameter belongs to: one of :data:`PARTS`, or ``placeholder``."""
        return "placeholder" if "placeholder" in name.split(".") else llava_part(name)

    def save(self, folder: Path) -> None:
        """Save model and processor."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def image_token(tokenizer: Any, token_id: int | None) -> str:
    """The token that marks an image's positions; transformers' default where the model's configuration has none."""
    return IMAGE if token_id is None else str(tokenizer.convert_ids_to_tokens(token_id))


def has_linear_projector(model: Any) -> bool:
    """Whether a LLaVA model's projector is one linear map: no activation, the second matrix the identity."""
    return model.config.projector_hidden_act == "linear"


def check_llava(folder: Path) -> dict[str, Any]:
    """Check from headers that a folder is a LLaVA model with its processor.

    Returns:
        Its ``config.json``.

    Raises:
        InputError: no model, no weights, or a model of another type.
    """
    config = read_config(folder)
    if config["model_type"] != "llava":
        raise InputError(f"expected a LLaVA model, got '{config['model_type']}'", where=str(folder))
    check_processor(folder)
    tensor_files(folder)
    register_tower(config.get("vision_config", {}).get("model_type"))
    if config.get("vision_config", {}).get("model_type") == TOWER_CONCAT:
        importlib.import_module("priorkit.models.vision.tower_concat")  # registers the type with transformers
    return config


def check_llava_chat_template(folder: Path, config: Mapping[str, Any], template: str | None = None) -> None:
    """Check that a LLaVA model can be trained on conversations about images with its chat template.

    Args:
        folder: the model's.
        config: its ``config.json``.
        template: ``--chat-template``.

    Raises:
        InputError: it cannot, or its processor cannot be loaded.
    """
    tokenizer = load_processor(folder, template).tokenizer
    check_chat_template(tokenizer, folder, image_token(tokenizer, _image_token_id(config)))


def _image_token_id(config: Mapping[str, Any]) -> int | None:
    return config.get("image_token_id", config.get("image_token_index"))


def load_processor(folder: Path, template: str | None = None) -> Any:
    """Load a LLaVA model's processor.

    It and its tokenizer get the same chat template, which takes lists of parts: the processor's, or else the
    tokenizer's, or priorkit's. So training and evaluation render what ``processor.apply_chat_template`` renders.

    Args:
        folder: of the model.
        template: ``--chat-template``, which replaces the model's.

    Raises:
        InputError: it cannot be loaded.
    """
    from transformers import AutoProcessor

    processor = load_preprocessor(AutoProcessor, folder)
    tokenizer = processor.tokenizer
    tokenizer.chat_template = (
        getattr(processor, "chat_template", None) or tokenizer.chat_template or CHAT_TEMPLATE
    )
    token = image_token(tokenizer, _image_token_id(read_config(folder)))
    accept_parts(tokenizer, token)
    use_template(tokenizer, template, token)
    processor.chat_template = tokenizer.chat_template
    return processor


def load_llava(folder: Path, template: str | None = None) -> LlavaMultimodal:
    """Load a LLaVA model in fp32 with its processor.

    Args:
        folder: of the model.
        template: ``--chat-template``, which replaces the model's.

    Raises:
        InputError: it cannot be loaded.
    """
    from PIL import Image
    from transformers import LlavaForConditionalGeneration

    check_llava(folder)
    model, info = load_pretrained(LlavaForConditionalGeneration, folder, dtype=torch.float32)
    refuse_missing_tensors(info, folder)
    multimodal = LlavaMultimodal(model, load_processor(folder, template))
    # One plain image shows what no header does: sizes or layers that do not go together.
    with (
        library_reads("its image processor and image tower do not work together", str(folder)),
        torch.no_grad(),
    ):
        multimodal.patch_features(multimodal.prepare(Image.new("RGB", (64, 64)))[None])
    return multimodal
