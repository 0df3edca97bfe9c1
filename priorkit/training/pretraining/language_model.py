"""The language model of a pretraining run: built or loaded, saved and exported."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.lifecycle import export
from priorkit.core.process import distributed, runtime
from priorkit.core.work import Work
from priorkit.models.blocks import transformer_blocks
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language import causal_lm
from priorkit.models.language.tokenizer import load_tokenizer
from priorkit.training.engine.activation_checkpointing import checkpoint_activations
from priorkit.training.engine.checkpoint import gather_to_cpu
from priorkit.training.engine.compilation import compile_decoder
from priorkit.training.engine.fp8 import use_fp8
from priorkit.training.objectives.language_modeling import CausalLMWithLoss
from priorkit.training.pretraining.compatibility import PretrainPlan
from priorkit.training.pretraining.settings import PretrainSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM with the corpus's tokenizer.

    Attributes:
        model: of transformers.
        tokenizer: the corpus's; it is saved with the model.
        module: the model with its loss; sharded where the settings say so.
        parameters: their number, before sharding.
    """

    model: Any
    tokenizer: Any
    module: CausalLMWithLoss
    parameters: int

    def save(self, folder: Path) -> None:
        """Save model and tokenizer into a folder. Every process calls this; the first one writes."""
        weights = self._gathered_weights()
        if runtime.rank() == 0:
            self._write(folder, weights)

    def export(
        self, settings: PretrainSettings, work: Work[PretrainPlan], name: str, metrics: dict[str, Any]
    ) -> None:
        """Write the model as it is now as a separate artifact. Every process calls this.

        Args:
            settings: of the run.
            work: of the run.
            name: what is added to the name of ``--out``.
            metrics: figures for its manifest.
        """
        weights = self._gathered_weights()
        if runtime.rank() == 0:

            def write(folder: Path) -> None:
                self._write(folder, weights)

            path = export(settings, work, name, metrics, write)
            logger.info(f"wrote {path}")

    def _gathered_weights(self) -> dict[str, Any] | None:
        """The weights of all processes where these are sharded; None where each process has all of them."""
        parameters = dict(self.model.named_parameters())  # tied ones once, as they are saved
        if not any(distributed.is_sharded(value) for value in parameters.values()):
            return None
        saved = self.model.state_dict()
        buffers = {name: value for name, value in self.model.named_buffers() if name in saved}
        return gather_to_cpu({**parameters, **buffers})

    def _write(self, folder: Path, weights: dict[str, Any] | None) -> None:
        self.model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)


def prepare_model(
    settings: PretrainSettings, work: Work[PretrainPlan], started: runtime.Runtime
) -> LanguageModel:
    """Build or load the model on the device, with attention, checkpointing, sharding and compilation set."""
    tokenizer = load_tokenizer(work.inputs.one("corpus").path)
    base = work.inputs.optional("from_llm")
    if base is not None:
        model = causal_lm.load_llm(base.path)
    else:
        config = causal_lm.build_config(work.plan.payload.fields, tokenizer)
        model = causal_lm.build_llm(config, settings.seed)
    model.to(started.device)
    choose_attention(model, started.device.type, started.precision)
    checkpoint_activations(model, settings.checkpoint_activations)
    parameters = model.num_parameters()
    module = CausalLMWithLoss(model)
    if settings.fp8:
        logger.info(f"{use_fp8(model.get_decoder(), started)} linear layers multiply in fp8")
    if settings.compile:
        compile_decoder(model.get_decoder(), by_block=settings.shard)
    if settings.shard:
        distributed.shard(module, transformer_blocks(model.get_decoder())[1], started)
    return LanguageModel(model, tokenizer, module, parameters)
