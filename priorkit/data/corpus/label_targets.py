"""Shares of labelled tokens: how much to draw of each pool so that given shares come out.

Pools are documents of one source with the same labels. Of all ways to meet the targets (and the sources'
weights, where given) that one is taken which changes the sources' own composition least: with ``a`` a
pool's share of all tokens and ``x`` the share drawn,

    minimise  sum x log(x / a)   subject to   sum of x over a label = its target,  x <= cap

so a pool is drawn ``exp(sum of its labels' and source's multipliers)`` times as much as it would be, or as
often as it may be repeated. With one target this scales all text with the label by one factor and all
other text by another: the paper's 'remainder is a proportional mix of the other data' (Learning to See
Before Seeing, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import Problems, UsageError, nearest
from priorkit.data.corpus.mixing import DocumentPool, check_weights
from priorkit.data.text.concepts import LABELS

TOLERANCE = 0.005
"""How far a realised share may be from its target."""

Floats = NDArray[np.float64]


def check_targets(targets: Mapping[str, float]) -> None:
    """Check that targets name labels and are shares.

    Raises:
        UsageError: unknown labels, or shares outside 0 to 1.
    """
    problems = Problems(UsageError)
    for name, share in targets.items():
        if name not in LABELS:
            problems.add(f"no label is named '{name}'", where="--target", hint=nearest(name, LABELS))
        elif not 0 <= share <= 1:
            problems.add(f"the target of '{name}' is {share:g}; a share lies from 0 to 1", where="--target")
    problems.raise_if_any()


def has_label(pools: Sequence[DocumentPool], label: str) -> NDArray[np.bool_]:
    """Which pools' documents carry a label."""
    bit = 1 << LABELS.index(label)
    return np.array([bool(pool.labels & bit) for pool in pools])


def label_budgets(
    pools: Sequence[DocumentPool],
    names: Sequence[str],
    targets: Mapping[str, float],
    weights: Mapping[str, float],
    tokens: int | None,
    epochs: Mapping[str, float],
) -> list[int]:
    """Tokens that each pool is to give.

    Args:
        pools: the pools.
        names: the sources' names.
        targets: share of the tokens that carry a label.
        weights: share of the tokens by source; empty leaves it to the targets.
        tokens: tokens of the corpus; None means as many as draw no document twice.
        epochs: how often each source's documents may be repeated.

    Raises:
        UsageError: the targets cannot be met; what is available and what is missing is said.
    """
    check_targets(targets)
    check_weights(names, weights)
    rows, shares = _constraints(pools, names, targets, weights)
    available = np.array([pool.tokens for pool in pools], dtype=np.float64)
    if tokens is None:
        total, caps = _largest(available, rows, shares), available
    else:
        total = float(tokens)
        caps = available * np.array([epochs[names[pool.source]] for pool in pools])
    if total < 1:
        _explain(pools, names, targets, weights, float(available.sum()), available, rows, shares)
    nearest_x, missed = _nearest(caps / total, rows, shares)
    if missed > TOLERANCE:
        _explain(pools, names, targets, weights, total, caps, rows, shares)
    drawn = _least_change(available / available.sum(), caps / total, rows, rows @ nearest_x, nearest_x)
    counts = np.minimum(np.round(drawn * total), np.floor(caps)).astype(np.int64)
    spare = round(total) - int(counts.sum())
    largest = int(np.argmax(np.where(counts + spare <= caps, counts, -1)))
    counts[largest] += spare
    return counts.tolist()


def _constraints(
    pools: Sequence[DocumentPool],
    names: Sequence[str],
    targets: Mapping[str, float],
    weights: Mapping[str, float],
) -> tuple[Floats, Floats]:
    """Rows ``[constraints, pools]`` and the shares that they are to sum to; the first row is the whole."""
    rows = [np.ones(len(pools)), *(has_label(pools, label).astype(float) for label in targets)]
    shares = [1.0, *targets.values()]
    scale = sum(weights.values())
    for number, name in enumerate(names):
        if weights:
            rows.append(np.array([float(pool.source == number) for pool in pools]))
            shares.append(weights[name] / scale)
    return np.array(rows), np.array(shares)


def _solve(cost: Floats, **constraints: Any) -> Floats | None:
    from scipy.optimize import linprog

    found = linprog(cost, method="highs", **constraints)
    return np.asarray(found.x) if found.status == 0 else None


def _largest(available: Floats, rows: Floats, shares: Floats) -> float:
    """The most tokens that have the shares without any document twice, 0 where there are none."""
    found = _solve(
        -np.ones(len(available)),
        A_eq=rows[1:] - shares[1:, None],
        b_eq=np.zeros(len(rows) - 1),
        bounds=[(0, count) for count in available],
    )
    return 0.0 if found is None else float(np.floor(found.sum()))


