"""Pretrain a language model on a corpus, from scratch or from another model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from priorkit.core import runtime
from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import export, sibling
from priorkit.core.settings import Settings, StepSettings, argument, option, redefault
from priorkit.core.step import Step
from priorkit.core.values import Counts, Named
from priorkit.core.work import Plan, Work
from priorkit.data.corpus.reader import read_corpus_header
from priorkit.data.corpus.tokenization import knows_tokens
from priorkit.data.io.rejects import Rejects
from priorkit.data.text.documents import check_text_source, read_documents
from priorkit.models.language import causal_lm
from priorkit.training.engine.settings import (
    CompileSettings,
    MemorySettings,
    TrainingSettings,
    check_sharding,
)

logger = logging.getLogger(__name__)


class ScaleSettings(Settings):
    """How the model is run."""

    group: ClassVar[str] = "model"

    document_mask: bool = option(
        False,
        "Keep attention within documents, and begin positions anew in each; without, rows are seen whole.",
        advanced=True,
    )


class ProgressSettings(Settings):
    """What to make and measure along the way."""

    group: ClassVar[str] = "along the way"

    export_at: Counts = option(
        (), "Token counts at which to write the model as an artifact of its own, OUT-at-N.", metavar="N"
    )
    eval_sources: Named = option(
        {},
        "Held-out text whose loss and bits per byte are logged.",
        accepts=("text", "corpus", "world"),
        metavar="NAME=SOURCE",
        flag="--eval",
    )
    eval_every: int = option(250, "Steps between two evaluations on held-out text.", ge=1, advanced=True)


class PretrainSettings(
    ScaleSettings, CompileSettings, MemorySettings, ProgressSettings, TrainingSettings, StepSettings
):
    """Options of ``priorkit pretrain``."""

    step: ClassVar[str] = "pretrain"
    kind: ClassVar[str] = "llm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit pretrain corpus --preset pocket --epochs 2 --learning-rate 3e-3 --out llm",
        "torchrun --nproc-per-node 2 -m priorkit pretrain corpus --from llm --tokens 1M --out llm-2",
    )

    corpus: str = argument("Corpus made by mix.", accepts=("corpus",))
    preset: str | None = option(
        None, f"Shape of a new model: {', '.join(causal_lm.presets())}.", metavar="NAME"
    )
    config: str | None = option(
        None, "Shape of a new model: a config.json of transformers.", accepts=("llm",), metavar="FILE"
    )
    from_llm: str | None = option(
        None, "Model to go on from, in place of a new one.", accepts=("llm",), hub="model", flag="--from"
    )
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    compile: bool = redefault(CompileSettings, "compile", False, advanced=False)
    spike_limit: float = redefault(TrainingSettings, "spike_limit", 3.0)


def plan(settings: PretrainSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check corpus and model against each other from headers, and size the run."""
    given = [name for name in ("preset", "config", "from_llm") if getattr(settings, name)]
    if len(given) != 1:
        raise UsageError(
            "give one of --preset, --config and --from" + (f", got {len(given)}" if given else ""),
            hint=f"for example --preset {next(iter(causal_lm.presets()))}",
        )
    header = read_corpus_header(inputs["corpus"].path)
    fields = _fields(settings, inputs)
    vocabulary = int(fields.get("vocab_size") or header["vocab_size"])
    if vocabulary < header["vocab_size"]:
        raise InputError(
            f"the corpus has a vocabulary of {header['vocab_size']} tokens, the model one of {vocabulary}",
            where=inputs["corpus"].given,
            hint="mix the corpus with the model's tokenizer",
        )
    longest = int(fields.get("max_position_embeddings") or 0)
    if longest and longest < header["context_length"]:
        raise InputError(
            f"rows of {header['context_length']} tokens, the model takes {longest}",
            where=inputs["corpus"].given,
            hint="mix with a smaller --context-length",
        )
    if settings.from_llm and not knows_tokens(inputs["from_llm"].path, inputs["corpus"].path):
        raise InputError(
            "the corpus was tokenised by another tokenizer than the model's",
            where=inputs["corpus"].given,
            hint=f"mix it with --tokenizer {settings.from_llm}",
        )
    steps = settings.total_steps(header["rows"], header["context_length"])
    _check_scale(settings, header["context_length"], steps)
    for name in settings.eval_sources:
        check_text_source(_held_out_text(inputs[f"eval_sources.{name}"]))
    count = causal_lm.parameter_count(fields, vocabulary)
    return Plan(
        [
            ("model", f"{count / 1e6:.1f} M parameters" if count else str(fields.get("model_type"))),
            ("corpus", f"{header['rows']:,} rows of {header['context_length']} tokens"),
            ("training", f"{steps:,} steps of {settings.batch_size * header['context_length']:,} tokens"),
        ],
        # Weights and two moments in fp32 per state, of which one more is being written; then the artifacts.
        disk_bytes=count * 4 * (3 * (settings.keep + 1) + 1 + len(settings.export_at)),
        memory_bytes=0 if runtime.may_use_gpu(settings.device) else count * 4 * 4,
        payload=fields,
    )


def _fields(settings: PretrainSettings, inputs: Mapping[str, Input]) -> dict[str, Any]:
    if settings.preset:
        return causal_lm.preset_fields(settings.preset)
    if settings.from_llm:
        return causal_lm.check_llm(inputs["from_llm"].path)
    return causal_lm.read_model_config(inputs["config"].path)


