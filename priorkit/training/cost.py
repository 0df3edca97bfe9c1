"""What the training stages of a recipe take, before anything is there: steps, tokens, FLOPs, memory of each GPU.

FLOPs are those of :mod:`priorkit.training.engine.resource_estimates`. Memory holds weights, gradients and AdamW's two
moments in fp32, divided by the number of GPUs where they are sharded; the weights of two blocks that FSDP gathers; and
the activations of a micro-batch in bf16, by what activation checkpointing keeps of each layer: its input (``full``), the
outputs of its matrix products (``selective``), or all that the backward pass reads. Logits are computed in chunks and the
encoder is small next to the language model: neither is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from priorkit.core.errors import UsageError
from priorkit.models.language import causal_lm
from priorkit.training.engine.resource_estimates import flops_per_token
from priorkit.training.finetuning.settings import FinetuningSettings
from priorkit.training.pretraining.exports import exports_of
from priorkit.training.pretraining.settings import PretrainSettings

FP32, BF16 = 4, 2

DEFAULT_IMAGE_TOKENS = 576


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage.

    Attributes:
        step: its name.
        steps: optimizer steps, those of annealed exports included; 0 for a model that is only written.
        tokens: positions trained on.
        flops: of forward and backward passes.
        memory_bytes: of each GPU, estimated.
    """

    step: str
    steps: int
    tokens: float
    flops: float
    memory_bytes: float


@dataclass(frozen=True)
class Decoder:
    """Sizes of a language model of a preset.

    Attributes:
        fields: of its configuration.
        vocabulary: tokens of its tokenizer.
    """

    fields: Mapping[str, Any]
    vocabulary: int

    @classmethod
    def preset(cls, name: str, vocabulary: int) -> Decoder:
        """The model of a preset.

        Raises:
            UsageError: there is no such preset.
        """
        return cls(causal_lm.preset_fields(name), vocabulary)

    @property
    def parameters(self) -> int:
        """Their number."""
        return causal_lm.parameter_count(dict(self.fields), self.vocabulary)

    def flops_per_token(self, length: int) -> float:
        """Of forward and backward pass where all of it is trained, in rows of ``length`` tokens."""
        config = SimpleNamespace(**self.fields, vocab_size=self.vocabulary)
        config.get_text_config = lambda: config
        return flops_per_token(config, self.parameters, length)

    def activation_bytes(self, tokens: int, checkpointing: str) -> float:
        """Activations of a micro-batch of so many tokens."""
        hidden, inner = self.fields["hidden_size"], self.fields["intermediate_size"]
        keys = hidden // self.fields["num_attention_heads"] * self.fields["num_key_value_heads"]
        everything = 8 * hidden + 2 * keys + 3 * inner
        layers = self.fields["num_hidden_layers"]
        kept = {"none": everything, "selective": 4 * hidden + 2 * keys + 2 * inner, "full": hidden}[
            checkpointing
        ]
        # The layer that is being recomputed has all of them.
        recomputed = 0 if checkpointing == "none" else everything
        return float(BF16 * tokens * (layers * kept + recomputed))

    def state_bytes(self, trained: int, gpus: int) -> float:
        """Weights, gradients and moments on each of the GPUs over which they are sharded; 1 for no sharding."""
        gathered = 2 * self.parameters / self.fields["num_hidden_layers"] if gpus > 1 else 0.0
        return FP32 * ((self.parameters + 3 * trained) / gpus + gathered)


def pretraining_cost(
    settings: PretrainSettings, decoder: Decoder, context_length: int, corpus_tokens: int | None, gpus: int
) -> StageCost:
    """The cost of pretraining, with its annealed exports.

    Args:
        settings: of the stage.
        decoder: the model.
        context_length: tokens of a row.
        corpus_tokens: of the corpus, for a length in epochs; None where not known.
        gpus: number of processes, a GPU each.

    Raises:
        UsageError: the length is in epochs and the corpus is not known.
    """
    if settings.random_init:
        return StageCost(settings.step, 0, 0.0, 0.0, decoder.state_bytes(0, 1))
    if settings.steps is None and settings.tokens is None and corpus_tokens is None:
        raise UsageError("the length is in epochs of a corpus that is not known", where="[pretrain]")
    steps = settings.total_steps((corpus_tokens or 0) // context_length, context_length)
    steps += sum(export.decay_steps for export in exports_of(settings, context_length))
    tokens = float(steps * settings.batch_size * context_length)
    rows = settings.micro_batch_size or -(-settings.batch_size // gpus)
    memory = decoder.state_bytes(decoder.parameters, gpus if settings.shard else 1)
    memory += decoder.activation_bytes(rows * context_length, settings.checkpoint_activations)
    return StageCost(settings.step, steps, tokens, tokens * decoder.flops_per_token(context_length), memory)


def finetuning_cost(
    settings: FinetuningSettings, decoder: Decoder, image_tokens: int, text_tokens: int, gpus: int
) -> StageCost:
    """The cost of align, tune or blind-tune.

    Args:
        settings: of the stage; its samples are those of ``--subset``.
        decoder: the language model.
        image_tokens: positions of an image; 0 for a stage without images.
        text_tokens: mean number of tokens of a sample's text, which data decide.
        gpus: number of processes, a GPU each.

    Raises:
        UsageError: the number of samples is not known.
    """
    if settings.steps is None and settings.tokens is None and settings.subset is None:
        raise UsageError(
            "the number of samples is not known",
            where=f"[{settings.step}]",
            hint="set subset, steps or tokens",
        )
    length = image_tokens + text_tokens
    steps = settings.total_steps(settings.subset or 0, text_tokens)
    tokens = float(steps * settings.batch_size * length)
    trains_llm = "llm" in getattr(settings, "train", ("llm",)) and settings.step != "align"
    # A frozen language model has no gradients of its own weights: two thirds.
    flops = tokens * decoder.flops_per_token(length) * (1.0 if trains_llm else 2 / 3)
    rows = settings.micro_batch_size or -(-settings.batch_size // gpus)
    longest = settings.max_length or int(decoder.fields["max_position_embeddings"])
    trained = decoder.parameters if trains_llm else 0
    memory = decoder.state_bytes(trained, gpus if settings.shard else 1)
    memory += decoder.activation_bytes(rows * longest, settings.checkpoint_activations)
    return StageCost(settings.step, steps, tokens, flops, memory)