def _nearest(caps: Floats, rows: Floats, shares: Floats) -> tuple[Floats, float]:
    """Shares of the pools that sum to one and miss the others' shares by as little as can be: they, and it."""
    count = len(caps)
    column = np.ones((len(rows) - 1, 1))
    found = _solve(
        np.append(np.zeros(count), 1.0),
        A_ub=np.block([[rows[1:], -column], [-rows[1:], -column]]),
        b_ub=np.concatenate([shares[1:], -shares[1:]]),
        A_eq=np.append(rows[:1], [[0.0]], axis=1),
        b_eq=[1.0],
        bounds=[*((0, cap) for cap in caps), (0, None)],
    )
    return (np.zeros(count), np.inf) if found is None else (found[:count], float(found[count]))


def _least_change(own: Floats, caps: Floats, rows: Floats, shares: Floats, feasible: Floats) -> Floats:
    """The shares nearest to the pools' own (in relative entropy) that meet the constraints, by the dual."""
    from scipy.optimize import minimize

    # A share of 0 or 1 leaves no choice, and its multiplier would run to infinity.
    for row, share in zip(rows, shares, strict=True):
        caps = np.where(row > 0, np.minimum(caps, 0.0), caps) if share <= 1e-9 else caps
        caps = np.where(row == 0, 0.0, caps) if share >= 1 - 1e-9 else caps
    open_ = (caps > 0) & (own > 0)
    own, caps, rows_open = own[open_], caps[open_], rows[:, open_]

    def dual(multipliers: Floats) -> tuple[float, Floats]:
        exponent = multipliers @ rows_open
        bound = np.log(caps / own)
        drawn = own * np.exp(np.minimum(exponent, bound))
        value = drawn + caps * np.maximum(exponent - bound, 0.0)
        return float(value.sum() - multipliers @ shares), rows_open @ drawn - shares

    found = minimize(
        dual, np.zeros(len(rows)), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000}
    )
    drawn = own * np.exp(np.minimum(found.x @ rows_open, np.log(caps / own)))
    if np.abs(rows_open @ drawn - shares).max() > TOLERANCE / 50:
        return feasible  # at the edge of what is possible, where little or no choice is left
    result = np.zeros(len(open_))
    result[open_] = drawn
    return result


def _explain(
    pools: Sequence[DocumentPool],
    names: Sequence[str],
    targets: Mapping[str, float],
    weights: Mapping[str, float],
    total: float,
    caps: Floats,
    rows: Floats,
    shares: Floats,
) -> None:
    """Say why the targets cannot be met.

    Raises:
        UsageError: always.
    """
    problems = Problems(UsageError)
    kept = [0, *range(1 + len(targets), len(rows))]  # the whole and the sources' weights
    given = " at these weights" if weights else ""
    for number, (label, share) in enumerate(targets.items(), start=1):
        has = has_label(pools, label)
        low, high = (
            float(rows[number] @ found) if found is not None else np.nan
            for found in (
                _solve(
                    sign * rows[number],
                    A_eq=rows[kept],
                    b_eq=shares[kept],
                    bounds=[(0, cap) for cap in caps / total],
                )
                for sign in (1.0, -1.0)
            )
        )
        own = sum(pool.tokens for pool, carried in zip(pools, has, strict=True) if carried)
        other = sum(pool.tokens for pool in pools) - own
        if np.isnan(high):
            continue
        if share > high + TOLERANCE:
            problems.add(
                f"{label} = {share:.1%} of {total:,.0f} tokens are {share * total:,.0f}; {own:,} tokens carry "
                f"it, which with the epochs allowed gives at most {high:.1%}{given}",
                where="--target",
                hint=f"add {(share - high) * total:,.0f} tokens of such text, lower --tokens or the target, "
                "or raise --max-epochs",
            )
        elif share < low - TOLERANCE:
            problems.add(
                f"{label} = {share:.1%} of {total:,.0f} tokens leaves {(1 - share) * total:,.0f} for text "
                f"without it; there are {other:,}, so the share is at least {low:.1%}{given}",
                where="--target",
                hint="add text without this label, lower --tokens, raise the target or --max-epochs",
            )
    if not len(problems):
        found, missed = _nearest(caps / total, rows, shares)
        if not np.isfinite(missed):
            have = ", ".join(f"{name} {_tokens(pools, number):,}" for number, name in enumerate(names))
            problems.add(
                f"{total:,.0f} tokens are wanted; the sources hold {have}, and the epochs allowed give "
                f"{caps.sum():,.0f}",
                where="--tokens",
                hint="lower --tokens, raise --max-epochs, or add text",
            )
        else:
            reached = rows @ found
            near = ", ".join(
                f"{label} {reached[number]:.1%} (wanted {share:.1%})"
                for number, (label, share) in enumerate(targets.items(), start=1)
            )
            problems.add(
                f"each target can be met alone, but not all together{given}: the nearest mix has {near}",
                where="--target",
                hint="change a target" + (" or leave the weights out" if weights else ", or add text"),
            )
    problems.fail()


def _tokens(pools: Sequence[DocumentPool], source: int) -> int:
    return sum(pool.tokens for pool in pools if pool.source == source)
