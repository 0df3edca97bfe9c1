"""What remediation gains and what it costs, along the line from the original weights to the tuned ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.interval import Interval
from priorkit.data.io.tables import read_table
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.report.blocks import Block, Cell, Plot, Section, Table, numbered
from priorkit.report.plots.trade_off import trade_off
from priorkit.report.sections.priors.ranks import prior_group_rows, ratio_of_means
from priorkit.scoring.statistics.intervals import bootstrap_mean

Floats = NDArray[np.float64]

RANKS = "held_out_ranks.parquet"
"""Mean rank of every held-out entity at every share, stored next to the encoder."""


def trade_off_section(members: Members) -> Section | None:
    """Remediated encoders that were measured along their line, given or found behind what was given."""
    remediated = [m for m in members.all if m.step == "distill-encoder" and m.metrics.get("trade_off")]
    if not remediated:
        return None
    blocks: list[Block] = []
    for index, member in enumerate(remediated):
        title = member.label if len(remediated) > 1 else ""
        blocks += [numbered(block, index, title) for block in _blocks(member, members)]
    intro = (
        "Weights interpolated between the original encoder (share 0) and the tuned one (share 1), as in WiSE-FT: Rank_e "
        "on held-out images of the entities, and retrieval on pairs of another domain. 95 % intervals resample "
        "entities or pairs; changes are paired by entity."
    )
    return Section("trade-off", "Trade-off of remediation", intro, blocks)


def _blocks(member: Member, members: Members) -> list[Table | Plot]:
    points: Sequence[Mapping[str, Any]] = member.metrics["trade_off"]
    shares = [float(point["share"]) for point in points]
    saved = float(member.metrics.get("saved_share", 1.0))
    retrieval = [_interval(point.get("off_domain_mrr")) for point in points]
    costs = [cost for cost in retrieval if cost is not None]
    ranks = _ranks(member, shares)
    groups = prior_group_rows(list(ranks), members.priors) if ranks else {}
    # [entities, shares]; the groups' means and intervals at every share.
    table = np.array(list(ranks.values()), dtype=np.float64)
    means = {
        group: [
            bootstrap_mean(table[rows, column], seed=members.seed, resamples=members.resamples)
            for column in range(len(shares))
        ]
        for group, rows in groups.items()
        if len(rows)
    }
    blocks: list[Table | Plot] = []
    measured = len(costs) == len(shares)
    if means:
        drawn = {group: values for group, values in means.items() if group != "all"} or means
        blocks.append(
            Plot(
                "trade-off",
                "Rank_e on held-out images by the share of the tuned weights"
                + (", and against off-domain retrieval" if measured else ""),
                trade_off(shares, drawn, costs if measured else None, saved),
            )
        )
    elif measured:
        title = "Off-domain retrieval by the share of the tuned weights"
        blocks.append(Plot("trade-off", title, trade_off(shares, {}, costs, saved)))
    columns = ["share", *(f"Rank_e, {group}" for group in means)]
    columns += ["all \N{DIVISION SIGN} original"] if means and shares[0] == 0 else []
    columns += ["off-domain MRR", "point"]
    rows: list[list[Cell]] = []
    for index, share in enumerate(shares):
        row: list[Cell] = [share, *(group_means[index] for group_means in means.values())]
        if means and shares[0] == 0:
            row.append(
                ratio_of_means(table[:, index], table[:, 0], members.seed, members.resamples)
                if index
                else None
            )
        rows.append([*row, retrieval[index], "saved" if share == saved else ""])
    caption = "Along the interpolation (low Rank_e: strong prior; high MRR: retrieval kept)"
    return [*blocks, Table("trade-off", caption, columns, rows).without_empty()]


def _ranks(member: Member, shares: Sequence[float]) -> dict[str, list[float]]:
    """Entity -> mean rank at each share; empty where no images were held out."""
    file = member.artifact.path / RANKS
    if not file.is_file():
        return {}
    table = read_table(file)
    columns = [table[f"mean_rank_at_{share:g}"] for share in shares]
    return {
        str(entity): list(map(float, ranks)) for entity, *ranks in zip(table["entity"], *columns, strict=True)
    }


def _interval(entry: Mapping[str, float] | None) -> Interval | None:
    return None if entry is None else Interval.from_dict(entry)
