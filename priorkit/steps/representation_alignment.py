"""Representation alignment: how alike a language model and image encoders arrange the same image-text pairs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.columns import check_image_folders, layout_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.tables import write_table
from priorkit.data.pairs.reading import check_pairs
from priorkit.data.pairs.stored_pairs import Pairs
from priorkit.inference.alignment_settings import AlignmentSettings
from priorkit.inference.images.input_pairs import read_input_pairs

if TYPE_CHECKING:
    from priorkit.inference.alignment import Alignment, Representation

logger = logging.getLogger(__name__)


TENSORS = {
    "mutual_knn.N": "[layers of the language model, layers of encoder N] float64, every pair of layers",
    "overlap.N": "[pairs] float64, share of common neighbours of each pair at the best layers of encoder N",
    "llm_layers": "[layers] int64, numbers of the language model's hidden states",
    "encoder_layers.N": "[layers] int64, those of encoder N; -1 for its pooled feature",
}
"""What ``scores.safetensors`` holds; encoders are numbered in the order given."""


def plan(settings: AlignmentSettings, inputs: Inputs) -> Plan[None]:
    """Check models, pairs and layers from headers."""
    from priorkit.models.language.causal_lm import check_llm
    from priorkit.models.vision.loading import check_encoder, load_config
    from priorkit.models.vision.towers import depth as tower_depth

    problems = Problems(InputError)
    usage = Problems(UsageError)
    llm_layers = _numbers(settings.llm_layers, "--llm-layers", usage)
    encoder_layers = _numbers(settings.encoder_layers, "--encoder-layers", usage)
    if not settings.encoder:
        usage.add("at least one encoder is needed", where="ENCODER")
    if encoder_layers and settings.encoder_pooling == "pooled":
        usage.add("has no effect with --encoder-pooling pooled", where="--encoder-layers")
    usage.raise_if_any()
    depth = 0
    with problems.collecting():
        depth = int(check_llm(inputs.one("llm").path).get("num_hidden_layers", 0))
        _check_layers(llm_layers, depth, "--llm-layers")
    with problems.collecting():
        check_image_folders(settings, [])
        check_pairs(inputs.one("pairs").path, layout_of(settings))
    for encoder in inputs.many("encoder"):
        with problems.collecting():
            check_encoder(encoder.path, text=False)
            _check_layers(encoder_layers, tower_depth(load_config(encoder.path)), "--encoder-layers")
    problems.raise_if_any()
    return Plan(
        [
            ("language model", f"{depth} layers, {settings.llm_pooling} of the tokens"),
            ("encoders", f"{len(settings.encoder)}, {settings.encoder_pooling}"),
            ("neighbours", str(settings.neighbours)),
        ]
    )


def _numbers(words: tuple[str, ...], flag: str, problems: Problems) -> list[int]:
    numbers: list[int] = []
    for word in words:
        try:
            numbers.append(int(word))
        except ValueError:
            problems.add(f"expected the number of a layer, got '{word}'", where=flag)
    return numbers


def _check_layers(numbers: list[int], depth: int, flag: str) -> None:
    """Hidden states count from 0, the embeddings, to the depth; negative numbers count from the end.

    Raises:
        UsageError: there is no such hidden state; never if ``depth`` is 0, unknown.
    """
    wrong = [number for number in numbers if depth and not -depth - 1 <= number <= depth]
    if wrong:
        raise UsageError(
            f"no hidden state {wrong[0]}; a model of {depth} layers has {-depth - 1} to {depth}", where=flag
        )


def execute(settings: AlignmentSettings, work: Work[None]) -> None:
    """Compute all hidden states into files; then neighbours layer by layer, overlaps, CKA, intervals."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    import torch
    from safetensors.numpy import save_file

    from priorkit.inference.alignment import (
        RepresentationReader,
        align,
        judge_alignments,
        log_alignment,
        selection_columns,
        table_columns,
    )

    rejects = Rejects(settings.reject_limit)
    pairs, repeated = _pairs(settings, work, rejects, started)
    reader = RepresentationReader(
        work.scratch, started, settings.batch_size, settings.neighbours, settings.clamp
    )
    texts = reader.texts(
        work.inputs.one("llm").path,
        pairs.texts,
        settings.llm_layers,
        settings.llm_pooling,
        settings.max_length,
    )
    tensors: dict[str, torch.Tensor] = {"llm_layers": torch.tensor(texts.layers)}
    seen: list[Representation] = []
    alignments: list[Alignment] = []
    for number, encoder in enumerate(work.inputs.many("encoder")):
        images = reader.images(
            encoder.path, number, settings.encoder[number], pairs.images, settings.encoder_layers, settings.encoder_pooling,
            settings.workers,
        )  # fmt: skip
        alignment = align(texts, images, settings.seed, settings.resamples)
        seen.append(images)
        alignments.append(alignment)
        tensors |= {
            f"mutual_knn.{number}": alignment.scores,
            f"overlap.{number}": alignment.overlap,
            f"encoder_layers.{number}": torch.tensor(images.layers),
        }
    each, mean = judge_alignments(texts, seen, alignments, settings.seed, settings.permutations)
    rows: list[dict[str, Any]] = []
    for given, images, alignment, judged in zip(settings.encoder, seen, alignments, each, strict=True):
        rows.append({"encoder": given, **table_columns(alignment, texts, images, judged, settings.cka)})
        log_alignment(given, judged)
    if len(each) > 1:
        log_alignment("mean", mean)
    if runtime.rank() == 0:
        write_table({name: [row[name] for row in rows] for name in rows[0]}, work.path / "table.parquet")
        save_file({name: value.numpy() for name, value in tensors.items()}, work.path / "scores.safetensors")
    work.metrics.update(
        pairs=len(pairs),
        rejected=len(rejects),
        unusual_images=rejects.unusual_images(),
        repeated_texts=repeated,
        neighbours=settings.neighbours,
        # Expected overlap of k neighbours drawn at random among the others, for one pair of layers; the null
        # takes the maximum over pairs of layers.
        chance=settings.neighbours / (len(pairs) - 1),
        mutual_knn=mean.interval.to_dict(),
        **selection_columns(mean),
        encoders={
            row["encoder"]: {name: value for name, value in row.items() if name != "encoder"} for row in rows
        },
        tensors=TENSORS,
    )


def _pairs(
    settings: AlignmentSettings, work: Work[None], rejects: Rejects, started: runtime.Runtime
) -> tuple[Pairs, int]:
    """The pairs, and the number of texts that repeat others."""
    pairs = read_input_pairs(work, "pairs", started, rejects, layout_of(settings), limit=settings.limit)
    rejects.write(work.path)
    if len(pairs) <= settings.neighbours:
        raise InputError(
            f"{len(pairs)} pairs are too few for {settings.neighbours} neighbours", where=settings.pairs
        )
    repeated = len(pairs) - len(set(pairs.texts))
    if repeated:
        logger.warning(f"{repeated} texts repeat others; their neighbours are arbitrary among equals")
    return pairs, repeated


STEP = Step(AlignmentSettings, plan, execute)
run = STEP.run
