"""Representation alignment: how alike a language model and image encoders arrange the same image-text pairs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.progress import track
from priorkit.core.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
)
from priorkit.core.step import Step
from priorkit.core.values import Count, Words
from priorkit.core.work import Plan, Work
from priorkit.data.images.image_check import image_check
from priorkit.data.images.pairs import Pairs, check_pairs, read_pairs
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.tables import write_table
from priorkit.inference.feature_cache import image_status_folder

if TYPE_CHECKING:
    from torch import Tensor

    from priorkit.models.vision.encoder import Encoder

logger = logging.getLogger(__name__)


class AlignmentSettings(RuntimeSettings, StepSettings):
    """Options of ``priorkit representation-alignment``."""

    step: ClassVar[str] = "representation-alignment"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit representation-alignment llm world/pairs/test.parquet encoder --out alignment",
        "priorkit representation-alignment meta-llama/Llama-3.2-1B wit_1024.parquet facebook/dinov2-giant "
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K google/vit-large-patch16-224-in21k --out alignment",
    )

    llm: str = argument("Language model that reads the texts.", accepts=("llm",), hub="model")
    pairs: str = argument(
        "Image-text pairs (parquet, JSON Lines), 1024 or more; the texts should differ.",
        accepts=("world",),
        metavar="PAIRS",
        hub="dataset",
    )
    encoder: tuple[str, ...] = argument(
        "Encoders of images, with or without a text tower; the score is the mean over them.",
        accepts=("encoder",),
        hub="model",
    )
    neighbours: int = option(
        20, "Nearest neighbours that are compared, k; 20 in LSBS, 10 in platonic-rep.", ge=1
    )
    llm_pooling: Literal["mean", "last"] = option(
        "mean", "One vector of a text's tokens: their mean, or the last token."
    )
    encoder_pooling: Literal["auto", "class", "mean", "pooled"] = option(
        "auto",
        "One vector of an image's tokens: class token, mean of patches, the first that there is (auto), or "
        "the encoder's own pooled feature, which has no layers.",
    )
    llm_layers: Words = option(
        (), "Hidden states of the language model, 0 the embeddings; all where not given.", metavar="N"
    )
    encoder_layers: Words = option(
        (), "Hidden states of the encoders, numbered likewise; all where not given.", metavar="N"
    )
    clamp: float = option(
        0.95, "Quantile of absolute values that features are clamped to, as in platonic-rep; 1 clamps none.",
        gt=0, le=1, advanced=True,
    )  # fmt: skip
    cka: bool = option(True, "Also linear CKA, plain and unbiased, of the pair of layers that aligns best.")
    limit: Count = option(0, "Use the first N pairs; 0 uses all.")
    max_length: int = option(512, "Tokens of a text that are read.", ge=1, advanced=True)
    batch_size: int = option(16, "Images or texts per forward pass.", ge=1)
    resamples: int = option(1000, "Bootstrap resamples of the intervals over pairs.", ge=100, advanced=True)
    reject_limit: float = reject_limit_option("pairs")
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "fp32")


TENSORS = {
    "mutual_knn.N": "[layers of the language model, layers of encoder N] float64, every pair of layers",
    "overlap.N": "[pairs] float64, share of common neighbours of each pair at the best layers of encoder N",
    "llm_layers": "[layers] int64, numbers of the language model's hidden states",
    "encoder_layers.N": "[layers] int64, those of encoder N; -1 for its pooled feature",
}
"""What ``scores.safetensors`` holds; encoders are numbered in the order given."""


def plan(settings: AlignmentSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check models, pairs and layers from headers."""
    from priorkit.models.language.causal_lm import check_llm
    from priorkit.models.vision.loading import check_encoder, load_config
    from priorkit.models.vision.towers import depth as tower_depth

    problems = Problems(InputError)
    usage = Problems(UsageError)
    llm = _numbers(settings.llm_layers, "--llm-layers", usage)
    images = _numbers(settings.encoder_layers, "--encoder-layers", usage)
    if not settings.encoder:
        usage.add("at least one encoder is needed", where="ENCODER")
    if images and settings.encoder_pooling == "pooled":
        usage.add("has no effect with --encoder-pooling pooled", where="--encoder-layers")
    usage.raise_if_any()
    depth = 0
    try:
        depth = int(check_llm(inputs["llm"].path).get("num_hidden_layers", 0))
        _check_layers(llm, depth, "--llm-layers")
    except InputError as error:
        problems.extend(error)
    for label, item in inputs.items():
        try:
            if label == "pairs":
                check_pairs(item.path)
            elif label.startswith("encoder."):
                check_encoder(item.path, text=False)
                layers = tower_depth(load_config(item.path))
                _check_layers(images, layers or None, "--encoder-layers")
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    return Plan(
        [
            ("language model", f"{depth} layers, {settings.llm_pooling} of the tokens"),
            ("encoders", f"{len(settings.encoder)}, {settings.encoder_pooling}"),
            ("neighbours", str(settings.neighbours)),
        ]
    )


