"""Rank_e's ranking against its peers, in one run: blocked counting, full sorting, faiss's nearest neighbors.

    python benchmarks/rank.py --queries 2000 --candidates 200000 --sort-candidates 20000 --rounds 3

Queries are noisy copies of random unit vectors of width 512; every method works on the same fp32 features in
memory, in an order that changes from round to round. ``counting`` is the obvious loop:
scores of 2000 x 512 at a time, counting those above the true one; its ranks are those of float32 scores.
``priorkit`` gives ties their mean rank and returns the ranks of float64 scores. ``sorting`` sorts all scores of a
query; it is run on fewer candidates (``--sort-candidates``) and compared per score. Processor
time is shown next to wall time: compare processor time on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

from priorkit.scoring.representations.ranks import true_ranks

Rank = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def counting(queries: torch.Tensor, candidates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Ranks of float32 scores by blocked counting; ties are not counted."""
    true_scores = torch.einsum("qd,qd->q", queries, candidates[truth])
    ranks = torch.ones(len(queries), dtype=torch.int64)
    for start in range(0, len(candidates), 512):
        scores = queries @ candidates[start : start + 512].T
        above = scores > true_scores[:, None]
        inside = ((truth >= start) & (truth < start + above.shape[1])).nonzero()[:, 0]
        above[inside, truth[inside] - start] = False
        ranks += torch.count_nonzero(above, dim=1)
    return ranks


def sorting(queries: torch.Tensor, candidates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Ranks by sorting all scores of 250 queries at a time."""
    ranks = []
    for part, true_columns in zip(queries.split(250), truth.split(250), strict=True):
        order = torch.argsort(part @ candidates.T, dim=1, descending=True)
        ranks.append(1 + (order == true_columns[:, None]).int().argmax(1))
    return torch.cat(ranks)


def nearest_by_faiss(queries: torch.Tensor, candidates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Ranks among the ten nearest neighbors by faiss's flat index; 11 for all others."""
    import faiss

    index = faiss.IndexFlatIP(candidates.shape[1])
    index.add(candidates.numpy())
    hits = torch.from_numpy(index.search(queries.numpy(), 10)[1]) == truth[:, None]
    return torch.where(hits.any(1), 1 + hits.int().argmax(1), 11)


def features(queries: int, candidates: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit queries, unit candidates, and the index of the candidate that each query is near."""
    generator = torch.Generator().manual_seed(0)
    names = torch.empty(candidates, width)
    for part in names.split(50_000):
        part.normal_(generator=generator)
        torch.nn.functional.normalize(part, dim=1, out=part)
    truth = torch.randint(candidates, (queries,), generator=generator)
    noise = torch.randn(queries, width, generator=generator) / width**0.5
    images = torch.nn.functional.normalize(0.15 * names[truth] + noise, dim=1)
    return images, names, truth


def peak() -> float:
    """Peak resident memory of the process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the methods alternately and print one line of JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--sort-candidates", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    images, names, truth = features(options.queries, options.candidates, options.width)
    methods: dict[str, tuple[Rank, torch.Tensor, torch.Tensor]] = {
        "priorkit": (true_ranks, names, truth),
        "counting": (counting, names, truth),
    }
    if options.sort_candidates:
        few = min(options.sort_candidates, options.candidates)
        methods["sorting"] = (sorting, names[:few], truth % few)
    if "faiss" in sys.modules or _has_faiss():
        methods["faiss, ten nearest"] = (nearest_by_faiss, names, truth)
    clock: dict[str, list[float]] = {name: [] for name in methods}
    processor: dict[str, list[float]] = {name: [] for name in methods}
    ranks: dict[str, torch.Tensor] = {}
    true_ranks(images[:64], names[:1024], truth[:64] % 1024)  # warm-up, so that lazy imports are not timed
    before, above = peak(), 0.0
    for number in range(options.rounds):
        order = list(methods) if number % 2 == 0 else list(reversed(methods))
        for name in order:
            method, candidates, true_columns = methods[name]
            wall, spent = time.perf_counter(), time.process_time()
            ranks[name] = method(images, candidates, true_columns)
            clock[name].append(time.perf_counter() - wall)
            processor[name].append(time.process_time() - spent)
            if number == 0 and name == "priorkit":
                above = peak() - before
    differ = int((ranks["priorkit"] != ranks["counting"].double()).sum())
    base = statistics.median(processor["counting"])
    for name, (_, candidates, _) in methods.items():
        share = options.candidates / len(candidates)
        print(
            json.dumps(
                {
                    "method": name,
                    "candidates": len(candidates),
                    "seconds": [round(value, 2) for value in clock[name]],
                    "processor_seconds": [round(value, 2) for value in processor[name]],
                    "processor_seconds_per_score_to_counting": round(
                        statistics.median(processor[name]) * share / base, 3
                    ),
                }
            )
        )
    print(
        json.dumps(
            {
                "priorkit_mb_above_features": round(above, 1),
                "queries_whose_rank_differs_from_float32_counting": differ,
                "queries": options.queries,
                "width": options.width,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "machine": f"{os.cpu_count()} processors, {platform.machine()}",
            }
        )
    )


def _has_faiss() -> bool:
    from importlib.util import find_spec

    return find_spec("faiss") is not None


if __name__ == "__main__":
    main()
