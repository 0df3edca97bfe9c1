"""A new LLaVA model from a language model and the image tower of one or more encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from priorkit.models.language.content_parts import accept_parts
from priorkit.models.language.tokenizer import CHAT_TEMPLATE, IMAGE
from priorkit.models.multimodal.llava import LlavaMultimodal
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.image_tower import ImageTower, extract_image_tower, patch_side
from priorkit.models.vision.preprocessing import Resize

ProjectorType = Literal["mlp", "linear"]
"""LLaVA 1.5's two layers with GELU, or one linear map (LLaVA 1.0)."""

Resample = Literal["positions", "features"]
"""What is interpolated for another number of image tokens."""


def assemble_llava(
    llm: Any,
    tokenizer: Any,
    encoder: Encoder,
    feature_layer: int | Sequence[int],
    class_token: bool,
    seed: int,
    projector: ProjectorType = "mlp",
    image_tokens: int | None = None,
    further_encoders: Sequence[Encoder] = (),
    resize: Resize | None = None,
    resample: Resample = "positions",
) -> LlavaMultimodal:
    """Join a language model and an encoder's image tower by a fresh projector.

    The tokenizer gets an image token, and the embeddings a row for it, if it has none; a default chat
    template if it has none. A template of strings gets to take lists of parts.

    Args:
        llm: a causal LM.
        tokenizer: its tokenizer.
        encoder: whose image tower is used.
        feature_layer: the hidden state the projector reads; -2 in LLaVA. Several are concatenated.
        class_token: whether the projector also reads the class token, which LLaVA drops; of no effect
            if the image tower has none. Registers after it are read in any case.
        seed: draws the projector's weights.
        projector: its type. LLaVA's class has two matrices in any case; the second is the identity in a
            linear projector and must stay frozen.
        image_tokens: features of an image; None for the encoder's patches.
        further_encoders: encoders whose features are concatenated to the first one's; see
            :mod:`priorkit.models.vision.tower_concat`.
        resize: how images become square; see :func:`priorkit.models.vision.preprocessing.with_resize`.
        resample: how there come to be so many features: from another resolution with interpolated position
            embeddings (:func:`priorkit.models.vision.image_tower.extract_image_tower`), or by interpolating the
            features of the encoder's own (:func:`priorkit.models.vision.tower_concat.concat_towers`).

    Raises:
        InputError: LLaVA cannot use the image tower.
    """
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    torch.manual_seed(seed)
    by_positions = resample == "positions"
    tower = extract_image_tower(encoder, image_tokens if by_positions else None, resize)
    tower = _concatenated(tower, further_encoders, None if by_positions else image_tokens)
    ensure_image_token(llm, tokenizer)
    accept_parts(tokenizer, IMAGE)
    config = _llava_config(llm, tokenizer, tower, feature_layer, class_token, projector)
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
    return LlavaMultimodal(model, processor)


def _llava_config(
    llm: Any,
    tokenizer: Any,
    tower: ImageTower,
    feature_layer: int | Sequence[int],
    class_token: bool,
    projector: ProjectorType,
) -> Any:
    from transformers import LlavaConfig

    # The path it was read from is in the manifest; without it, equal models are equal bytes.
    llm.config._name_or_path = ""
    drops_class_token = tower.prefix > 0 and not class_token
    return LlavaConfig(
        vision_config=tower.config,
        text_config=llm.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=tower.patches + tower.prefix - int(drops_class_token),
        vision_feature_layer=feature_layer if isinstance(feature_layer, int) else list(feature_layer),
        vision_feature_select_strategy="default" if drops_class_token else "full",
        projector_hidden_act="gelu" if projector == "mlp" else "linear",
        tie_word_embeddings=llm.config.tie_word_embeddings,
    )


def _concatenated(
    tower: ImageTower, further_encoders: Sequence[Encoder], image_tokens: int | None
) -> ImageTower:
    if not further_encoders and image_tokens in (None, tower.patches):
        return tower
    from priorkit.models.vision.tower_concat import concat_towers

    return concat_towers([tower, *map(extract_image_tower, further_encoders)], image_tokens)


def ensure_image_token(llm: Any, tokenizer: Any) -> int:
    """Give the vocabulary an image token and the tokenizer a chat template if they have none.

    Returns:
        The number of rows added to the embeddings.
    """
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    before = llm.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > before:
        llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return max(0, len(tokenizer) - before)
