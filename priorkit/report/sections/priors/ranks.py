"""Rank_e: how well encoders know the entities, by prior group, and what remediation changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members, prior_name, seed_of
from priorkit.data.results.evaluations import RETRIEVAL
from priorkit.report.blocks import Block, Cell, CellImages, Plot, Section, SignedInterval, Table, numbered
from priorkit.report.metric_tables import metric_table
from priorkit.report.pictures import entity_pictures
from priorkit.report.plots.ranks import rank_distributions
from priorkit.scoring.statistics.intervals import (
    bootstrap_difference,
    bootstrap_indices,
    bootstrap_mean,
    percentile_interval,
    student_mean,
)

Floats = NDArray[np.float64]

PRIOR_ORDER = ("strong", "medium", "weak", "none")
"""Prior groups in the order people read them; others follow by name."""

WORST = 8
MEASURES = {
    "percentile": "percentile",
    "mean_log_rank": "mean ln rank",
    "mrr": "MRR",
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
}


@dataclass(frozen=True)
class ImageSet:
    """Rank-e scores of one set of images, on the entities that all of them have.

    Attributes:
        name: how the images are called.
        members: the scores.
        entities: the shared entities.
        ranks: label -> [entities] mean rank.
        groups: group -> row numbers; "all" first where there are several.
        priors: whether the groups are prior groups.
    """

    name: str
    members: Sequence[Member]
    entities: Sequence[str]
    ranks: Mapping[str, Floats]
    groups: Mapping[str, NDArray[np.int64]]
    priors: bool


def image_sets(members: Members) -> list[ImageSet]:
    """The rank-e scores by image set: the set whose entities have known priors first, then as given."""
    by_digest: dict[str, list[Member]] = {}
    names: dict[str, str] = {}
    for member in members.ranks():
        key, name = _images_of(member)
        by_digest.setdefault(key, []).append(member)
        names.setdefault(key, name)
    sets = [_image_set(names[key], group, members.priors) for key, group in by_digest.items()]
    return sorted(sets, key=lambda images: not images.priors)


def _images_of(member: Member) -> tuple[str, str]:
    """Digest and name of the images that were ranked; the member's label where they are not recorded."""
    record = next((item for item in member.artifact.manifest.inputs if item.setting == "images"), None)
    return (record.digest, record.path) if record else (member.label, member.label)


def _mean_ranks(member: Member) -> dict[str, float]:
    return dict(zip(map(str, member.table["entity"]), member.table["mean_rank"], strict=True))


def _image_set(name: str, group: Sequence[Member], priors: Mapping[str, str]) -> ImageSet:
    tables = {member.label: _mean_ranks(member) for member in group}
    first = next(iter(tables.values()))
    entities = [entity for entity in first if all(entity in table for table in tables.values())]
    ranks = {
        label: np.array([table[e] for e in entities], dtype=np.float64) for label, table in tables.items()
    }
    groups = prior_group_rows(entities, priors)
    return ImageSet(name, group, entities, ranks, groups, len(groups) > 1)


def prior_group_rows(entities: Sequence[str], priors: Mapping[str, str]) -> dict[str, NDArray[np.int64]]:
    """Row numbers of all entities, and of those of each prior group where the groups are known."""
    known = [priors.get(entity, "") for entity in entities]
    groups = {"all": np.arange(len(entities))}
    for value in sorted(
        {v for v in known if v},
        key=lambda v: (PRIOR_ORDER.index(v) if v in PRIOR_ORDER else len(PRIOR_ORDER), v),
    ):
        groups[prior_name(value)] = np.array([row for row, prior in enumerate(known) if prior == value])
    return groups


def ranks_section(members: Members) -> Section | None:
    """Rank_e on the image set of interest."""
    sets = image_sets(members)
    if not sets:
        return None
    images = sets[0]
    table = rank_table(images, members)
    blocks: list[Block] = [
        table,
        Plot(
            "rank-distribution",
            f"Mean rank of entities on {images.name}: dots are entities, bars the middle half, markers medians",
            rank_distributions(
                list(images.groups) if not images.priors else [g for g in images.groups if g != "all"],
                {
                    label: {group: values[rows] for group, rows in images.groups.items()}
                    for label, values in images.ranks.items()
                },
                "Rank_e (low: strong prior)",
                [member.color for member in images.members],
            ),
        ),
        _measures(images, members),
        _worst(images, members),
    ]
    intro = (
        "Rank_e is the mean rank of an entity's true name among all candidate names, over its images. A low rank is a "
        "strong prior. 95 % intervals resample entities; changes are paired by entity."
    )
    seeds = seeds_table(images, members)
    if seeds is not None:
        blocks.insert(1, seeds)
        intro += " Where encoders were trained with several seeds, the rest of this page shows the first."
    return Section(
        "rank-e", "Rank_e: priors of the encoders", intro, blocks, [table, *([seeds] if seeds else [])]
    )


