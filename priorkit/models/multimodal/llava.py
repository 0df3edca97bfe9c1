"""Multimodal models: transformers' LLaVA of any causal LM and any encoder, with its processor."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.models.folder import read_config, tensor_files
from priorkit.models.language.causal_lm import load_checked, refuse_missing
from priorkit.models.language.chat_template import ChatTokenizer, check_template
from priorkit.models.language.tokenizer import CHAT_TEMPLATE, IMAGE
from priorkit.models.multimodal.base import Capabilities
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.image_tower import TOWER_CONCAT, ImageTower, extract_image_tower, patch_side
from priorkit.models.vision.preprocessing import Preprocessing, Resize

if TYPE_CHECKING:
    from PIL import Image

PARTS = ("projector", "llm", "encoder")
"""The parts of a multimodal model that can be trained."""


def part_of(name: str) -> str:
    """Which of :data:`PARTS` a tensor of a LLaVA model belongs to."""
    if "multi_modal_projector" in name:
        return "projector"
    return "encoder" if "vision_tower" in name else "llm"


@dataclass
class Multimodal:
    """A LLaVA model with its processor.

    Attributes:
        model: ``LlavaForConditionalGeneration``.
        processor: ``LlavaProcessor``: image processor, tokenizer, chat template.
    """

    model: Any
    processor: Any

    @property
    def capabilities(self) -> Capabilities:
        """What inference must give to it and may do with it."""
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
        """The token that stands for an image."""
        return str(self.tokenizer.convert_ids_to_tokens(self.model.config.image_token_id))

    def chat_tokenizer(self, max_length: int = 0) -> ChatTokenizer:
        """What turns conversations into token ids.

        Args:
            max_length: the longest conversation in tokens; 0 for what the model takes.
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
        """What the encoder hands to the projector.

        Args:
            pixels: uint8 ``[images, 3, height, width]``.

        Returns:
            ``[images, image_tokens, width]``: the hidden state of ``vision_feature_layer``, without the
            class token where the strategy is ``default``; those of several layers side by side.
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
        **options: Any,
    ) -> Any:
        """The language model's output over text and images.

        Args:
            input_ids: ``[batch, time]`` with :attr:`image_tokens` placeholders per image.
            attention_mask: ``[batch, time]``, or what the attention implementation takes in its place.
            features: patch features of the images in order, ``[images, image_tokens, width]``; None
                where the batch has no image.
            placeholder: embeddings ``[placeholders, width]`` for the placeholders, where no image gives them.
            **options: for the language model (cache, positions).
        """
        embedded = self.model.get_input_embeddings()(input_ids)
        if features is not None:
            placeholder = self.model.model.multi_modal_projector(features)
        if placeholder is not None:
            embedded = place(embedded, input_ids == self.model.config.image_token_id, placeholder)
        return self.model.model.language_model(
            inputs_embeds=embedded, attention_mask=attention_mask, **options
        )

    def row_options(
        self, ids: Tensor, questions: Sequence[str], task_types: Sequence[str], cache: Any, use_cache: bool
    ) -> dict[str, Any]:
        """Nothing: tokens and images are all that a LLaVA model takes."""
        return {}

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""
        return self.model.lm_head(hidden)

    @torch.no_grad()
    def calibrate(self, pixels: Tensor) -> None:
        """Scale a fresh projector so that image tokens are as large as the text's embeddings.

        Its default initialisation makes them some 80 times larger in a small model (4.7 against 0.06).
        They would then fill the residual stream, which no layer could change, and the language model
        would learn next to nothing from them.

        Args:
            pixels: some images, uint8 ``[images, 3, height, width]``.
        """
        projector = self.model.model.multi_modal_projector
        wanted = self.model.get_input_embeddings().weight.float().std()
        found = projector(self.patch_features(pixels.to(self.device))).float().std()
        # A linear projector's second matrix is the identity and stays so.
        linear = projector.linear_1 if is_linear(self.model) else projector.linear_2
        linear.weight.mul_(wanted / found)
        linear.bias.mul_(wanted / found)

    def part_of(self, name: str) -> str:
        """Which of :data:`PARTS` a parameter belongs to."""
        return "placeholder" if "placeholder" in name.split(".") else part_of(name)

    def save(self, folder: Path) -> None:
        """Save model and processor."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


@dataclass
class TextOnly:
    """A language model alone, asked in the same way as a :class:`Multimodal`.

    Attributes:
        model: a causal LM.
        image_token_id: the token whose embeddings :meth:`hidden` replaces; None where there is none.
    """

    model: Any
    image_token_id: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def decoder(self) -> Any:
        """The model without its head."""
        return self.model.get_decoder()

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        features: Tensor | None,
        placeholder: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The decoder's output; see :meth:`Multimodal.hidden`. There are no images, so no ``features``."""
        if placeholder is None:
            return self.decoder(input_ids=input_ids, attention_mask=attention_mask, **options)
        embedded = self.model.get_input_embeddings()(input_ids)
        embedded = place(embedded, input_ids == self.image_token_id, placeholder)
        return self.decoder(inputs_embeds=embedded, attention_mask=attention_mask, **options)

    def part_of(self, name: str) -> str:
        """All of it is the language model, but for what stands in for images."""
        return "placeholder" if "placeholder" in name.split(".") else "llm"


def place(embedded_BTC: Tensor, where_BT: Tensor, values_NC: Tensor) -> Tensor:
    """Embeddings with the marked positions replaced, in order."""
    where = where_BT.unsqueeze(-1).expand_as(embedded_BTC)
    return embedded_BTC.masked_scatter(where, values_NC.to(embedded_BTC.dtype))


def is_linear(model: Any) -> bool:
    """Whether a LLaVA model's projector is a single linear map: no activation, and the identity behind it."""
    return model.config.projector_hidden_act == "linear"


