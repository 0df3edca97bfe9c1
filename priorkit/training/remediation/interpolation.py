"""What remediation gains and costs along the line from the original weights to the tuned ones (WiSE-FT)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorkit.core.interval import Interval
from priorkit.core.progress import track
from priorkit.data.images.decoding import ImageRef, decode
from priorkit.data.images.entities import EntityImages
from priorkit.data.images.pairs import Pairs
from priorkit.models.vision.encoder import Encoder, l2_normalize, zero_shot_head
from priorkit.scoring.representations.rank_summary import EntityRanks, overall_ranks, summarise_ranks
from priorkit.scoring.representations.ranks import true_ranks
from priorkit.scoring.statistics.intervals import bootstrap_mean
from priorkit.training.objectives.contrastive import text_key

BATCH = 64


@dataclass(frozen=True)
class TradeOffPoint:
    """One encoder on the line.

    Attributes:
        share: 0 is the original encoder, 1 the tuned one.
        ranks: Rank_e of each held-out entity; None where no images are held out.
        overall: means over entities with bootstrap intervals, by measure.
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
    """Rank_e on held-out images and retrieval on general pairs, of any encoder on the line.

    All of it in fp32, whatever the precision of training: bf16 features tie massively among many names.

    Args:
        names: all candidate names; held-out entities are among them.
        templates: texts that stand for an entity.
        held_out: images that were not trained on; None for none.
        general: general pairs; None for none.
        seed: of the intervals.
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
        shown = [held_out.entities[index] for index in held_out.entity_of]
        truth = torch.tensor([row[name] for name in shown])
        images = encoder.encode_images(_batches(encoder, held_out.images))
        return summarise_ranks(true_ranks(images, head, truth).numpy(), shown, len(self._names))

    def _retrieval(self, encoder: Encoder) -> Interval:
        """MRR over both directions; pairs with the same text are all right for one another."""
        general = self._general
        if general is None:
            raise ValueError("there are no general pairs")
        images = encoder.encode_images(_batches(encoder, general.images))
        texts = torch.cat(list(encoder.encode_texts(general.texts)))
        keys = torch.tensor([text_key(text) for text in general.texts])
        found = torch.stack([_reciprocal(images, texts, keys), _reciprocal(texts, images, keys)]).mean(dim=0)
        return bootstrap_mean(found.numpy(), seed=self._seed)


def _reciprocal(queries: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
    """1 / rank of the best right candidate among the wrong ones, float64 ``[queries]``; ties count half."""
    found: list[Tensor] = []
    for start in range(0, len(queries), 512):
        scores = l2_normalize(queries[start : start + 512]) @ l2_normalize(candidates).T
        right = keys[start : start + 512, None] == keys[None, :]
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        wrong = scores.masked_fill(right, -torch.inf)
        rank = 1 + (wrong > best).sum(dim=1) + 0.5 * (wrong == best).sum(dim=1)
        found.append(1 / rank.double())
    return torch.cat(found)


def _batches(encoder: Encoder, images: Sequence[ImageRef]) -> Iterator[Tensor | list[Tensor]]:
    for start in range(0, len(images), BATCH):
        yield encoder.batch([encoder.prepare(decode(ref)) for ref in images[start : start + BATCH]])


class InterpolationPath:
    """The weights between the original encoder and the tuned one (Wortsman et al. 2022, WiSE-FT).

    Args:
        model: the tuned model; :meth:`set` changes it in place.
        original: the original model, of the same architecture.
    """

    def __init__(self, model: Any, original: Any) -> None:
        self._model = model
        self._before = dict(original.named_parameters())
        # What did not change need not be kept twice.
        self._after = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if not torch.equal(parameter, self._before[name])
        }

    @torch.no_grad()
    def set(self, share: float) -> None:
        """Put the model at ``(1 - share) original + share tuned``; exactly either one at 0 and at 1."""
        parameters = dict(self._model.named_parameters())
        for name, after in self._after.items():
            before = self._before[name]
            parameters[name].copy_(after if share == 1.0 else torch.lerp(before, after, share))


def measure_path(
    line: InterpolationPath, measurement: TradeOffMeasurement, encoder: Encoder, shares: Sequence[float]
) -> list[TradeOffPoint]:
    """Measure the encoder at each share, in the order given."""
    found: list[TradeOffPoint] = []
    for share in track(list(shares), "trade-off", len(shares), "points"):
        line.set(share)
        found.append(measurement.point(encoder, share))
    return found
