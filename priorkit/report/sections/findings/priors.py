"""What Rank_e says of the entities by prior, what remediation changed, and whether accuracy follows priors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members, made_from
from priorkit.report import numbers
from priorkit.report.blocks import Finding, Plot
from priorkit.report.plots.accuracy import intervals_by_group
from priorkit.report.sections.findings.wording import direction, known, listed, signed
from priorkit.report.sections.priors.correlation import read_correlation
from priorkit.report.sections.priors.ranks import ImageSet, image_sets, ratio_of_means
from priorkit.scoring.statistics.intervals import bootstrap_mean

_PICTURE_WIDTH = 5.0


def rank_finding(members: Members) -> Finding | None:
    """Rank_e by prior group, and its change from the first scores to the last."""
    sets = image_sets(members)
    if not sets or not sets[0].entities:
        return None
    images = sets[0]
    first, last = images.members[0], images.members[-1]
    groups = {
        name: rows
        for name, rows in images.groups.items()
        if len(rows) and (name != "all" or not images.priors)
    }
    means = {
        member.label: {
            name: bootstrap_mean(
                images.ranks[member.label][rows], seed=members.seed, resamples=members.resamples
            )
            for name, rows in groups.items()
        }
        for member in images.members
    }
    candidates = int(first.metrics.get("candidates", 0))
    among = f", among {candidates:,} names" if candidates else ""
    ranks = [f"{numbers.with_interval(mean)} {_entities(name)}" for name, mean in means[first.label].items()]
    sentences = [f"Rank_e in {first.label} is {listed(ranks, most=len(ranks))}{among}."]
    if last is not first:
        ratios = {
            name: ratio_of_means(
                images.ranks[last.label][rows],
                images.ranks[first.label][rows],
                members.seed,
                members.resamples,
            )
            for name, rows in groups.items()
        }
        sentences.append(_change(first, last, ratios, members))
    picture = None
    if images.priors or last is not first:
        picture = Plot("finding-rank-e", "Rank_e (low: strong prior)", _figure(images, means))
    return Finding(" ".join(sentences), "rank-e", picture)


def _entities(group: str) -> str:
    if group == "all":
        return "over all entities"
    return f"with {group}" if group.startswith("no ") else f"with a {group}"


def _change(first: Member, last: Member, ratios: Mapping[str, Interval], members: Members) -> str:
    """By what the ranks are multiplied, group by group; undecided where the interval includes 1."""
    remediated = _remediated(last, members) and not _remediated(first, members)
    subject = (
        f"Remediation ({first.label} to {last.label})"
        if remediated
        else f"From {first.label} to {last.label} it"
    )
    changed = [
        f"{numbers.with_interval(ratio)} {_entities(name)}"
        for name, ratio in ratios.items()
        if direction(ratio, 1.0)
    ]
    same = [
        f"{numbers.with_interval(ratio)} {_entities(name)}"
        for name, ratio in ratios.items()
        if not direction(ratio, 1.0)
    ]
    verb = "multiplies it by" if remediated else "is multiplied by"
    if not changed:
        return f"Whether it differs in {last.label} cannot be decided: by a factor of {listed(same, most=len(same))}."
    rest = f"; undecided: {listed(same, most=len(same))}" if same else ""
    return f"{subject} {verb} {listed(changed, most=len(changed))}{rest}."


def _remediated(member: Member, members: Members) -> bool:
    """Whether remediation is among what ranks were made from."""
    return any(owner.step == "distill-encoder" for owner in made_from([member], members.all))


def _figure(images: ImageSet, means: Mapping[str, Mapping[str, Interval]]) -> Any:
    groups = list(next(iter(means.values())))
    return intervals_by_group(
        groups,
        {label: [by_group[name] for name in groups] for label, by_group in means.items()},
        "Rank_e",
        log=True,
        colors=[member.color for member in images.members],
        width=_PICTURE_WIDTH,
    )


def correlation_finding(members: Members) -> Finding | None:
    """Whether accuracy follows priors, from the first result of `correlate` and its first evaluation."""
    for member in members.correlations():
        for label, correlation in read_correlation(member)["evaluations"].items():
            spearman = Interval.from_dict(correlation["measures"]["mean_rank"]["spearman"])
            if known(spearman):
                return Finding(_correlation(label, spearman, correlation), "correlation")
    return None


def _correlation(label: str, spearman: Interval, correlation: Mapping[str, Any]) -> str:
    over = f"{signed(spearman)} over {correlation['entities']:,} entities (Spearman)"
    match direction(spearman):
        case -1:
            text = f"Accuracy follows priors: the worse an entity's Rank_e, the lower the accuracy of {label}, {over}"
        case 1:
            text = f"Accuracy goes against priors: the worse an entity's Rank_e, the higher the accuracy of {label}, {over}"
        case _:
            text = f"Whether the accuracy of {label} follows priors cannot be decided: {over}"
    partial = list(correlation.get("partial", {}).items())[-1:]
    for name, entry in partial:
        given = Interval.from_dict(entry)
        if known(given):
            decided = "" if direction(given) else ", whose interval holds 0"
            text += f"; given {name} it is {signed(given)}{decided}"
    return f"{text}."


def trade_off_finding(members: Members) -> Finding | None:
    """What a remediated encoder gained on held-out images and lost elsewhere, at the share that was saved."""
    for member in members.all:
        points = {float(point["share"]): point for point in member.metrics.get("trade_off") or ()}
        saved = float(member.metrics.get("saved_share", 1.0))
        if member.step != "distill-encoder" or 0.0 not in points or saved not in points:
            continue
        changes = [
            f"{name} goes from {numbers.with_interval(before)} to {numbers.with_interval(after)}"
            for key, name in (
                ("mean_rank", "Rank_e on held-out images"),
                ("off_domain_mrr", "off-domain MRR"),
            )
            if key in points[0.0] and key in points[saved]
            for before, after in [
                (Interval.from_dict(points[0.0][key]), Interval.from_dict(points[saved][key]))
            ]
        ]
        if changes:
            text = f"From the original weights of {member.label} to those saved (share {saved:g}), {listed(changes)}."
            return Finding(text, "trade-off")
    return None
