"""Whether mixes and scores can carry a response surface: enough of them, different enough, with different scores."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.mixes import ScoredMixes
from priorkit.core.errors import InputError, Problems
from priorkit.scoring.statistics.response_surface import MIN_MIXES, scheffe_terms

logger = logging.getLogger(__name__)

_SAME_SHARE = 1e-6
"""Shares that differ by less are the same; printed figures have fewer digits."""


def check_mixes(mixes: ScoredMixes, *, surface: str, region: Literal["hull", "simplex"]) -> None:
    """Check that a surface can be fitted and tested; warn where little supports it.

    Args:
        mixes: the mixes with their scores.
        surface: the kind of surface, or ``auto``.
        region: what is searched.

    Raises:
        InputError: too few mixes, all the same, in too many directions for their number, collinear while all mixes
            are searched, or scores that are all the same.
    """
    problems = Problems(InputError)
    distinct = np.unique(np.round(mixes.shares / _SAME_SHARE), axis=0) * _SAME_SHARE
    directions = _directions(distinct)
    # Each mix is predicted from the others; these must be more than the coefficients of a linear surface, and span it.
    needed = directions + 3
    if len(mixes.names) >= MIN_MIXES and len(distinct) == 1:
        problems.add(
            f"all {len(mixes.names)} mixes are the same", hint="evaluate models trained on different mixes"
        )
    elif len(mixes.names) < max(needed, MIN_MIXES) or len(distinct) < directions + 2:
        count = f"{len(mixes.names)}" + (f" ({len(distinct)} different ones)" if len(distinct) > 1 else "")
        problems.add(
            f"a surface of {len(mixes.components)} components that vary in {_counted(directions, 'direction')} "
            f"needs at least {max(needed, MIN_MIXES)} mixes, {directions + 2} of them different, got {count}",
            hint="train and evaluate more mixes, or join components (--shares A,B --remainder rest)",
        )
    problems.extend(_unusable_scores(mixes))
    problems.raise_if_any()
    varying = int((np.ptp(distinct, axis=0) > _SAME_SHARE).sum())
    if directions < len(mixes.components) - 1:
        _collinear(mixes, directions, varying, region)
    terms = scheffe_terms(mixes.shares).shape[1]
    if surface != "gaussian-process" and len(mixes.names) < terms:
        logger.warning(
            f"{len(mixes.names)} mixes are fewer than the {terms} terms of a quadratic in {len(mixes.components)} "
            "components; its ridge penalty decides among the surfaces that fit them"
        )


def _collinear(mixes: ScoredMixes, directions: int, varying: int, region: Literal["hull", "simplex"]) -> None:
    """Judge mixes that leave directions of the simplex out.

    Raises:
        InputError: all mixes are searched.
    """
    if varying - 1 == directions:
        constant = mixes.components[int(np.ptp(mixes.shares, axis=0).argmin())]
        what = f"the mixes are the same in some components, such as '{constant}'"
    else:
        what = (
            f"the mixes are collinear: their {varying} varying components change in "
            f"{_counted(directions, 'direction')} only, so the effects of single components cannot be separated"
        )
    if region == "simplex":
        raise InputError(
            f"{what}; nothing is known of mixes elsewhere",
            where="--region simplex",
            hint="search among mixtures of the mixes tried (--region hull), or evaluate mixes that differ in them",
        )
    logger.warning(f"{what}; only mixtures of the mixes tried are suggested")


def _unusable_scores(mixes: ScoredMixes) -> InputError:
    """What is wrong with the scores; no problem where they can be fitted."""
    scores = mixes.scores
    with np.errstate(over="ignore"):
        too_large = not np.isfinite(np.square(scores).sum())
    if too_large:
        what = f"the score {mixes.score} is as large as {np.abs(scores).max():.3g}; its squares are infinite"
        return InputError(what, hint="use another unit")
    if len(scores) > 1 and np.ptp(scores) <= 1e-12 * np.abs(scores).max():
        what = f"the score {mixes.score} is {scores[0]:.6g} for all {len(scores)} mixes; none is better than another"
        return InputError(what, hint="name a score that differs with --score")
    return InputError(())


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def _directions(shares: NDArray[np.float64]) -> int:
    """In how many directions mixes differ: the rank of ``[mixes, components]`` around their mean."""
    return int(np.linalg.matrix_rank(shares - shares.mean(0), tol=10 * _SAME_SHARE))
