"""Label targets: how much to draw from each pool so that labels have given shares of the tokens.

Pools are documents of one source with the same labels. Of all ways to meet the targets (and the sources'
weights, where given) the one that changes the sources' composition least is used: with ``a`` a
pool's share of all tokens and ``x`` the share drawn,

    minimize  sum x log(x / a)   subject to   sum of x over a label = its target,  x <= cap

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
"""How far a realized share may be from its target."""

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
            problems.add(f"the target of '{name}' is {share:g}; a share is from 0 to 1", where="--target")
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
        tokens: tokens of the corpus; None means as many as possible with every document used at most once.
        epochs: how often each source's documents may be repeated.

    Raises:
        UsageError: the targets cannot be met; the message says what is available and missing.
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
    """Rows ``[constraints, pools]`` and the shares that they are to sum to; the first row is the sum of all."""
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

    solution = linprog(cost, method="highs", **constraints)
    return np.asarray(solution.x) if solution.status == 0 else None


def _largest(available: Floats, rows: Floats, shares: Floats) -> float:
    """The most tokens that can have the shares with every document used at most once; 0 if none can."""
    solution = _solve(
        -np.ones(len(available)),
        A_eq=rows[1:] - shares[1:, None],
        b_eq=np.zeros(len(rows) - 1),
        bounds=[(0, count) for count in available],
    )
    return 0.0 if solution is None else float(np.floor(solution.sum()))


def _nearest(caps: Floats, rows: Floats, shares: Floats) -> tuple[Floats, float]:
    """The pools' shares that sum to one and come closest to the constraints, with the largest deviation."""
    count = len(caps)
    column = np.ones((len(rows) - 1, 1))
    solution = _solve(
        np.append(np.zeros(count), 1.0),
        A_ub=np.block([[rows[1:], -column], [-rows[1:], -column]]),
        b_ub=np.concatenate([shares[1:], -shares[1:]]),
        A_eq=np.append(rows[:1], [[0.0]], axis=1),
        b_eq=[1.0],
        bounds=[*((0, cap) for cap in caps), (0, None)],
    )
    return (np.zeros(count), np.inf) if solution is None else (solution[:count], float(solution[count]))


def _least_change(
    composition: Floats, caps: Floats, rows: Floats, shares: Floats, feasible: Floats
) -> Floats:
    """The shares closest to the pools' current ones (in relative entropy) that meet the constraints, by the dual."""
    from scipy.optimize import minimize

    # A share of 0 or 1 leaves no choice, and its multiplier would run to infinity.
    for row, share in zip(rows, shares, strict=True):
        caps = np.where(row > 0, np.minimum(caps, 0.0), caps) if share <= 1e-9 else caps
        caps = np.where(row == 0, 0.0, caps) if share >= 1 - 1e-9 else caps
    open_ = (caps > 0) & (composition > 0)
    composition, caps, rows_open = composition[open_], caps[open_], rows[:, open_]

    def dual(multipliers: Floats) -> tuple[float, Floats]:
        exponent = multipliers @ rows_open
        bound = np.log(caps / composition)
        drawn = composition * np.exp(np.minimum(exponent, bound))
        value = drawn + caps * np.maximum(exponent - bound, 0.0)
        return float(value.sum() - multipliers @ shares), rows_open @ drawn - shares

    solution = minimize(
        dual, np.zeros(len(rows)), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000}
    )
    drawn = composition * np.exp(np.minimum(solution.x @ rows_open, np.log(caps / composition)))
    if np.abs(rows_open @ drawn - shares).max() > TOLERANCE / 50:
        return feasible  # at the edge of the feasible set, where little or no choice is left
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
    given = " at these weights" if weights else ""
    fixed = [0, *range(1 + len(targets), len(rows))]  # the sum and the sources' weights
    for number, (label, share) in enumerate(targets.items(), start=1):
        low, high = _possible_shares(rows[number], rows[fixed], shares[fixed], caps / total)
        if not np.isnan(high):
            _explain_one(problems, pools, label, share, (low, high), total, given)
    if not len(problems):
        _explain_all(problems, pools, names, targets, bool(weights), total, caps, rows, shares)
    problems.fail()


def _possible_shares(label: Floats, rows: Floats, shares: Floats, caps: Floats) -> tuple[float, float]:
    """The smallest and the largest share that a label can have under the other constraints; NaN for none."""
    solutions = (
        _solve(sign * label, A_eq=rows, b_eq=shares, bounds=[(0, cap) for cap in caps])
        for sign in (1.0, -1.0)
    )
    low, high = (np.nan if solution is None else float(label @ solution) for solution in solutions)
    return low, high


def _explain_one(
    problems: Problems,
    pools: Sequence[DocumentPool],
    label: str,
    share: float,
    possible: tuple[float, float],
    total: float,
    given: str,
) -> None:
    """Report a target that no mix can meet."""
    low, high = possible
    labelled = has_label(pools, label)
    with_label = sum(pool.tokens for pool, has in zip(pools, labelled, strict=True) if has)
    without = sum(pool.tokens for pool in pools) - with_label
    if share > high + TOLERANCE:
        problems.add(
            f"{label} = {share:.1%} of {total:,.0f} tokens are {share * total:,.0f}; {with_label:,} tokens carry "
            f"it, which with the epochs allowed gives at most {high:.1%}{given}",
            where="--target",
            hint=f"add {(share - high) * total:,.0f} tokens of such text, lower --tokens or the target, "
            "or raise --max-epochs",
        )
    elif share < low - TOLERANCE:
        problems.add(
            f"{label} = {share:.1%} of {total:,.0f} tokens leaves {(1 - share) * total:,.0f} for text "
            f"without it; there are {without:,}, so the share is at least {low:.1%}{given}",
            where="--target",
            hint="add text without this label, lower --tokens, raise the target or --max-epochs",
        )


def _explain_all(
    problems: Problems,
    pools: Sequence[DocumentPool],
    names: Sequence[str],
    targets: Mapping[str, float],
    weighted: bool,
    total: float,
    caps: Floats,
    rows: Floats,
    shares: Floats,
) -> None:
    """Report targets each of which could be met, or too few tokens."""
    nearest_x, missed = _nearest(caps / total, rows, shares)
    if not np.isfinite(missed):
        have = ", ".join(f"{name} {_tokens(pools, number):,}" for number, name in enumerate(names))
        problems.add(
            f"{total:,.0f} tokens are needed; the sources hold {have}, and the epochs allowed give "
            f"{caps.sum():,.0f}",
            where="--tokens",
            hint="lower --tokens, raise --max-epochs, or add text",
        )
        return
    reached = rows @ nearest_x
    near = ", ".join(
        f"{label} {reached[number]:.1%} (target {share:.1%})"
        for number, (label, share) in enumerate(targets.items(), start=1)
    )
    given = " at these weights" if weighted else ""
    problems.add(
        f"each target can be met on its own, but not all at once{given}: the closest mix has {near}",
        where="--target",
        hint="change a target" + (" or leave the weights out" if weighted else ", or add text"),
    )


def _tokens(pools: Sequence[DocumentPool], source: int) -> int:
    return sum(pool.tokens for pool in pools if pool.source == source)
