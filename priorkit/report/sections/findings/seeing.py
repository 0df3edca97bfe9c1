"""What a model sees: its accuracy above guessing, and above its own without the images, by ability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import ScoredItem
from priorkit.report import numbers
from priorkit.report.blocks import Finding, Plot
from priorkit.report.plots.accuracy import intervals_by_group
from priorkit.report.sections.evaluations.accuracy import question_evaluations
from priorkit.report.sections.findings.wording import Effect, by_direction, direction, known, signed
from priorkit.report.shared_items import (
    SharedItems,
    by_value,
    group_by_shared_items,
    mean_above_chance,
    mean_chance,
    mean_difference,
    mean_of_benchmarks,
    mean_score,
)

_PICTURE_WIDTH = 5.0


@dataclass(frozen=True)
class _Subject:
    """The model that the sentences are about.

    Attributes:
        pool: the evaluations that it is compared with, and the items that all of them answered.
        model: its evaluation.
        blind: the same model's without the images.
    """

    pool: SharedItems
    model: Member
    blind: Member | None


def images_withheld(member: Member) -> bool:
    """Whether an evaluation was run without the images, or with those of other items."""
    settings = member.artifact.manifest.settings
    return bool(settings.get("blind") or settings.get("shuffle_images"))


def seeing_finding(members: Members) -> Finding | None:
    """About the last model that was evaluated with and without the images, else the last one that saw them."""
    subject = _subject(group_by_shared_items(question_evaluations(members)))
    if subject is None:
        return None
    samples = {
        member.label: subject.pool.all_samples(member)
        for member in (subject.model, subject.blind)
        if member is not None
    }
    column, parts = _parts(subject, samples)
    noun = "abilities" if column else "benchmarks"
    sentences = [_level(subject, members)]
    above = [
        Effect(name, interval)
        for name, of in parts.items()
        if (interval := mean_above_chance(of[subject.model.label], members)) is not None and known(interval)
    ]
    if len(above) > 1:
        sentences.append(f"It lies {by_direction(above, noun, 'above guessing', 'below guessing')}.")
    if subject.blind is not None:
        sentences.append(_of_images(subject.model, subject.blind, samples, parts, noun, members))
    return Finding(" ".join(sentences), "accuracy", _picture(subject, parts, noun, members))


def _subject(pools: Sequence[SharedItems]) -> _Subject | None:
    sighted = [(pool, member) for pool in pools for member in pool.members if not images_withheld(member)]
    both = [_Subject(pool, member, blind) for pool, member in sighted if (blind := _blind(member, pool))]
    if both:
        return both[-1]
    every = sighted or [(pool, member) for pool in pools for member in pool.members]
    return _Subject(*every[-1], None) if every else None


def _blind(member: Member, pool: SharedItems) -> Member | None:
    """The evaluation of the same model without the images."""
    model = _model_digest(member)
    return next(
        (
            other
            for other in pool.members
            if model and other.artifact.manifest.settings.get("blind") and _model_digest(other) == model
        ),
        None,
    )


def _model_digest(member: Member) -> str:
    records = member.artifact.manifest.inputs
    return next((record.digest for record in records if record.setting == "model"), "")


def _level(subject: _Subject, members: Members) -> str:
    pool, member = subject.pool, subject.model
    items = sum(map(len, pool.items.values()))
    over = f"{items:,} questions" + (
        f", mean of {len(pool.items)} benchmarks" if len(pool.items) > 1 else f" of {next(iter(pool.items))}"
    )
    chance = mean_chance(pool)
    value = mean_of_benchmarks(pool, member, members)
    withheld = ", without the images it is asked about," if images_withheld(member) else ""
    compared = "" if chance is None else f"; guessing gets {numbers.fixed(chance)}"
    return f"{member.label}{withheld} answers {numbers.with_interval(value)} right ({over}{compared})."


def _parts(
    subject: _Subject, samples: Mapping[str, Sequence[ScoredItem]]
) -> tuple[str, dict[str, dict[str, Sequence[ScoredItem]]]]:
    """The column that splits the items, and each part's answers by evaluation; by benchmark without abilities."""
    by_ability = {label: by_value(of, "ability") for label, of in samples.items()}
    abilities = by_ability[subject.model.label]
    if len(abilities) > 1:
        return "ability", {
            name: {label: split[name] for label, split in by_ability.items()} for name in sorted(abilities)
        }
    members = [member for member in (subject.model, subject.blind) if member is not None]
    return "", {
        name: {member.label: subject.pool.samples(member, name) for member in members}
        for name in subject.pool.items
    }


def _of_images(
    model: Member,
    blind: Member,
    samples: Mapping[str, Sequence[ScoredItem]],
    parts: Mapping[str, Mapping[str, Sequence[ScoredItem]]],
    noun: str,
    members: Members,
) -> str:
    overall = mean_difference(samples[blind.label], samples[model.label], members)
    text = f"{signed(overall)} over the same model without them, on the same questions"
    gains = [
        Effect(name, mean_difference(of[blind.label], of[model.label], members)) for name, of in parts.items()
    ]
    rest = f": {by_direction(gains, noun, 'a gain', 'a loss')}" if len(gains) > 1 else ""
    match direction(overall):
        case 1:
            return f"The images add {text}{rest}."
        case -1:
            return f"The images lower it by {text}{rest}."
        case _:
            return f"Whether the images help it cannot be decided: {text}{rest}."


def _picture(
    subject: _Subject,
    parts: Mapping[str, Mapping[str, Sequence[ScoredItem]]],
    noun: str,
    members: Members,
) -> Plot | None:
    if len(parts) < 2:
        return None
    shown = [member for member in (subject.model, subject.blind) if member is not None]
    values: dict[str, list[Interval | None]] = {
        member.label: [mean_score(of[member.label], members) for of in parts.values()] for member in shown
    }
    chance = [_chance(of[subject.model.label]) for of in parts.values()]
    title = "Accuracy by " + ("ability" if noun == "abilities" else "benchmark")
    if subject.blind is not None:
        title += ", with and without the images"
    figure = intervals_by_group(
        list(parts),
        values,
        "accuracy",
        chance,
        colors=[member.color for member in shown],
        width=_PICTURE_WIDTH,
    )
    return Plot("finding-accuracy", title, figure)


def _chance(samples: Sequence[ScoredItem]) -> float | None:
    chances = [chance for sample in samples if (chance := sample.chance) is not None]
    return sum(chances) / len(chances) if chances and len(chances) == len(samples) else None