def seeds_table(images: ImageSet, members: Members) -> Table | None:
    """Mean rank by group and variant over seeds, with the ratio to the first variant, taken seed by seed."""
    tables = {
        name: {seed_of(run.label): _mean_ranks(run) for run in runs}
        for name, runs in members.repeated_ranks().items()
        if all(_images_of(run)[0] == _images_of(images.members[0])[0] for run in runs)
    }
    variants = {
        name: {
            seed: np.array([table[entity] for entity in images.entities]) for seed, table in by_seed.items()
        }
        for name, by_seed in tables.items()
        if all(set(images.entities) <= table.keys() for table in by_seed.values())
    }
    if not variants:
        return None
    first, base = next(iter(variants.items()))
    rows: list[list[Cell]] = []
    for group, chosen in images.groups.items():
        for name, by_seed in variants.items():
            ratio: Cell = None
            if name != first and by_seed.keys() == base.keys():
                ratio = student_mean(
                    [by_seed[seed][chosen].mean() / base[seed][chosen].mean() for seed in by_seed]
                )
            mean = student_mean([float(values[chosen].mean()) for values in by_seed.values()])
            rows.append([group, name, len(by_seed), mean, ratio])
    return Table(
        "rank-e-seeds",
        "Rank_e over seeds, with Student's 95 % intervals of the mean over seeds",
        ["group", "variant", "seeds", "Rank_e", f"ratio to {first}"],
        rows,
    )


def rank_table(images: ImageSet, members: Members) -> Table:
    """Mean rank by group and artifact, with paired changes from the first artifact."""
    labels = list(images.ranks)
    columns = ["group", "entities", *labels]
    for label in labels[1:]:
        columns += [f"{label} \N{MINUS SIGN} {labels[0]}", f"{label} \N{DIVISION SIGN} {labels[0]}"]
    rows: list[list[Cell]] = []
    for group, chosen in images.groups.items():
        if not len(chosen):
            continue
        first = images.ranks[labels[0]][chosen]
        row: list[Cell] = [group, len(chosen)]
        row += [_mean(images.ranks[label][chosen], members) for label in labels]
        for label in labels[1:]:
            other = images.ranks[label][chosen]
            change = bootstrap_difference(other, first, seed=members.seed, resamples=members.resamples)
            row += [SignedInterval(change), ratio_of_means(other, first, members.seed, members.resamples)]
        rows.append(row)
    return Table(
        name="rank-e",
        caption=f"Rank_e on {images.name} (low: strong prior)",
        columns=columns,
        rows=rows,
        colors=[-1, -1, *(member.color for member in images.members)],
    )


def ratio_of_means(first: Floats, second: Floats, seed: int, resamples: int) -> Interval:
    """Ratio of two means over the same entities, with a paired bootstrap interval."""
    replicates = np.concatenate(
        [
            first[draw].mean(1) / second[draw].mean(1)
            for draw in bootstrap_indices(len(first), resamples, seed)
        ]
    )
    return percentile_interval(float(first.mean() / second.mean()), replicates, 0.95)


def _mean(values: Floats, members: Members) -> Interval:
    return bootstrap_mean(values, seed=members.seed, resamples=members.resamples)


def _measures(images: ImageSet, members: Members) -> Table:
    rows: list[list[Cell]] = []
    for member in images.members:
        row: list[Cell] = [member.label, int(member.metrics.get("candidates", 0))]
        row += [_mean(np.array(member.table[name], dtype=np.float64), members) for name in MEASURES]
        rows.append(row)
    return Table(
        "rank-measures",
        "Other measures of the same ranks, over all entities",
        ["artifact", "candidates", *MEASURES.values()],
        rows,
    )


def _worst(images: ImageSet, members: Members) -> Table:
    last = images.members[-1]
    labels = list(images.ranks)
    order = np.argsort(-images.ranks[last.label], kind="stable")[:WORST]
    names = [images.entities[int(row)] for row in order]
    pictures = entity_pictures(last.artifact, names)
    confused = dict(zip(map(str, last.table["entity"]), last.table.get("confused_with", []), strict=False))
    rows: list[list[Cell]] = []
    for row, name in zip(order, names, strict=True):
        cells: list[Cell] = [CellImages(pictures.get(name, ())), name]
        cells += [members.priors.get(name, "")] if images.priors else []
        cells += [float(images.ranks[label][row]) for label in labels]
        rows.append([*cells, ", ".join(confused.get(name) or [])])
    heading = ["images", "entity", *(["prior"] if images.priors else []), *labels, "confused with"]
    return Table(
        "worst-entities",
        f"Entities with the highest Rank_e in \N{LEFT DOUBLE QUOTATION MARK}{last.label}\N{RIGHT DOUBLE QUOTATION MARK}",
        heading if any(pictures.values()) else heading[1:],
        rows if any(pictures.values()) else [row[1:] for row in rows],
    )


def off_domain_section(members: Members) -> Section | None:
    """What remediation cost elsewhere: Rank_e on other images, and retrieval benchmarks."""
    tables = [
        numbered(rank_table(images, members), index)
        for index, images in enumerate(image_sets(members))
        if index
    ]
    retrieval = _retrieval(members)
    if retrieval is not None:
        tables.append(retrieval)
    if not tables:
        return None
    intro = "The same encoders on other data than the remediated entities."
    return Section("off-domain", "Off-domain cost", intro, tables, tables)


def _retrieval(members: Members) -> Table | None:
    evaluations = [
        member
        for member in members.evaluations()
        if any(name in RETRIEVAL for b in member.evaluation.benchmarks.values() for name in b.metrics)
    ]
    if not evaluations:
        return None
    return metric_table("retrieval", "Retrieval", evaluations, lambda _, metric: metric in RETRIEVAL)
