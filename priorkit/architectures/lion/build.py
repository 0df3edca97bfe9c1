"""LION on a LLaVA model: the model with its processor, and its parts put on a base."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from priorkit.architectures.lion.artifact import PEFT_TYPE
from priorkit.architectures.lion.modeling.configuration import LionConfig, lion_fields, task_index
from priorkit.architectures.lion.modeling.model import LionForConditionalGeneration, parameter_part
from priorkit.architectures.lion.modeling.processing import LionProcessor, pad_questions, question_ids
from priorkit.architectures.lion.modeling.task_cache import RoutedCache
from priorkit.core.errors import InputError
from priorkit.data.conversations.tag_prompt import SOFT_TOKEN
from priorkit.data.conversations.task_conversations import IMAGE_LEVEL
from priorkit.inference.model_info import ADAPTER_CONFIG, ADAPTER_MODEL
from priorkit.models.multimodal.base import Capabilities, TagUse
from priorkit.models.multimodal.llava import LlavaMultimodal


@dataclass
class LionMultimodal(LlavaMultimodal):
    """A LION model with its processor.

    Attributes:
        model: ``LionForConditionalGeneration``.
        processor: ``LionProcessor``.
    """

    def patch_features(self, pixels: Tensor) -> Tensor:
        """What the encoder hands to the branches.

        Args:
            pixels: uint8 ``[images, 3, height, width]``.

        Returns:
            ``[images, states, positions, width]``; see ``LionModel.vision_states``.
        """
        return self.model.model.vision_states(self._preprocessing.normalize(pixels))

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        features: Tensor | None,
        placeholder: Tensor | None = None,
        image_positions: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The language model's output; ``options`` may hold ``task_types`` and the Q-Former's questions."""
        if placeholder is not None:
            raise ValueError("LION has no placeholder for images that are not shown")
        return self.model.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            vision_states=features,
            image_positions=image_positions,
            **options,
        )

    @property
    def capabilities(self) -> Capabilities:
        """The Q-Former reads the question and adapters are routed by task type, through hooks in every layer."""
        return Capabilities(questions=True, tags=self.model.config.tags, last_layer_slicing=False)

    @property
    def tags(self) -> TagUse:
        """How tags are given: ``off``, ``hard`` or ``soft``."""
        return self.capabilities.tags

    def row_options(
        self, ids: Tensor, questions: Sequence[str], task_types: Sequence[str], cache: Any, use_cache: bool
    ) -> dict[str, Any]:
        """Task types of the rows and questions to the images.

        A row without a task type is image-level; rows that continue from a cache keep what they had.

        Args:
            ids: ``[batch, time]``.
            questions: the question to each image, in order.
            task_types: of each row; empty where the batch continues from a cache.
            cache: what an earlier call returned.
            use_cache: whether a cache will be needed.
        """
        if isinstance(cache, RoutedCache):
            return {"task_types": cache.tasks}
        tokenizer, config = self.tokenizer, self.model.config
        kinds = task_types or [""] * len(ids)
        numbers = [task_index(kind or IMAGE_LEVEL) for kind in kinds]
        options: dict[str, Any] = {"task_types": torch.tensor(numbers, device=ids.device)}
        if questions:
            rows = [question_ids(tokenizer, question, config.instruction_length) for question in questions]
            pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
            padded, mask = pad_questions(rows, pad)
            options["qformer_input_ids"] = padded.to(ids.device)
            options["qformer_attention_mask"] = mask.to(ids.device)
        if use_cache:
            options["past_key_values"] = RoutedCache(options["task_types"], config=config.text_config)
        return options

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states; the soft token is never chosen."""
        return self.model.never_soft(self.model.lm_head(hidden))

    @torch.no_grad()
    def calibrate(self, pixels: Tensor) -> None:
        """Scale randomly initialized branches so that their tokens are as large as the text's embeddings.

        Their tokens are far larger than the embeddings of a small model and would fill the residual stream;
        see :meth:`LlavaMultimodal.calibrate`.

        Args:
            pixels: some images, uint8 ``[images, 3, height, width]``.
        """
        model = self.model.model
        wanted = self.model.get_input_embeddings().weight.float().std()
        states = self.patch_features(pixels.to(self.device))
        tokens, start = model.visual_tokens(states, None, None).float(), 0
        for branch, count in ((model.lion.qformer, model.config.queries), (model.lion.aggregator, 0)):
            if branch is not None:
                branch_tokens = tokens[:, start : start + (count or states.shape[2])]
                start += branch_tokens.shape[1]
                branch.rescale(wanted / branch_tokens.std())

    def parameter_part(self, name: str) -> str:
        """Which part a parameter belongs to; see :func:`priorkit.architectures.lion.modeling.model.parameter_part`."""
        return parameter_part(name)

    def own_tensors(self) -> dict[str, Tensor]:
        """Everything that is not the base's: LION's parts, and the projector where it is a branch."""
        projector = "projector" in self.model.config.branches
        return {
            name: value
            for name, value in self.model.state_dict().items()
            if ".lion." in name or (projector and ".multi_modal_projector." in name)
        }

    def save_adapter(self, folder: Path, base: str, stage: str) -> None:
        """Save LION's parts only, as an adapter on their base.

        Args:
            folder: where to write.
            base: path or hub id of the base.
            stage: which stage made them.
        """
        config = self.model.config
        written = {
            "peft_type": PEFT_TYPE,
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "stage": stage,
            "lion": lion_fields(config),
            "base": base_shape(config),
        }
        text = json.dumps(written, indent=2, sort_keys=True) + "\n"
        (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.own_tensors().items()}
        save_file(tensors, folder / ADAPTER_MODEL, metadata={"format": "pt"})
        self.processor.save_pretrained(folder)


def base_shape(config: Any) -> dict[str, Any]:
    """What two adapters must agree on to have one base."""
    text, vision = config.text_config, config.vision_config
    return {
        "text": [text.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size],
        "vision": [vision.model_type, vision.hidden_size, vision.num_hidden_layers, vision.image_size],
    }


def image_positions(base: LlavaMultimodal) -> int:
    """Positions of an encoder's output, the class token included."""
    config = base.model.config
    drops = config.vision_feature_select_strategy == "default"
    return int(config.image_seq_length) + int(drops)