def _numbers(words: tuple[str, ...], flag: str, problems: Problems) -> list[int]:
    found: list[int] = []
    for word in words:
        try:
            found.append(int(word))
        except ValueError:
            problems.add(f"expected a number of a layer, got '{word}'", where=flag)
    return found


def _check_layers(chosen: list[int], depth: Any, flag: str) -> None:
    """Hidden states are numbered from 0, the embeddings, to the depth, and from the end by negative numbers."""
    wrong = [number for number in chosen if isinstance(depth, int) and not -depth - 1 <= number <= depth]
    if wrong:
        raise UsageError(
            f"no hidden state {wrong[0]}; a model of {depth} layers has {-depth - 1} to {depth}", where=flag
        )


@dataclass(frozen=True)
class _Side:
    """Features of one model, in a file beside the result.

    Attributes:
        features: ``[layers, pairs, width]`` fp32, mapped from the file.
        layers: their numbers.
    """

    features: Tensor
    layers: tuple[int, ...]

    def layer(self, place: int, bound: float) -> Tensor:
        """One layer ``[pairs, width]``, clamped."""
        values = self.features[place]
        return values.clamp(-bound, bound) if bound else values.clone()


def execute(settings: AlignmentSettings, work: Work) -> None:
    """Compute all hidden states into files; then neighbours layer by layer, overlaps, CKA, intervals."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    import torch
    from safetensors.numpy import save_file

    from priorkit.scoring.representations.neighbors import neighbor_overlap
    from priorkit.scoring.statistics.intervals import bootstrap_mean

    rejects = Rejects(settings.reject_limit)
    source = work.inputs.one("pairs")
    check = image_check(work, source, started, None if settings.limit else image_status_folder())
    pairs = read_pairs(source.path, rejects, check, settings.limit)
    rejects.write(work.path)
    repeated = len(pairs) - len(set(pairs.texts))
    if len(pairs) <= settings.neighbours:
        raise InputError(
            f"{len(pairs)} pairs are too few for {settings.neighbours} neighbours", where=settings.pairs
        )
    if repeated:
        logger.warning(f"{repeated} texts repeat others; their neighbours are arbitrary among equals")
    with started.autocast():
        texts = _text_side(settings, work, pairs, started.device)
    text_bound = _bound(texts, settings.clamp)
    near_texts = [
        _neighbours(texts.layer(place, text_bound), settings.neighbours, started.device)
        for place in track(range(len(texts.layers)), "language model", len(texts.layers), "layers")
    ]
    tensors: dict[str, Any] = {"llm_layers": torch.tensor(texts.layers)}
    rows: list[dict[str, Any]] = []
    overlaps: list[Tensor] = []
    for number, given in enumerate(settings.encoder):
        with started.autocast():
            images = _image_side(settings, work, number, pairs, started.device)
        bound = _bound(images, settings.clamp)
        near = [
            _neighbours(images.layer(place, bound), settings.neighbours, started.device)
            for place in track(
                range(len(images.layers)), f"encoder {number + 1}", len(images.layers), "layers"
            )
        ]
        scores = torch.stack([torch.stack([neighbor_overlap(a, b).mean() for b in near]) for a in near_texts])
        first, second = divmod(int(scores.flatten().argmax()), len(near))
        overlap = neighbor_overlap(near_texts[first], near[second])
        overlaps.append(overlap)
        interval = bootstrap_mean(overlap.numpy(), seed=settings.seed, resamples=settings.resamples)
        rows.append(
            {
                "encoder": given,
                "llm_layer": texts.layers[first],
                "encoder_layer": images.layers[second],
                **_entry("mutual_knn", interval),
                **_cka(settings, texts.layer(first, text_bound), images.layer(second, bound)),
            }
        )
        tensors |= {
            f"mutual_knn.{number}": scores,
            f"overlap.{number}": overlap,
            f"encoder_layers.{number}": torch.tensor(images.layers),
        }
        logger.info(f"  {given}: mutual k-NN {interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]")
    mean = bootstrap_mean(
        torch.stack(overlaps).mean(0).numpy(), seed=settings.seed, resamples=settings.resamples
    )
    if runtime.rank() == 0:
        write_table({name: [row[name] for row in rows] for name in rows[0]}, work.path / "table.parquet")
        save_file({name: value.numpy() for name, value in tensors.items()}, work.path / "scores.safetensors")
    work.metrics.update(
        pairs=len(pairs),
        rejected=len(rejects),
        unusual_images=rejects.unusual_images(),
        repeated_texts=repeated,
        neighbours=settings.neighbours,
        # Of k neighbours drawn at random among the others.
        chance=settings.neighbours / (len(pairs) - 1),
        mutual_knn=mean.to_dict(),
        encoders={
            row["encoder"]: {name: value for name, value in row.items() if name != "encoder"} for row in rows
        },
        tensors=TENSORS,
    )


def _text_side(settings: AlignmentSettings, work: Work, pairs: Pairs, device: Any) -> _Side:
    from priorkit.models.language.causal_lm import load_llm
    from priorkit.models.language.hidden_states import text_states
    from priorkit.models.language.tokenizer import load_tokenizer

    folder = work.inputs["llm"].path
    llm, tokenizer = load_llm(folder).to(device).eval(), load_tokenizer(folder)
    count = int(llm.config.num_hidden_layers) + 1
    layers = _chosen(settings.llm_layers, count)
    limit = min(settings.max_length, int(getattr(llm.config, "max_position_embeddings", settings.max_length)))
    batches = text_states(
        llm, tokenizer, pairs.texts, layers, settings.llm_pooling, settings.batch_size, limit
    )
    return _written(work, "texts", batches, len(pairs), layers, settings.batch_size)


def _image_side(settings: AlignmentSettings, work: Work, number: int, pairs: Pairs, device: Any) -> _Side:
    import torch

    from priorkit.data.images.prepared_batches import prepared_batches
    from priorkit.models.vision.loading import load_encoder

    encoder = load_encoder(work.inputs[f"encoder.{number}"].path, text=False)
    encoder.model.to(device)
    shape = encoder.shape
    # The stages of convolutional and hierarchical nets have widths of their own: only the last feature.
    flat = settings.encoder_pooling == "pooled" or len(set(shape.widths)) != 1
    if flat and settings.encoder_pooling != "pooled":
        logger.warning(f"{settings.encoder[number]}: its layers differ in width; its pooled feature is taken")
    if settings.encoder_pooling == "class" and not shape.prefix:
        raise InputError(
            "has no class token", where=settings.encoder[number], hint="use --encoder-pooling mean or auto"
        )
    layers = [-1] if flat else _chosen(settings.encoder_layers, len(shape.widths))
    batches = prepared_batches(pairs.images, encoder.prepare, settings.batch_size, settings.workers)

    def states() -> Iterable[Tensor]:
        with torch.no_grad():
            for batch in batches:
                yield _image_states(encoder, batch.pixels, [] if flat else layers, settings.encoder_pooling)

    return _written(work, f"images-{number}", states(), len(pairs), layers, settings.batch_size)


def _image_states(encoder: Encoder, prepared: list[Tensor], layers: list[int], pooling: Any) -> Tensor:
    """Pooled hidden states ``[batch, layers, width]``, or the encoder's feature as the only layer."""
    import torch

    pixels = encoder.batch(prepared)
    output = encoder.forward_vision(
        pixels.to(encoder.device) if isinstance(pixels, torch.Tensor) else pixels, bool(layers)
    )
    if not layers:
        return output.features[:, None].float().cpu()
    return torch.stack([output.pooled(layer, pooling) for layer in layers], 1).float().cpu()


