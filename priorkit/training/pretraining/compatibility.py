"""Checks before pretraining: corpus, model and options against each other, from headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import sibling
from priorkit.core.options.specs import refuse_changed
from priorkit.core.work import Inputs
from priorkit.data.corpus.reader import read_corpus_header
from priorkit.data.corpus.tokenizer_files import contains_vocabulary
from priorkit.data.text.documents import check_text_source
from priorkit.models.folder import read_json
from priorkit.models.language import causal_lm
from priorkit.training.engine.settings import check_fp8, check_sharding
from priorkit.training.pretraining.exports import check_exports, exports_of
from priorkit.training.pretraining.settings import PretrainSettings


@dataclass(frozen=True)
class PretrainPlan:
    """What is known of a run from headers.

    Attributes:
        fields: of the model's configuration.
        parameters: their number; 0 where the configuration does not determine it.
        rows: of the corpus.
        context_length: tokens in a row.
        steps: optimizer steps.
    """

    fields: dict[str, Any]
    parameters: int
    rows: int
    context_length: int
    steps: int

    @property
    def model(self) -> str:
        """The model in words."""
        if self.parameters:
            return f"{self.parameters / 1e6:.1f} M parameters"
        return str(self.fields.get("model_type"))


def check_run(settings: PretrainSettings, inputs: Inputs) -> PretrainPlan:
    """Check that the corpus fits the model, and that the options fit each other.

    Raises:
        InputError: the corpus does not fit the model.
        UsageError: options contradict each other.
    """
    given = [name for name in ("preset", "config", "from_llm") if getattr(settings, name)]
    if len(given) != 1:
        raise UsageError(
            "give one of --preset, --config and --from" + (f", got {len(given)}" if given else ""),
            hint=f"for example --preset {next(iter(causal_lm.presets()))}",
        )
    corpus = inputs.one("corpus")
    header = read_corpus_header(corpus.path)
    rows, context_length = header["rows"], header["context_length"]
    fields = _config_fields(settings, inputs)
    vocabulary = int(fields.get("vocab_size") or header["vocab_size"])
    if vocabulary < header["vocab_size"]:
        raise InputError(
            f"the corpus has a vocabulary of {header['vocab_size']} tokens, the model one of {vocabulary}",
            where=corpus.given,
            hint="mix the corpus with the model's tokenizer",
        )
    max_positions = int(fields.get("max_position_embeddings") or 0)
    if max_positions and max_positions < context_length:
        raise InputError(
            f"the corpus has rows of {context_length} tokens, the model takes at most {max_positions}",
            where=corpus.given,
            hint="mix with a smaller --context-length",
        )
    base = inputs.optional("from_llm")
    if base is not None and not contains_vocabulary(base.path, corpus.path):
        raise InputError(
            "the corpus was tokenized by another tokenizer than the model's",
            where=corpus.given,
            hint=f"mix it with --tokenizer {settings.from_llm}",
        )
    if settings.random_init:
        _check_untrained(settings)
        parameters = causal_lm.parameter_count(fields, vocabulary)
        return PretrainPlan(fields, parameters, rows, context_length, 0)
    steps = settings.total_steps(rows, context_length)
    check_sharding(settings)
    check_fp8(settings.fp8, settings.compile, settings.device, settings.precision)
    check_exports(settings, context_length, steps)
    for export in exports_of(settings, context_length):
        sibling(settings, export.name)
    for source in inputs.named("eval_sources").values():
        check_text_source(validation_text_path(source))
    return PretrainPlan(fields, causal_lm.parameter_count(fields, vocabulary), rows, context_length, steps)


def validation_text_path(source: Input) -> Path:
    """The text of a ``--eval`` source: a corpus holds its held-out text in a folder."""
    held_out = source.path / "held_out"
    return held_out if held_out.is_dir() else source.path


def _check_untrained(settings: PretrainSettings) -> None:
    """Check that nothing asks for training.

    Raises:
        UsageError: options that have no effect; all of them are named.
    """
    problems = Problems(UsageError)
    names = ("from_llm", "steps", "tokens", "epochs", "export_at", "export_decay", "eval_sources", "shard")
    refuse_changed(settings, names, problems, "no effect with --random-init", hint="leave it out")
    problems.raise_if_any()


def _config_fields(settings: PretrainSettings, inputs: Inputs) -> dict[str, Any]:
    if settings.preset:
        return causal_lm.preset_fields(settings.preset)
    if settings.from_llm:
        return causal_lm.check_llm(inputs.one("from_llm").path)
    return read_json(inputs.one("config").path)
