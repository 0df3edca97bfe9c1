"""The trade-off of remediation: Rank_e on held-out images against retrieval on general pairs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorkit.core.interval import Interval
from priorkit.core.process.progress import track
from priorkit.core.work import Work
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.entities import EntityImages
from priorkit.data.io.tables import write_table
from priorkit.data.pairs.stored_pairs import Pairs
from priorkit.inference.images.batches import encode_batches
from priorkit.inference.images.features import pooled_features
from priorkit.models.vision.encoder import Encoder, l2_normalize, zero_shot_head
from priorkit.scoring.representations.rank_summary import EntityRanks, overall_ranks, summarize_ranks
from priorkit.scoring.representations.ranks import true_ranks
from priorkit.scoring.statistics.intervals import bootstrap_mean
from priorkit.training.objectives.captions import text_key
from priorkit.training.remediation.interpolation import InterpolationPath

logger = logging.getLogger(__name__)

BATCH = 64


@dataclass(frozen=True)
class TradeOffPoint:
    """One interpolated encoder.

    Attributes:
        share: 0 is the original encoder, 1 the tuned one.
        ranks: Rank_e of each held-out entity; None where no images are held out.
        overall: means over entities with bootstrap intervals, by metric.
        retrieval: mean reciprocal rank of the image and of the text of general pairs; None without pairs.
    """

    share: float
    ranks: EntityRanks | None
    overall: Mapping[str, Interval]
    retrieval: Interval | None

    def row(self) -> dict[str, Any]:
        """The figures as JSON-compatible values."""
        values: dict[str, Any] = {"share": self.share}
        for name, interval in self.overall.items():
            values[name] = interval.to_dict()
        if self.retrieval is not None:
            values["off_domain_mrr"] = self.retrieval.to_dict()
        return values


class TradeOffMeasurement:
    """Rank_e on held-out images and retrieval on general pairs, of any interpolated encoder.

    In fp32 whatever the precision of training: bf16 features have many ties among many names.

    Args:
        names: all candidate names; held-out entities are among them.
        templates: prompt templates.
        held_out: held-out images; None without.
        general: general pairs; None without.
        seed: of the bootstrap intervals.
    """

    def __init__(
        self,
        names: Sequence[str],
        templates: Sequence[str],
        held_out: EntityImages | None,
        general: Pairs | None,
        seed: int,
    ) -> None:
        self._names, self._templates, self._seed = names, templates, seed
        self._held_out, self._general = held_out, general

    def point(self, encoder: Encoder, share: float) -> TradeOffPoint:
        """Measure an encoder."""
        with torch.autocast(encoder.device.type, enabled=False):
            ranks = self._ranks(encoder) if self._held_out is not None else None
            retrieval = self._retrieval(encoder) if self._general is not None else None
        overall = overall_ranks(ranks, seed=self._seed) if ranks is not None else {}
        return TradeOffPoint(share, ranks, overall, retrieval)

    def _ranks(self, encoder: Encoder) -> EntityRanks:
        held_out = self._held_out
        if held_out is None:
            raise ValueError("no images are held out")
        head = zero_shot_head(encoder, self._names, self._templates)
        row = {name: number for number, name in enumerate(self._names)}
        entity_of_image = [held_out.entities[index] for index in held_out.entity_of]
        truth = torch.tensor([row[name] for name in entity_of_image])
        images = _encoded(encoder, held_out.images)
        return summarize_ranks(true_ranks(images, head, truth).numpy(), entity_of_image, len(self._names))

    def _retrieval(self, encoder: Encoder) -> Interval:
        """MRR over both directions; pairs with the same text are correct for one another."""
        general = self._general
        if general is None:
            raise ValueError("there are no general pairs")
        images = _encoded(encoder, general.images)
        texts = torch.cat(list(encoder.encode_texts(general.texts)))
        keys = torch.tensor([text_key(text) for text in general.texts])
        both = [_reciprocal_ranks(images, texts, keys), _reciprocal_ranks(texts, images, keys)]
        return bootstrap_mean(torch.stack(both).mean(dim=0).numpy(), seed=self._seed)


def _reciprocal_ranks(queries: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
    """1 / rank of the best correct candidate among the wrong ones, float64 ``[queries]``; ties get their mean rank."""
    reciprocal: list[Tensor] = []
    for start in range(0, len(queries), 512):
        scores = l2_normalize(queries[start : start + 512]) @ l2_normalize(candidates).T
        correct = keys[start : start + 512, None] == keys[None, :]
        best = scores.masked_fill(~correct, -torch.inf).amax(dim=1, keepdim=True)
        wrong = scores.masked_fill(correct, -torch.inf)
        rank = 1 + (wrong > best).sum(dim=1) + 0.5 * (wrong == best).sum(dim=1)
        reciprocal.append(1 / rank.double())
    return torch.cat(reciprocal)


def _encoded(encoder: Encoder, images: Sequence[ImageRef]) -> Tensor:
    """L2-normalized features ``[images, dim]``; only this process computes them."""
    batches = encode_batches(images, encoder, pooled_features, batch_size=BATCH, threads=None)
    return torch.cat([batch.features for batch in batches if batch.features is not None])


def measure_path(
    path: InterpolationPath, measurement: TradeOffMeasurement, encoder: Encoder, shares: Sequence[float]
) -> list[TradeOffPoint]:
    """Measure the encoder at each interpolation coefficient, in the order given."""
    points: list[TradeOffPoint] = []
    for share in track(list(shares), "trade-off", len(shares), "points"):
        path.move_to(share)
        points.append(measurement.point(encoder, share))
    return points


def record_trade_off(points: Sequence[TradeOffPoint], saved: float, work: Work[Any]) -> None:
    """Write the trade-off into the manifest's metrics and ``held_out_ranks.parquet``, and say the change.

    Args:
        points: from the original encoder (share 0) on; the saved one is among them.
        saved: the share that is saved.
        work: whose metrics and folder.
    """
    before, after = points[0], next(point for point in points if point.share == saved)
    work.metrics.update(before=before.row(), after=after.row(), trade_off=[point.row() for point in points])
    if before.retrieval and after.retrieval:
        old, new = before.retrieval.value, after.retrieval.value
        logger.info(f"  off-domain retrieval (MRR): {old:.3f} before, {new:.3f} after")
    if before.ranks is None:
        return
    columns = {"entity": before.ranks.entity, "images": before.ranks.images}
    for point in points:
        if point.ranks is not None:
            columns[f"mean_rank_at_{point.share:g}"] = point.ranks.mean_rank
    write_table(columns, work.path / "held_out_ranks.parquet")
    old, new = before.overall["mean_rank"].value, after.overall["mean_rank"].value
    logger.info(f"  mean Rank_e on held-out images: {old:.2f} before, {new:.2f} after (low: strong prior)")
