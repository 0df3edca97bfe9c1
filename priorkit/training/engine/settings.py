"""Options of every training step, and what follows from them."""

from __future__ import annotations

import importlib.util
import logging
import math
from typing import ClassVar, Literal

from pydantic import model_validator

from priorkit.core.errors import Problems, ResourceError, UsageError
from priorkit.core.options.settings import RuntimeSettings, Settings, option
from priorkit.core.options.values import Count, Named
from priorkit.core.process import runtime

logger = logging.getLogger(__name__)


class OptimizationSettings(Settings):
    """Length, batch size, learning rate and optimizer."""

    group: ClassVar[str] = "optimisation"

    steps: Count | None = option(None, "Length of training in optimizer steps.", metavar="N", ge=1)
    tokens: Count | None = option(None, "Length of training in tokens, such as 50B.", metavar="N", ge=1)
    epochs: float | None = option(
        None, "Length of training in passes over the data; default 1 without --steps and --tokens.", gt=0
    )
    batch_size: int = option(32, "Samples per optimizer step, over all processes.", ge=1)
    micro_batch_size: int = option(
        0,
        "Samples per forward pass and process; smaller values save memory; 0 for no gradient accumulation.",
        ge=0,
        advanced=True,
    )
    learning_rate: float = option(3e-4, "Peak learning rate.", gt=0)
    warmup_steps: int = option(0, "Steps of linear warm-up from zero to the peak.", ge=0)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = option(
        "cosine", "Learning-rate schedule after the warm-up; wsd is constant, then decays linearly."
    )
    decay_share: float = option(
        0.1,
        "Share of the steps, at the end, over which the schedule wsd decays.",
        gt=0,
        le=1,
        advanced=True,
    )
    final_learning_rate: float = option(
        0.0, "Final learning rate as a share of the peak.", ge=0, le=1, advanced=True
    )
    optimizer: Literal["adamw", "muon"] = option(
        "adamw",
        "Optimizer; muon updates the matrices between embedding and head, and adamw the rest.",
        advanced=True,
    )
    weight_decay: float = option(0.1, "Decoupled weight decay of matrices; biases and norms have none.", ge=0)
    adam_beta1: float = option(0.9, "AdamW's decay of the first moment.", ge=0, lt=1, advanced=True)
    adam_beta2: float = option(0.95, "AdamW's decay of the second moment.", ge=0, lt=1, advanced=True)
    clip: float = option(1.0, "Maximum gradient norm; 0 for no clipping.", ge=0, advanced=True)
    spike_limit: float = option(
        0.0,
        "Stop at a loss spike: a loss over this multiple of the largest of the last 50 steps, or a median of 5 "
        "steps over this multiple of their median; 0 for never.",
        changes_result=False,
        ge=0,
        advanced=True,
    )

    @model_validator(mode="after")
    def _check_length(self) -> OptimizationSettings:
        given = [name for name in ("steps", "tokens", "epochs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"the length is given more than once: {', '.join(given)}")
        return self


class CheckpointSettings(Settings):
    """Checkpoints of an unfinished run."""

    group: ClassVar[str] = "checkpoints"

    checkpoint_every: int = option(
        250, "Steps between two checkpoints of the training state.", ge=1, changes_result=False
    )
    keep: int = option(
        1, "Number of checkpoints to keep during the run.", ge=1, changes_result=False, advanced=True
    )


TRACKERS = ("tensorboard", "wandb", "trackio")
"""Programs that show metrics of a run."""


class MonitorSettings(Settings):
    """Where else metrics are logged."""

    group: ClassVar[str] = "monitoring"

    tensorboard: str | None = option(
        None,
        "Folder for TensorBoard logs of losses and throughput; the same as --log tensorboard=DIR.",
        metavar="DIR",
        changes_result=False,
        advanced=True,
    )
    log: Named = option(
        {},
        "Show losses and throughput elsewhere, where its package is installed: tensorboard=DIR, wandb=PROJECT, "
        "trackio=PROJECT.",
        metavar="NAME=WHERE",
        changes_result=False,
        advanced=True,
    )

    @model_validator(mode="after")
    def _check_trackers(self) -> MonitorSettings:
        unknown = [name for name in self.log if name not in TRACKERS]
        if unknown:
            raise ValueError(f"expected {', '.join(TRACKERS)}, got '{unknown[0]}'")
        if self.tensorboard and "tensorboard" in self.log:
            raise ValueError("tensorboard is given twice: --tensorboard and --log")
        return self


class CompileSettings(Settings):
    """Whether the model is compiled."""

    group: ClassVar[str] = "model"

    compile: bool = option(
        False, "Compile the model with torch.compile (needs a C++ compiler on CPUs).", advanced=True
    )


class MemorySettings(Settings):
    """How the trained model fits in memory."""

    group: ClassVar[str] = "model"

    checkpoint_activations: Literal["none", "selective", "full"] = option(
        "none",
        "Activation checkpointing: recompute everything but matrix products (selective), or everything (full).",
        advanced=True,
    )
    shard: bool = option(
        False,
        "Shard weights, gradients and optimizer state across the processes of torchrun (FSDP2).",
        advanced=True,
    )


class TrainingSettings(RuntimeSettings, OptimizationSettings, CheckpointSettings, MonitorSettings):
    """Base of a training step's settings."""

    def total_steps(self, samples: int, tokens_per_sample: float) -> int:
        """The number of optimizer steps.

        Args:
            samples: samples in the data.
            tokens_per_sample: mean number of tokens in one, for a length given in tokens.
        """
        if self.steps is not None:
            return self.steps
        if self.tokens is not None:
            return max(1, math.ceil(self.tokens / (tokens_per_sample * self.batch_size)))
        return max(1, math.ceil((self.epochs or 1.0) * samples / self.batch_size))

    def warn_of_long_warmup(self, total: int) -> None:
        """Warn where a run of ``total`` steps ends before its learning rate has reached the peak."""
        if total < self.warmup_steps:
            reached = self.learning_rate_at(total - 1, total)
            logger.warning(
                f"the warm-up of {self.warmup_steps} steps is longer than the run of {total}: the learning rate "
                f"reaches {reached:.3g} of {self.learning_rate:g} (--warmup-steps)"
            )

    def learning_rate_at(self, step: int, total: int) -> float:
        """The learning rate of a step (counted from 0), before any per-part multiplier."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "wsd":
            begin = max(self.warmup_steps, total - round(self.decay_share * total))
        else:
            begin = self.warmup_steps
        progress = max(0.0, (step - begin) / max(1, total - begin))
        shape = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1 - progress
        return self.learning_rate * (self.final_learning_rate + (1 - self.final_learning_rate) * shape)


def check_sharding(settings: TrainingSettings) -> None:
    """Check that the parameters can be sharded across processes.

    Raises:
        UsageError: there is one process, or the optimizer does not support shards.
    """
    if not isinstance(settings, MemorySettings) or not settings.shard:
        return
    if runtime.world_size() == 1:
        raise UsageError(
            "there is only one process; nothing to shard", where="--shard", hint="start with torchrun"
        )
    if settings.optimizer == "muon":
        raise UsageError(
            "muon does not support sharded matrices",
            where="--optimizer muon",
            hint="leave out --shard, or use adamw",
        )


def check_fp8(fp8: bool, compiled: bool, device: str, precision: str) -> None:
    """Check before a run that products can be made in fp8.

    Raises:
        UsageError: the options do not go together.
        ResourceError: torchao is not installed.
    """
    if not fp8:
        return
    usage = Problems(UsageError)
    if not compiled:
        usage.add("without compilation fp8 is several times slower", where="--fp8", hint="add --compile")
    if not runtime.may_use_gpu(device):
        usage.add("fp8 needs a GPU", where="--fp8", hint="leave it out")
    if precision == "fp32":
        usage.add("fp8 and fp32 contradict each other", where="--fp8", hint="use --precision bf16")
    usage.raise_if_any()
    if importlib.util.find_spec("torchao") is None:
        raise ResourceError("torchao is not installed", where="--fp8", hint="pip install torchao")