def compose(
    llm: Any,
    tokenizer: Any,
    encoder: Encoder,
    feature_layer: int | Sequence[int],
    class_token: bool,
    seed: int,
    projector: Literal["mlp", "linear"] = "mlp",
    image_tokens: int | None = None,
    also: Sequence[Encoder] = (),
    resize: Resize | None = None,
) -> Multimodal:
    """Join a language model and an encoder's image tower by a fresh projector.

    The tokenizer gets an image token, and the embeddings a row for it, where it has none; a chat
    template where it has none.

    Args:
        llm: a causal LM.
        tokenizer: its tokenizer.
        encoder: whose image tower is used.
        feature_layer: the hidden state the projector reads; -2 in LLaVA. Several are set side by side.
        class_token: whether the projector also reads the class token, which LLaVA drops; of no effect
            where the image tower has none. Registers behind it are read in any case.
        seed: draws the projector's weights.
        projector: LLaVA 1.5's two layers with GELU, or one linear map (LLaVA 1.0). LLaVA's class has two
            matrices in any case; the second is the identity then and is not to be trained.
        image_tokens: patches of an image; see :func:`priorkit.models.vision.image_tower.extract_image_tower`.
        also: further encoders, whose features lie beside the first one's; see
            :mod:`priorkit.models.vision.tower_concat`.
        resize: how images become squares; see :func:`priorkit.models.vision.preprocessing.with_resize`.

    Raises:
        InputError: an image tower that LLaVA cannot hold.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    torch.manual_seed(seed)
    tower = _side_by_side(extract_image_tower(encoder, image_tokens, resize), also)
    ensure_image_token(llm, tokenizer)
    drops = tower.prefix > 0 and not class_token
    llm.config._name_or_path = ""  # where it was read; the manifest tells, and equal models stay equal bytes
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=llm.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=tower.patches + tower.prefix - int(drops),
        vision_feature_layer=feature_layer if isinstance(feature_layer, int) else list(feature_layer),
        vision_feature_select_strategy="default" if drops else "full",
        projector_hidden_act="gelu" if projector == "mlp" else "linear",
        tie_word_embeddings=llm.config.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.model.state_dict(), strict=False)
    model.model.language_model.load_state_dict(llm.get_decoder().state_dict())
    model.lm_head.load_state_dict(llm.get_output_embeddings().state_dict())
    model.tie_weights()
    if projector == "linear":
        second = model.model.multi_modal_projector.linear_2
        torch.nn.init.eye_(second.weight)
        torch.nn.init.zeros_(second.bias)
    if getattr(llm, "generation_config", None) is not None:
        model.generation_config = llm.generation_config
    processor = LlavaProcessor(
        image_processor=tower.image_processor,
        tokenizer=tokenizer,
        patch_size=patch_side(tower.config),
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=tower.prefix,
        chat_template=tokenizer.chat_template,
    )
    return Multimodal(model, processor)


def _side_by_side(first: ImageTower, others: Sequence[Encoder]) -> ImageTower:
    if not others:
        return first
    from priorkit.models.vision.tower_concat import concat_towers

    return concat_towers([first, *map(extract_image_tower, others)])


def ensure_image_token(llm: Any, tokenizer: Any) -> int:
    """Give the vocabulary an image token and the tokenizer a chat template where they have none.

    Returns:
        How many rows the embeddings grew by.
    """
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    before = llm.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > before:
        llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return max(0, len(tokenizer) - before)


def check_multimodal(folder: Path) -> dict[str, Any]:
    """Check from headers that a folder is a LLaVA model with its processor.

    Returns:
        Its ``config.json``.

    Raises:
        InputError: no model, no weights, or a model of another sort.
    """
    config = read_config(folder)
    if config["model_type"] != "llava":
        raise InputError(f"expected a LLaVA model, got '{config['model_type']}'", where=str(folder))
    tensor_files(folder)
    if config.get("vision_config", {}).get("model_type") == TOWER_CONCAT:
        importlib.import_module("priorkit.models.vision.tower_concat")  # makes the type known to transformers
    return config


def check_chat(folder: Path, config: Mapping[str, Any]) -> None:
    """Check that conversations about images can be learnt from through a LLaVA model's chat template.

    Args:
        folder: the model's.
        config: its ``config.json``.

    Raises:
        InputError: they cannot, or its processor cannot be loaded.
    """
    tokenizer = load_processor(folder).tokenizer
    number = config.get("image_token_id", config.get("image_token_index"))
    token = IMAGE if number is None else str(tokenizer.convert_ids_to_tokens(number))
    check_template(tokenizer, folder, token)


def load_processor(folder: Path) -> Any:
    """Load a LLaVA model's processor; it and its tokenizer have the same chat template, if only the kit's.

    Raises:
        InputError: it cannot be loaded.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"its processor cannot be loaded: {str(error).splitlines()[0]}", where=str(folder)
        ) from None
    # Some models keep the chat template with the processor alone.
    own = getattr(processor, "chat_template", None)
    if own and not processor.tokenizer.chat_template:
        processor.tokenizer.chat_template = own
    elif not own:
        processor.chat_template = processor.tokenizer.chat_template = (
            processor.tokenizer.chat_template or CHAT_TEMPLATE
        )
    return processor


def load_multimodal(folder: Path) -> Multimodal:
    """Load a LLaVA model in fp32 with its processor.

    Raises:
        InputError: it cannot be loaded.
    """
    from transformers import LlavaForConditionalGeneration

    check_multimodal(folder)
    model, info = load_checked(LlavaForConditionalGeneration, folder, dtype=torch.float32)
    refuse_missing(info, folder)
    return Multimodal(model, load_processor(folder))
