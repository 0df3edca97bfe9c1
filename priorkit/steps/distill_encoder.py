"""Remediate an encoder: strengthen its weak priors by alignment and distillation, keep the rest (VisPRE stage I)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.training.remediation.settings import DistillEncoderSettings

if TYPE_CHECKING:
    from priorkit.training.remediation.compatibility import EncoderHeader
    from priorkit.training.remediation.trade_off import TradeOffPoint


def plan(settings: DistillEncoderSettings, inputs: Inputs) -> Plan[EncoderHeader]:
    """Check encoder, teachers, layers, loss terms and templates from headers."""
    from priorkit.training.remediation.compatibility import check_run

    header = check_run(settings, inputs)
    return Plan(
        [
            ("encoder", f"{header.model_type}, image tower of {header.layers} layers"),
            ("teachers", str(len(settings.teacher))),
            ("trains", str(settings.trainable_parameters)),
        ],
        payload=header,
    )


def execute(settings: DistillEncoderSettings, work: Work[EncoderHeader]) -> None:
    """Train the encoder against its teachers, its original and the names; interpolate, measure, save."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.training.engine.compilation import fast_encoders
    from priorkit.training.engine.loop import train
    from priorkit.training.remediation.data import read_data
    from priorkit.training.remediation.interpolation import InterpolationPath
    from priorkit.training.remediation.setup import build_objective, load_encoders
    from priorkit.training.remediation.trade_off import (
        TradeOffMeasurement,
        measure_path,
        record_trade_off,
    )
    from priorkit.training.remediation.trainable_parameters import merge_lora, set_trainable

    data = read_data(settings, work, started)
    encoders = load_encoders(settings, work, started)
    student, original = encoders.student, encoders.original
    objective = build_objective(settings, work, data, encoders, started)

    # Stage I.
    set_trainable(student.model, settings.trainable_parameters)
    steps = settings.total_steps(len(data.entities.images), 1)
    # The loss reads earlier layers' tokens, unless it is set to read the last one's.
    pooled_only = work.plan.payload.reads_earlier_layers(settings.read_layers)
    with fast_encoders(student.model, original.model, compiled=settings.compile, pooled_only=pooled_only):
        summary = train(objective, settings, started, work.path, work.state, steps, settings.step)
    merge_lora(student.model, settings.trainable_parameters)

    # From the original (0) to the tuned encoder (1): gain on held-out images, cost on general pairs.
    path = InterpolationPath(student.model, original.model)
    saved = settings.saved_share
    if runtime.rank() == 0:
        if data.measurable:
            measurement = TradeOffMeasurement(
                data.names, settings.template, data.held_out, data.off_domain, settings.seed
            )
            shares = sorted({0.0, saved, *settings.interpolate})
            points = measure_path(path, measurement, student, shares)
            record_trade_off(points, saved, work)
            _plot(work, points, saved)
        path.move_to(saved)
        student.save(work.path)
    work.metrics.update(loss=summary.loss, steps=summary.steps, saved_share=saved, **data.metrics())
    work.cost.update(summary.cost)


def _plot(work: Work[EncoderHeader], points: list[TradeOffPoint], saved: float) -> None:
    """Write ``trade_off.svg`` and ``trade_off.png``."""
    from priorkit.report import figures
    from priorkit.report.plots.trade_off import trade_off

    ranks = [point.overall["mean_rank"] for point in points if point.ranks is not None]
    retrieval = [point.retrieval for point in points if point.retrieval is not None]
    figure = trade_off(
        [point.share for point in points], {"Rank_e": ranks} if ranks else {}, retrieval or None, saved
    )
    (work.path / "trade_off.svg").write_bytes(figures.to_svg(figure))
    (work.path / "trade_off.png").write_bytes(figures.to_png(figure))


STEP = Step(DistillEncoderSettings, plan, execute)
run = STEP.run