def _chosen(words: tuple[str, ...], count: int) -> list[int]:
    """Numbers of hidden states from 0; all of them where none is chosen."""
    return [int(word) % count for word in words] or list(range(count))


def _written(
    work: Work, name: str, batches: Iterable[Tensor], items: int, layers: list[int], batch_size: int
) -> _Side:
    """Features in a file of the scratch folder, ``[layers, pairs, width]``: they need not fit in memory."""
    import numpy as np
    import torch

    file: Any = None
    done = 0
    path: Path = work.scratch / f"{name}-{runtime.rank()}.f32"
    for batch in track(batches, name, -(-items // batch_size), "batches"):
        if file is None:
            file = np.memmap(path, np.float32, "w+", shape=(len(layers), items, batch.shape[2]))
        file[:, done : done + len(batch)] = batch.transpose(0, 1).numpy()
        done += len(batch)
    if done != items:
        raise InputError(f"{items - done} images can no longer be read", where="PAIRS")
    return _Side(torch.from_numpy(file), tuple(layers))


def _bound(side: _Side, quantile: float) -> float:
    """The clamp over all layers together, as platonic-rep takes it; 0 for none."""
    from priorkit.scoring.representations.neighbors import magnitude_quantile

    if quantile == 1:
        return 0.0
    return magnitude_quantile([part for layer in side.features for part in layer.split(1 << 14)], quantile)


def _neighbours(features: Tensor, count: int, device: Any) -> Tensor:
    from priorkit.scoring.representations.neighbors import nearest_neighbors

    return nearest_neighbors(features.to(device), count).cpu()


def _cka(settings: AlignmentSettings, texts: Tensor, images: Tensor) -> dict[str, float]:
    from priorkit.scoring.representations.cka import cka_interval

    if not settings.cka:
        return {}
    return {
        **_entry("cka", cka_interval(texts, images, unbiased=False)),
        **_entry("cka_unbiased", cka_interval(texts, images, unbiased=True)),
    }


def _entry(name: str, interval: Any) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


STEP = Step(AlignmentSettings, plan, execute)
run = STEP.run