def _check_scale(settings: PretrainSettings, context_length: int, steps: int) -> None:
    """Check the options that concern each other."""
    check_sharding(settings)
    step_tokens = settings.batch_size * context_length
    for tokens in settings.export_at:
        if tokens < step_tokens:
            raise UsageError(f"{tokens} tokens are less than one step's {step_tokens}", where="--export-at")
        if tokens > steps * step_tokens:
            raise UsageError(
                f"{tokens} tokens are more than the whole run's {steps * step_tokens}", where="--export-at"
            )
        sibling(settings, _milestone(tokens))


def _milestone(tokens: int) -> str:
    """What is added to the name of an artifact written at a number of tokens: ``at-5B``."""
    for scale, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if tokens % scale == 0:
            return f"at-{tokens // scale}{letter}"
    return f"at-{tokens}"


def execute(settings: PretrainSettings, work: Work) -> None:
    """Build or load the model, train it on the corpus, save it with the corpus's tokenizer."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.core import distributed
    from priorkit.data.corpus.reader import Corpus
    from priorkit.models.blocks import transformer_blocks
    from priorkit.models.kernels.attention import choose_attention
    from priorkit.models.language.tokenizer import load_tokenizer
    from priorkit.training.engine.activation_checkpointing import checkpoint_activations
    from priorkit.training.engine.loop import train
    from priorkit.training.engine.resource_estimates import pretraining_throughput
    from priorkit.training.engine.validation_loss import ValidationText, validation_metrics
    from priorkit.training.objectives.language_modeling import CausalLMObjective, CausalLMWithLoss

    folder = work.inputs["corpus"].path
    corpus, tokenizer = Corpus(folder), load_tokenizer(folder)
    length = corpus.context_length
    if settings.from_llm:
        model = causal_lm.load_llm(work.inputs["from_llm"].path)
    else:
        model = causal_lm.build_llm(causal_lm.build_config(work.plan.payload, tokenizer), settings.seed)
    model.to(started.device)
    choose_attention(model, started.device.type)
    checkpoint_activations(model, settings.checkpoint_activations)
    parameters = model.num_parameters()
    module = CausalLMWithLoss(model)
    if settings.shard:
        distributed.shard(module, transformer_blocks(model.get_decoder())[1], started)
    if settings.compile:
        model.get_decoder().compile()
    header = read_corpus_header(folder)
    padding = header["pad_token_id"] if header["padded_share"] else None
    objective = CausalLMObjective(module, corpus, padding, settings.document_mask)
    micro_batch = settings.micro_batch_size or settings.batch_size
    heldout = [
        (name, ValidationText(_documents(source), tokenizer, length, micro_batch, settings.document_mask))
        for name in settings.eval_sources
        for source in [work.inputs[f"eval_sources.{name}"]]
    ]
    steps = settings.total_steps(len(corpus), length)

    def after_step(step: int, _: int) -> dict[str, float]:
        for tokens in settings.export_at:
            # The first step by which so many tokens were read.
            if step == -(-tokens // (settings.batch_size * length)):
                _export(settings, work, model, tokenizer, tokens)
        due = heldout and (step % settings.eval_every == 0 or step == steps)
        return validation_metrics(heldout, module, started) if due else {}

    summary = train(objective, settings, started, work.path, work.state, steps, settings.step, after_step)
    save(model, tokenizer, work.path)
    work.metrics.update(loss=summary.loss, steps=summary.steps, tokens=summary.weight, parameters=parameters)
    work.cost.update(summary.cost)
    work.cost.update(pretraining_throughput(model.config, parameters, length, summary, started))


def _held_out_text(source: Input) -> Path:
    """Where the text of a held-out source is: a corpus keeps it in a folder of its own."""
    inside = source.path / "held_out"
    return inside if inside.is_dir() else source.path


def _documents(source: Input) -> Iterator[str]:
    return read_documents(_held_out_text(source), Rejects(0.0))


def _export(settings: PretrainSettings, work: Work, model: Any, tokenizer: Any, tokens: int) -> None:
    """Write the model as it is now as an artifact of its own."""
    weights = whole_state(model)
    if runtime.rank() == 0:
        path = export(
            settings,
            work,
            _milestone(tokens),
            {"tokens": tokens},
            lambda folder: _save(model, tokenizer, folder, weights),
        )
        logger.info(f"wrote {path}")


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model with its tokenizer, so that the next step cannot guess. Every process calls this."""
    weights = whole_state(model)
    if runtime.rank() == 0:
        _save(model, tokenizer, folder, weights)


def whole_state(model: Any) -> dict[str, Any] | None:
    """The weights of all processes where these share them; None where each holds all."""
    from priorkit.core.distributed import is_sharded
    from priorkit.training.engine.checkpoint import gather_to_cpu

    parameters = dict(model.named_parameters())  # tied ones once, as they are saved
    if not any(is_sharded(value) for value in parameters.values()):
        return None
    kept = model.state_dict()
    buffers = {name: value for name, value in model.named_buffers() if name in kept}
    return gather_to_cpu({**parameters, **buffers})


def _save(model: Any, tokenizer: Any, folder: Path, weights: dict[str, Any] | None) -> None:
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


STEP = Step(PretrainSettings, plan, execute)
run = STEP.run
