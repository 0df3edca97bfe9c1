"""The files and figures of a Rank_e artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from priorkit.data.images.entities import EntityImages
from priorkit.data.io.tables import write_table
from priorkit.inference.rank_e.ranking import Ranking
from priorkit.scoring.representations.rank_summary import EntityRanks, overall_ranks, summarize_ranks

SIGN = "a low mean rank is a strong prior"
"""The sign convention, written on every output."""


@dataclass(frozen=True)
class RankTables:
    """Summarizes a ranking and writes it.

    Attributes:
        ranking: the ranks.
        entities: what the images show.
        by: what the images are ranked by, ``names`` or ``centroids``.
        seed: of the bootstrap intervals over entities.
        resamples: number of bootstrap resamples.
    """

    ranking: Ranking
    entities: EntityImages
    by: str
    seed: int
    resamples: int

    def write(self, folder: Path) -> dict[str, Any]:
        """Write tables and tensors.

        Returns:
            The columns of ``table.parquet``.
        """
        ranks, entities, summary = self.ranking.ranks.numpy(), self.entities, self._entity_ranks
        columns: dict[str, Any] = dict(summary.columns())
        tensors = {"image_rank": ranks, "entity_mean_rank": summary.mean_rank}
        if self.ranking.reverse is not None:
            among = len(entities.images) - np.bincount(entities.entity_of) + 1
            reverse = self._reverse_summary(self.ranking.reverse)
            tensors["image_reverse_rank"] = self.ranking.reverse.numpy()
            columns["reverse_mean_rank"] = reverse.mean_rank
            columns["reverse_percentile"] = (reverse.mean_rank - 1) / np.maximum(among - 1, 1)
            columns["reverse_mrr"] = reverse.mrr
        if self.ranking.confused:
            names = dict(zip(entities.entities, self.ranking.confused, strict=True))
            columns["confused_with"] = [names[name] for name in summary.entity]
        if self.ranking.by_template:
            each = [values.numpy() for values in self.ranking.by_template.values()]
            tensors["template_image_rank"] = np.stack(each)
            write_table(self._template_columns(), folder / "templates.parquet", {"sign": SIGN})
        write_table(columns, folder / "table.parquet", {"sign": SIGN})
        shown = {"path": [ref.name for ref in entities.images], "entity": entities.shown}
        write_table(shown, folder / "images.parquet")
        save_file(tensors, folder / "scores.safetensors", metadata={"sign": SIGN})
        return columns

    def metrics(self) -> dict[str, Any]:
        """Figures for the manifest: means over entities with their intervals."""
        summary = self._entity_ranks
        metrics: dict[str, Any] = {
            "entities": len(summary.entity),
            "images": len(self.entities.images),
            "candidates": self.ranking.candidates,
            "sign": SIGN,
            "ranked_by": self.by,
            **self.ranking.counts,
            **self._overall(summary),
        }
        if self.ranking.reverse is not None:
            overall = self._overall(self._reverse_summary(self.ranking.reverse))
            metrics["reverse"] = {name: overall[name] for name in ("mean_rank", "mrr", "recall_at_1")}
        if self.ranking.by_template:
            metrics["templates"] = {
                template: self._overall(self._summary(ranks.numpy()))
                for template, ranks in self.ranking.by_template.items()
            }
        return metrics

    @cached_property
    def _entity_ranks(self) -> EntityRanks:
        return self._summary(self.ranking.ranks.numpy())

    def _summary(self, ranks: Any) -> EntityRanks:
        ranked = ~np.isnan(ranks)
        shown = [name for name, kept in zip(self.entities.shown, ranked, strict=True) if kept]
        return summarize_ranks(ranks[ranked], shown, self.ranking.candidates)

    def _reverse_summary(self, ranks: Any) -> EntityRanks:
        return summarize_ranks(ranks.numpy(), self.entities.shown, 2)

    def _overall(self, summary: EntityRanks) -> Mapping[str, dict[str, float | None]]:
        intervals = overall_ranks(summary, seed=self.seed, resamples=self.resamples)
        return {name: interval.to_dict() for name, interval in intervals.items()}

    def _template_columns(self) -> dict[str, list[Any]]:
        """A row per template and entity."""
        columns: dict[str, list[Any]] = {"template": []}
        for template, ranks in self.ranking.by_template.items():
            summary = self._summary(ranks.numpy())
            for name, values in summary.columns().items():
                columns.setdefault(name, []).extend(list(values))
            columns["template"].extend([template] * len(summary.entity))
        return columns
