"""Gains and costs of stage I on the glyph world: keep term, replay and interpolation, each on and off.

For each seed a world and an encoder with strong, weak and no priors are made; the encoder is then remediated
with and without the keep term and with and without replay, and each result is measured on held-out typefaces
and scenes at several shares of the tuned weights (WiSE-FT). Printed per variant and share: the change of mean
Rank_e of each prior group and off-domain retrieval, as means over the seeds with Student's 95 % interval of
the mean (the seeds being the sample) and the lowest and highest seed.

    python benchmarks/remediation_tradeoff.py OUT [--seeds 1,2,3] [--recipe pocket] [--scale 1.0]
        [--variants keep-replay,keep,replay,neither]

The claim under test: the mean rank of weak and of no priors falls by at least 60 % while that of strong ones
rises by at most a tenth. ``--scale`` shortens both training runs; finished steps are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import tomli
from scipy.stats import t as student

VARIANTS = {
    "keep-replay": (True, True),
    "keep": (True, False),
    "replay": (False, True),
    "neither": (False, False),
}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
GROUPS = ("strong", "weak", "none")


def priorkit(*words: object) -> Path:
    """Run a step and return the path of its artifact."""
    done = subprocess.run(
        [sys.executable, "-m", "priorkit", *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(done.stdout.strip())


def measure(
    root: Path, seed: int, recipe: str, scale: float, variants: list[str]
) -> dict[tuple[str, float, str], float]:
    """(variant, share, what) -> value; what is the prior group of a mean rank, or ``retrieval``."""
    home = root / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    path = Path(str(recipe))
    known = path if path.is_file() else Path(__file__).parents[1] / "recipes" / f"{recipe}.toml"
    table = tomli.loads(known.read_text(encoding="utf-8"))

    def steps(step: str) -> list[object]:
        return ["--steps", max(1, round(scale * table[step]["optimisation"]["steps"]))]

    common = ["--recipe", known, "--seed", seed]
    world = priorkit("glyph-world", *common, "--out", home / "world")
    pairs = world / "pairs" / "train.parquet"
    encoder = priorkit(
        "pretrain-encoder", pairs, *common, *steps("pretrain-encoder"), "--out", home / "encoder"
    )
    rows = pq.read_table(world / "entities.parquet").to_pylist()
    group = {row["entity"]: row["prior"] for row in rows}
    measured: dict[tuple[str, float, str], float] = {}
    for name in variants:
        keeps, replays = VARIANTS[name]
        words = [] if keeps else ["--keep-weight", 0]
        words += ["--replay", pairs] if replays else []
        out = priorkit(
            "distill-encoder", encoder, world / "entity_images" / "train", *common, *steps("distill-encoder"),
            "--held-out", world / "entity_images" / "test", "--off-domain", world / "pairs" / "test.parquet",
            "--interpolate", ",".join(map(str, SHARES)), *words, "--out", home / name,
        )  # fmt: skip
        ranks = pq.read_table(out / "held_out_ranks.parquet").to_pydict()
        points = json.loads((out / "priorkit.json").read_text())["metrics"]["trade_off"]
        for point in points:
            share = point["share"]
            by_group: dict[str, list[float]] = defaultdict(list)
            for entity, rank in zip(ranks["entity"], ranks[f"mean_rank_at_{share:g}"], strict=True):
                by_group[group[entity]].append(rank)
            for prior, values in by_group.items():
                measured[name, share, prior] = statistics.fmean(values)
            measured[name, share, "retrieval"] = point["off_domain_mrr"]["value"]
    return measured


def changes(
    runs: list[dict[tuple[str, float, str], float]], variant: str, share: float, prior: str
) -> list[float]:
    """Relative change of a group's mean rank, one per seed."""
    return [run[variant, share, prior] / run[variant, 0.0, prior] - 1 for run in runs]


def mean_interval(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of independent runs; NaN for a single one."""
    if len(values) < 2:
        return math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(student.ppf((1 + level) / 2, len(values) - 1)) * error
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def cell(values: list[float], digits: int) -> str:
    """Mean, interval of the mean, and range."""
    low, high = mean_interval(values)
    parts = (statistics.fmean(values), low, high, min(values), max(values))
    mean, low, high, least, most = (f"{value:.{digits}f}" for value in parts)
    return f"{mean} ({low}, {high}) [{least}, {most}]"


def draw(runs: list[dict[tuple[str, float, str], float]], variants: list[str], out: Path) -> None:
    """A panel per group: change of its mean rank against off-domain retrieval, a line per variant.

    Bars are the 95 % intervals of the mean over the seeds.
    """
    from priorkit.report import figures

    with figures.drawing(3.4, len(GROUPS)) as (figure, axes):
        for axis, prior in zip(axes, GROUPS, strict=True):
            for number, variant in enumerate(variants):
                x = [statistics.fmean(run[variant, share, "retrieval"] for run in runs) for share in SHARES]
                every = [[100 * value for value in changes(runs, variant, share, prior)] for share in SHARES]
                y = [statistics.fmean(values) for values in every]
                bars = [[mean - mean_interval(values)[0] for mean, values in zip(y, every, strict=True)]] * 2
                axis.errorbar(x, y, yerr=bars if len(runs) > 1 else None, marker=figures.series_marker(number),
                              color=figures.series_color(number), markersize=4, elinewidth=1, label=variant)  # fmt: skip
            axis.set_title(f"{prior} prior", fontsize=9, loc="left")
            axis.set_xlabel("off-domain retrieval (MRR)")
        axes[0].set_ylabel("change of mean Rank_e, %")
        figures.legend(figure, axes[0])
    (out / "trade_off.svg").write_bytes(figures.to_svg(figure))
    (out / "trade_off.png").write_bytes(figures.to_png(figure))


def main() -> None:
    """Measure all seeds, print the table, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--recipe", default="pocket")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    args = parser.parse_args()
    variants = args.variants.split(",")
    if unknown := set(variants) - set(VARIANTS):
        parser.error(f"--variants: {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    runs = [measure(args.out, int(seed), args.recipe, args.scale, variants) for seed in args.seeds.split(",")]
    print(
        f"change of mean Rank_e in %, and off-domain MRR: mean over {len(runs)} seeds, "
        "95 % interval of the mean (Student's t) in (), lowest and highest seed in []"
    )
    print(f"{'variant':<14}{'share':>6}" + "".join(f"{name:>42}" for name in (*GROUPS, "retrieval")))
    for variant in variants:
        for share in SHARES:
            measured = {
                prior: [100 * value for value in changes(runs, variant, share, prior)] for prior in GROUPS
            }
            cells = [cell(values, 1) for values in measured.values()]
            cells.append(cell([run[variant, share, "retrieval"] for run in runs], 3))
            print(f"{variant:<14}{share:>6g}" + "".join(f"{text:>42}" for text in cells))
    draw(runs, variants, args.out)


if __name__ == "__main__":
    main()
