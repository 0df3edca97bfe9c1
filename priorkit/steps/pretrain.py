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

    run = check_run(settings, inputs)
    count, length = run.parameters, run.context_length
    return Plan(
        [
            ("model", run.model),
            ("corpus", f"{run.rows:,} rows of {length} tokens"),
            ("training", f"{run.steps:,} steps of {settings.batch_size * length:,} tokens"),
        ],
        # Weights and two moments in fp32 per checkpoint, one more while it is written; then the artifacts.
        disk_bytes=count * 4 * (3 * (settings.keep + 1) + 1 + len(settings.export_at)),
        memory_bytes=0 if runtime.may_use_gpu(settings.device) else count * 4 * 4,
        payload=run,
    )


def execute(settings: PretrainSettings, work: Work[PretrainPlan]) -> None:
    """Build or load the model, train it on the corpus, save it with the corpus's tokenizer."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.data.corpus.reader import Corpus, read_corpus_header
    from priorkit.training.engine.loop import train
    from priorkit.training.engine.resource_estimates import pretraining_throughput
    from priorkit.training.engine.validation_loss import validation_metrics
    from priorkit.training.objectives.language_modeling import CausalLMObjective
    from priorkit.training.pretraining.language_model import prepare_model
    from priorkit.training.pretraining.validation import read_validation_texts

    folder = work.inputs.one("corpus").path
    corpus, header = Corpus(folder), read_corpus_header(folder)
    length, steps = corpus.context_length, settings.total_steps(len(corpus), corpus.context_length)
    llm = prepare_model(settings, work, started)
    padding = header["pad_token_id"] if header["padded_share"] else None
    end = llm.tokenizer.eos_token_id
    objective = CausalLMObjective(llm.module, corpus, padding, end, settings.document_mask)
    validation = read_validation_texts(settings, work.inputs, llm.tokenizer, length)

    def after_step(step: int, _: int) -> dict[str, float]:
        for tokens in settings.export_at:
            # The first step by which so many tokens were trained on.
            if step == -(-tokens // (settings.batch_size * length)):
                llm.export(settings, work, tokens)
        due = validation and (step % settings.eval_every == 0 or step == steps)
        return validation_metrics(validation, llm.module, started) if due else {}

    summary = train(objective, settings, started, work.path, work.state, steps, settings.step, after_step)
    llm.save(work.path)
    work.metrics.update(
        loss=summary.loss, steps=summary.steps, tokens=summary.weight, parameters=llm.parameters
    )
    work.cost.update(summary.cost)
    work.cost.update(pretraining_throughput(llm.model.config, llm.parameters, length, summary, started))


STEP = Step(PretrainSettings, plan, execute)
run = STEP.run