def compose(base: LlavaMultimodal, fields: Mapping[str, Any], seed: int) -> LionMultimodal:
    """A LION model on a LLaVA model; its own parts randomly initialized.

    Args:
        base: a LLaVA model; its weights are copied as they are.
        fields: of :data:`~priorkit.architectures.lion.modeling.configuration.LION_FIELDS`, without ``image_seq_length``
            and ``soft_token_id``, which follow.
        seed: initializes the parts.
    """
    tokenizer = base.tokenizer
    if SOFT_TOKEN not in tokenizer.get_vocab():
        from transformers import AddedToken

        tokenizer.add_tokens([AddedToken(SOFT_TOKEN, special=True, normalized=False)], special_tokens=True)
    known = base.model.config.to_dict()
    for name in ("model_type", "architectures", "transformers_version", "_name_or_path", "dtype"):
        known.pop(name, None)
    positions = image_positions(base)
    tokens = {
        "qformer": int(fields["queries"]),
        "aggregator": positions,
        "projector": int(base.model.config.image_seq_length),
    }
    config = LionConfig(
        **{
            **known,
            **fields,
            "image_seq_length": sum(tokens[name] for name in fields["branches"]),
            "soft_token_id": tokenizer.convert_tokens_to_ids(SOFT_TOKEN),
        }
    )
    torch.manual_seed(seed)
    model: Any = LionForConditionalGeneration(config)
    loaded = model.load_state_dict(base.model.state_dict(), strict=False)
    missing = [name for name in loaded.missing_keys if ".lion." not in name]
    if missing or loaded.unexpected_keys:
        raise InputError(
            f"the base does not fit: missing {missing[:3]}, unexpected {loaded.unexpected_keys[:3]}"
        )
    model.tie_weights()
    if model.model.lion.soft_prompt is not None:
        # N(0, 1) suits T5's embeddings; decoders' tables are much smaller.
        deviation = model.get_input_embeddings().weight.float().std()
        with torch.no_grad():
            model.model.lion.soft_prompt.normal_(std=float(deviation))
    if base.model.generation_config is not None:
        model.generation_config = base.model.generation_config
    processor = LionProcessor(
        image_processor=base.processor.image_processor,
        tokenizer=tokenizer,
        chat_template=base.processor.chat_template or tokenizer.chat_template,
        image_tokens=config.image_seq_length,
        instruction_length=config.instruction_length,
        tags=config.tags,
    )
    return LionMultimodal(model, processor)
