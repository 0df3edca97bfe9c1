"""LION as a transformers model: a LLaVA model with two visual branches, a mixture of adapters, a soft prompt."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, LlavaForConditionalGeneration
from transformers import initialization as init
from transformers.models.llava.modeling_llava import (
    LlavaCausalLMOutputWithPast,
    LlavaModel,
    LlavaModelOutputWithPast,
    LlavaPreTrainedModel,
)

from priorkit.architectures.lion.modeling.adapters import (
    BottleneckAdapter,
    LayerAdapters,
    Router,
    Routing,
    attach,
    decoder_layers,
)
from priorkit.architectures.lion.modeling.aggregator import VisionAggregator, ZeroLinear
from priorkit.architectures.lion.modeling.configuration import LionConfig
from priorkit.architectures.lion.modeling.queries import QueryBranch
from priorkit.core.errors import InputError
from priorkit.models.multimodal.embeddings import replace_embeddings


class LionParts(nn.Module):
    """Everything that LION adds to a LLaVA model."""

    def __init__(self, config: LionConfig, layers: int) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        branches, names = config.branches, config.adapters
        self.routing = Routing()
        self.qformer = QueryBranch(config) if "qformer" in branches else None
        self.aggregator = VisionAggregator(config) if "aggregator" in branches else None
        self.layers = nn.ModuleList(
            LayerAdapters(names, width, config.adapter_width, config.router, self.routing)
            for _ in range(layers if names else 0)
        )
        self.soft_prompt = nn.Parameter(torch.zeros(width)) if config.tags == "soft" else None

    def reset(self) -> None:
        """Draw the soft prompt; other parts have their own."""
        if self.soft_prompt is not None:
            init.normal_(self.soft_prompt, std=0.02)


def _initialise(model: LlavaPreTrainedModel, module: nn.Module) -> None:
    # transformers passes over modules without a tensor of their own, so each of these has one.
    LlavaPreTrainedModel._init_weights(model, module)
    if isinstance(module, BottleneckAdapter | Router | ZeroLinear | QueryBranch | LionParts):
        module.reset()


class LionModel(LlavaModel):
    """A LLaVA model with LION's parts, without the head.

    The visual tokens are [Q-Former][aggregator][LLaVA's projector], as far as the configuration has
    them, instead of the image placeholders.
    """

    config: LionConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    _init_weights: Any = _initialise

    def __init__(self, config: LionConfig) -> None:
        super().__init__(config)
        self.lion = LionParts(config, len(decoder_layers(self.language_model)))
        if config.adapters:
            attach(self.language_model, cast("Any", self.lion.layers), config.adapter_input)
        self.post_init()

    def wanted_states(self) -> list[int]:
        """Numbers of the encoder's hidden states that the branches read; 0 is what enters the first block."""
        config, depth = self.config, self.config.vision_config.num_hidden_layers
        wanted: list[int] = []
        if self.lion.qformer is not None:
            wanted.append(depth)
        if self.lion.aggregator is not None:
            wanted += [layer + 1 for layer in config.aggregator_layers]
        if "projector" in config.branches:
            wanted += self._projector_states(depth)
        return sorted(set(wanted))

    def _projector_states(self, depth: int) -> list[int]:
        layers = self.config.vision_feature_layer
        return [layer % (depth + 1) for layer in ([layers] if isinstance(layers, int) else layers)]

    def vision_states(self, pixel_values: Tensor) -> Tensor:
        """The hidden states that the branches read.

        Args:
            pixel_values: normalised, ``[images, 3, height, width]``.

        Returns:
            ``[images, len(wanted_states()), positions, width]``, raw block outputs with the class token.
        """
        output = self.vision_tower(pixel_values, output_hidden_states=True, return_dict=True)
        return torch.stack([output.hidden_states[index] for index in self.wanted_states()], dim=1)

    def visual_tokens(self, states: Tensor, ids: Tensor | None, mask: Tensor | None) -> Tensor:
        """Visual tokens of images, all branches after one another.

        Args:
            states: from :meth:`vision_states`.
            ids: token ids of the question to each image, ``[images, length]``, for the Q-Former.
            mask: 0 at their padding.

        Returns:
            ``[images, image_seq_length, width of the language model]``.
        """
        config, depth = self.config, self.config.vision_config.num_hidden_layers
        at = {number: states[:, index] for index, number in enumerate(self.wanted_states())}
        branches: list[Tensor] = []
        if self.lion.qformer is not None:
            branches.append(self.lion.qformer(at[depth], ids, mask))
        if self.lion.aggregator is not None:
            branches.append(self.lion.aggregator(*(at[layer + 1] for layer in config.aggregator_layers)))
        if "projector" in config.branches:
            features = torch.cat([at[number] for number in self._projector_states(depth)], dim=-1)
            drops = config.vision_feature_select_strategy == "default"
            branches.append(self.multi_modal_projector(features[:, 1:] if drops else features))
        return torch.cat([tokens.to(branches[0].dtype) for tokens in branches], dim=1)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embeddings of tokens, the soft prompt's vector at its placeholder.

        Raises:
            ValueError: a soft token in a model without soft prompt.
        """
        table = self.get_input_embeddings()
        token = self.config.soft_token_id
        if token is None:
            return table(input_ids)
        places = input_ids == token
        embedded = table(input_ids.masked_fill(places, 0))
        if self.lion.soft_prompt is None:
            if bool(places.any()):
                raise ValueError("the prompt has a soft token, but this model has no soft prompt")
            return embedded
        return torch.where(places[..., None], self.lion.soft_prompt.to(embedded.dtype), embedded)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        task_types: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
        vision_states: Tensor | None = None,
        image_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """Hidden states of the language model over text and images.

        Args:
            input_ids: ``[batch, time]``, ``image_seq_length`` placeholders per image.
            pixel_values: normalised images in the order of their placeholders.
            inputs_embeds: instead of ``input_ids``, with all images and soft prompts in it.
            task_types: 0 (region-level) or 1 (image-level): int64 ``[batch]``, or ``[batch, time]`` where
                samples share a row. With a cache it is passed again at every step.
            qformer_input_ids: the question to each image, ``[images, length]``.
            qformer_attention_mask: 0 at its padding.
            vision_states: what :meth:`vision_states` gave, instead of ``pixel_values``.
            image_positions: the placeholders' positions in the concatenated rows, int64, where they are known.
            **kwargs: for the language model: attention mask, positions, cache.

        Raises:
            ValueError: both or neither of ids and embeddings; visual tokens that do not fit their
                placeholders; task types that are missing or do not fit.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds is needed")
        embedded: Any = inputs_embeds if input_ids is None else self.embed(input_ids)
        if vision_states is None and pixel_values is not None:
            vision_states = self.vision_states(pixel_values)
        tokens = None
        if vision_states is not None:
            tokens = self.visual_tokens(vision_states, qformer_input_ids, qformer_attention_mask)
            tokens = tokens.to(embedded.device, embedded.dtype)
            if image_positions is None:
                places = self.get_placeholder_mask(
                    cast("Any", input_ids), inputs_embeds=embedded, image_features=tokens
                )
                embedded = embedded.masked_scatter(places.expand_as(embedded), tokens)
            else:
                if len(image_positions) != tokens.shape[0] * tokens.shape[1]:
                    raise ValueError(
                        f"{tokens.shape[0] * tokens.shape[1]} visual tokens do not fit "
                        f"{len(image_positions)} placeholders"
                    )
                places = cast("Any", input_ids) == self.config.image_token_id
                embedded = replace_embeddings(embedded, places, tokens, image_positions)
        self.lion.routing.tasks = self._tasks(task_types, embedded)
        output = self.language_model(inputs_embeds=embedded, **kwargs)
        return LlavaModelOutputWithPast(
            last_hidden_state=output.last_hidden_state,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=tokens,
        )

    def _tasks(self, tasks: Tensor | None, embedded: Tensor) -> Tensor | None:
        if tasks is None:
            if len(self.config.adapters) > 1:
                raise ValueError("two adapters need the task type of every row: pass task_types")
            return None
        batch, time = embedded.shape[:2]
        if tasks.ndim == 2 and tasks.shape[1] > time:
            tasks = tasks[:, -time:]  # a step with a cache: the row continues with its last sample's type
        if tuple(tasks.shape) not in ((batch,), (batch, time)):
            raise ValueError(f"task_types must be [{batch}] or [{batch}, {time}], got {list(tasks.shape)}")
        return tasks.to(embedded.device)


class LionForConditionalGeneration(LlavaForConditionalGeneration):
    """A LION model with its language modelling head; generates with a cache as any transformers model."""

    config: LionConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    config_class = LionConfig
    _init_weights: Any = _initialise

    def __init__(self, config: LionConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = LionModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers, but a missing, unexpected or misfitting tensor is an error.

        Raises:
            InputError: naming them.
        """
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
        misfits = sorted(item[0] if isinstance(item, tuple) else item for item in info["mismatched_keys"])
        problems = [
            f"{len(names)} {what} tensors, such as {', '.join(names[:3])}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("misfitting", misfits))
            if names
        ]
        if problems:
            raise InputError("; ".join(problems), where=str(args[0]) if args else "")
        return (model, info) if output_loading_info else model

    def never_soft(self, logits: Tensor) -> Tensor:
        """Logits under which the soft token is never generated.

        It has no row in the base's head: where its id lies beyond the vocabulary, columns are added, so
        that whatever indexes logits by token ids (a repetition penalty) finds it.
        """
        token = self.config.soft_token_id
        if token is None:
            return logits
        least = torch.finfo(logits.dtype).min
        if token >= logits.shape[-1]:
            return nn.functional.pad(logits, (0, token + 1 - logits.shape[-1]), value=least)
        column = torch.arange(logits.shape[-1], device=logits.device) == token
        return logits.masked_fill(column, least)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        task_types: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
        vision_states: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """Logits, and the loss where there are labels.

        transformers reads what ``generate`` may pass on from this signature, so every input is named here.

        Args:
            input_ids, pixel_values, inputs_embeds, task_types, qformer_input_ids, qformer_attention_mask,
            vision_states: as in :meth:`LionModel.forward`.
            attention_mask: ``[batch, time]``.
            position_ids: ``[batch, time]``.
            past_key_values: cache.
            labels: ``[batch, time]``, -100 where there is no loss.
            logits_to_keep: number of last positions whose logits are computed; 0 for all.
        """
        kwargs.pop("return_dict", None)
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            task_types=task_types,
            qformer_input_ids=qformer_input_ids,
            qformer_attention_mask=qformer_attention_mask,
            vision_states=vision_states,
            **kwargs,
        )
        positions = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.never_soft(self.lm_head(output.last_hidden_state[:, positions]))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return LlavaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=output.image_hidden_states,
        )


def parameter_part(name: str) -> str:
    """Which part a parameter belongs to.

    ``qformer``, ``aggregator``, ``adapter region``, ``adapter image``, ``adapter shared``, ``router``,
    ``soft prompt``, ``projector``, ``encoder`` or ``llm``.
    """
    names = name.split(".")
    if "lion" in names:
        rest = names[names.index("lion") + 1 :]
        if rest[0] == "layers":
            return f"adapter {rest[3]}" if rest[2] == "adapters" else "router"
        return rest[0].replace("_", " ")
    if "multi_modal_projector" in names:
        return "projector"
    return "encoder" if "vision_tower" in names else "llm"


AutoConfig.register("lion", LionConfig, exist_ok=True)
AutoModelForImageTextToText.register(LionConfig, LionForConditionalGeneration, exist_ok=True)
