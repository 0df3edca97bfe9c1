"""Pretrain a language model on a corpus, from scratch or from another model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.training.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from priorkit.training.pretraining.compatibility import PretrainPlan


def plan(settings: PretrainSettings, inputs: Inputs) -> Plan[PretrainPlan]:
    """Check corpus and model against each other from headers, and estimate the run's size."""
    from priorkit.training.pretraining.compatibility import check_run
    from priorkit.training.pretraining.exports import describe_exports, exports_of

    run = check_run(settings, inputs)
    count, length = run.parameters, run.context_length
    if settings.random_init:
        facts = [("model", run.model), ("training", "none: random weights")]
        return Plan(facts, disk_bytes=count * 4, memory_bytes=count * 4, payload=run)
    exports = exports_of(settings, length)
    annealed = sum(export.decay_steps > 0 for export in exports)
    return Plan(
        [
            ("model", run.model),
            ("corpus", f"{run.rows:,} rows of {length} tokens"),
            ("training", f"{run.steps:,} steps of {settings.batch_size * length:,} tokens"),
            *describe_exports(exports),
        ],
        # Weights and two moments in fp32 per checkpoint, one more while it is written, and one where an annealed
        # export branches off; then the artifacts.
        disk_bytes=count * 4 * (3 * (settings.keep + 1 + annealed) + 1 + len(exports)),
        memory_bytes=0 if runtime.may_use_gpu(settings.device) else count * 4 * 4,
        payload=run,
    )


def execute(settings: PretrainSettings, work: Work[PretrainPlan]) -> None:
    """Build or load the model, train it on the corpus, save it with the corpus's tokenizer."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    if settings.random_init:
        _write_untrained(settings, work, started)
        return
    from priorkit.data.corpus.reader import Corpus, read_corpus_header
    from priorkit.training.engine.loop import train
    from priorkit.training.engine.resource_estimates import pretraining_throughput
    from priorkit.training.engine.validation_loss import validation_metrics
    from priorkit.training.objectives.language_modeling import CausalLMObjective
    from priorkit.training.pretraining.annealing import anneal_exports
    from priorkit.training.pretraining.exports import exports_of
    from priorkit.training.pretraining.language_model import prepare_model
    from priorkit.training.pretraining.validation import read_validation_texts

    folder = work.inputs.one("corpus").path
    corpus, header = Corpus(folder), read_corpus_header(folder)
    length, steps = corpus.context_length, settings.total_steps(len(corpus), corpus.context_length)
    llm = prepare_model(settings, work, started)
    padding = header["pad_token_id"] if header["padded_share"] else None
    end = llm.tokenizer.eos_token_id
    objective = CausalLMObjective(llm.module, corpus, padding, end, settings.document_mask)
    exports = exports_of(settings, length)
    validation = read_validation_texts(settings, work.inputs, llm.tokenizer, length)

    def after_step(step: int, _: int) -> dict[str, float]:
        for export in exports:
            if step == export.step and not export.decay_steps:
                llm.export(settings, work, export.name, export.metrics(llm.parameters))
        due = validation and (step % settings.eval_every == 0 or step == steps)
        return validation_metrics(validation, llm.module, started) if due else {}

    branches = [(export.begin, export.state(work.state)) for export in exports if export.decay_steps]
    summary = train(
        objective, settings, started, work.path, work.state, steps, settings.step, after_step, branches
    )
    llm.save(work.path)
    annealed = [export for export in exports if export.decay_steps]
    anneal_exports(settings, work, started, llm, objective, annealed, steps)
    work.metrics.update(
        loss=summary.loss, steps=summary.steps, tokens=summary.weight, parameters=llm.parameters
    )
    work.cost.update(summary.cost)
    work.cost.update(pretraining_throughput(llm.model.config, llm.parameters, length, summary, started))


def _write_untrained(settings: PretrainSettings, work: Work[PretrainPlan], started: runtime.Runtime) -> None:
    """Write the model as a training would begin with it."""
    from priorkit.training.pretraining.language_model import prepare_model

    llm = prepare_model(settings, work, started)
    llm.save(work.path)
    work.metrics.update(steps=0, tokens=0, parameters=llm.parameters)


STEP = Step(PretrainSettings, plan, execute)
run = STEP.run
