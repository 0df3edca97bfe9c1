"""Rank_e: how high an encoder ranks the true name of what an image shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
)
from priorkit.core.step import Step
from priorkit.core.templates import check_templates
from priorkit.core.work import Plan, Work
from priorkit.data.images.entities import (
    EntityImages,
    name_suffixes,
    read_entities,
    read_names,
    warn_without_images,
)
from priorkit.data.images.image_check import image_check
from priorkit.data.io.formats import suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.tables import write_table
from priorkit.inference.name_ranking import Ranked, rank_names, wrong_names

if TYPE_CHECKING:
    from torch import Tensor

    from priorkit.models.vision.encoder import Encoder

logger = logging.getLogger(__name__)

SIGN = "a low mean rank is a strong prior"
"""The sign convention, written on every output."""

PHOTO = ("a photo of a {}",)


class RankSettings(RuntimeSettings, StepSettings):
    """Options of ``priorkit rank-e``."""

    step: ClassVar[str] = "rank-e"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit rank-e encoder world/entity_images/test --out ranks",
        "priorkit rank-e openai/clip-vit-base-patch32 birds/ --candidates species.txt "
        '--template "a photo of a {}, a kind of bird" --out bird-ranks',
    )

    encoder: str = argument(
        "Encoder of images; with a text tower (CLIP, SigLIP ...) to rank names.",
        accepts=("encoder",),
        hub="model",
    )
    images: str = argument(
        "Entity images: a folder per entity, metadata.jsonl, or parquet.",
        accepts=("world",),
        metavar="IMAGES",
        hub="dataset",
    )
    by: Literal["names", "centroids"] = option(
        "names",
        "What images are ranked by: names, or class centroids of held-out folds (no text tower needed).",
    )
    candidates: str | None = option(
        None,
        "File of further names to rank among: a name per line, or JSON Lines or parquet with a column of names.",
        accepts=("world",),
        metavar="FILE",
    )
    template: tuple[str, ...] = option(
        PHOTO, "Text that stands for an entity, {} being its name; repeat to average several."
    )
    template_file: str | None = option(
        None, "File of templates in place of --template, one per line.", accepts=("world",), metavar="FILE"
    )
    reverse: bool = option(
        False, "Also rank the images for each name: how many images of others come before its own."
    )
    folds: int = option(
        5, "Folds that an entity's images are dealt into, for --by centroids.", ge=2, advanced=True
    )
    batch_size: int = option(64, "Images or texts per forward pass.", ge=1)
    confusions: int = option(
        3,
        "Names reported per entity that are most similar to its images without being its own.",
        ge=0,
        advanced=True,
    )
    resamples: int = option(
        1000, "Bootstrap resamples of the intervals over entities.", ge=100, advanced=True
    )
    reject_limit: float = reject_limit_option("images")
    features: str | None = option(
        None,
        "Folder that keeps image features for later runs; the user's cache folder where not given.",
        metavar="DIR",
        changes_result=False,
        advanced=True,
    )
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "fp32")


def plan(settings: RankSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check the encoder from headers, the templates, and that the options fit each other."""
    from priorkit.models.vision.loading import check_encoder

    problems = Problems(UsageError)
    config = check_encoder(inputs["encoder"].path, text=False)
    if settings.by == "names" and "text_config" not in config:
        raise InputError(
            f"'{config['model_type']}' has no text tower beside an image tower; names cannot be ranked",
            where=str(inputs["encoder"].path),
            hint="--by centroids ranks the nearest class centroid of held-out images in place of names",
        )
    if settings.by == "centroids":
        unused = {
            "--candidates": settings.candidates,
            "--template": settings.template != PHOTO,
            "--template-file": settings.template_file,
            "--reverse": settings.reverse,
        }
        for flag, given in unused.items():
            if given:
                problems.add("has no effect with --by centroids, which uses no names", where=flag)
    elif settings.template_file and settings.template != PHOTO:
        problems.add(
            "has no effect beside --template-file, which takes its place", where="--template",
            hint="put all templates into the file, one per line",
        )  # fmt: skip
    templates = _templates(settings, inputs)
    check_templates(templates, problems)
    problems.raise_if_any()
    if settings.candidates:
        path = inputs["candidates"].path
        if not path.is_file() or suffix_of(path, name_suffixes()) is None:
            raise InputError(
                f"expected a file of names ({', '.join(name_suffixes())})",
                where=f"--candidates {settings.candidates}",
            )
    what = f"{len(templates)} templates" if len(templates) > 1 else "".join(templates)
    return Plan(
        [
            ("encoder", str(config["model_type"])),
            (
                "ranked by",
                f"names, {what}" if settings.by == "names" else f"centroids, {settings.folds} folds",
            ),
        ],
        payload=templates,
    )


def _templates(settings: RankSettings, inputs: Mapping[str, Input]) -> tuple[str, ...]:
    given = read_names(inputs["template_file"].path) if settings.template_file else settings.template
    return tuple(dict.fromkeys(given))


def execute(settings: RankSettings, work: Work) -> None:
    """Embed images and names, count for each image how many names come before the true one."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.core import distributed
    from priorkit.inference.encode import embed_images
    from priorkit.inference.feature_cache import FeatureStore, cache_folder
    from priorkit.models.vision.loading import load_encoder

    distributed.start(started)
    rejects = Rejects(settings.reject_limit)
    source = work.inputs["images"]
    listed = read_entities(source.path, rejects, verify=False, check=image_check(work, source, started, None))
    loaded: list[Encoder] = []

    def encoder() -> Encoder:
        if not loaded:
            loaded.append(load_encoder(work.inputs["encoder"].path, text=settings.by == "names"))
            loaded[0].model.to(started.device)
        return loaded[0]

    store = FeatureStore(
        Path(settings.features).expanduser() if settings.features else cache_folder(),
        {
            "encoder": work.inputs["encoder"].digest(),
            "images": source.digest(),
            "of": "pooled image features",
            "precision": started.precision,
            "device": started.device.type,
            "batch_size": settings.batch_size,
        },
    )
    with started.autocast():
        features, rows, kept = embed_images(
            encoder, listed.images, store, rejects, source=source.given, device=started.device,
            batch_size=settings.batch_size, threads=settings.workers,
        )  # fmt: skip
        if kept:
            logger.info(f"  image features kept from before: {store.path}")
        rejects.write(work.path)
        entities = listed if len(rows) == len(listed.images) else listed.keep(rows)
        without = warn_without_images(entities, "they have no rank")
        if settings.by == "names":
            extra = read_names(work.inputs["candidates"].path) if settings.candidates else []
            found = rank_names(
                encoder(), entities, features.to(started.device), work.plan.payload, extra,
                batch_size=settings.batch_size, confusions=settings.confusions, reverse=settings.reverse,
            )  # fmt: skip
        else:
            found = _rank_centroids(settings, entities, features.to(started.device))
    if runtime.rank() == 0:
        _report(settings, work, entities, found)
    work.metrics.update(
        rejected=len(rejects), entities_without_images=without, unusual_images=rejects.unusual_images()
    )
    work.cost.update(features_kept=float(kept))


def _rank_centroids(settings: RankSettings, entities: EntityImages, features: Tensor) -> Ranked:
    import torch

    from priorkit.scoring.representations.centroids import assign_folds, centroid_ranks, centroids
    from priorkit.scoring.representations.ranks import most_similar

    group = torch.tensor(entities.entity_of, device=features.device)
    folds = assign_folds(
        [ref.name for ref in entities.images], entities.entity_of, settings.folds, settings.seed
    )
    ranks = centroid_ranks(features, group, folds.to(features.device))
    alone = int(ranks.isnan().sum())
    if alone == len(entities.entities):
        raise InputError(
            "every entity has a single image; none can be held out", where=settings.images,
            hint="--by centroids needs two images or more per entity",
        )  # fmt: skip
    if alone:
        logger.warning(f"{alone} entities have a single image, which cannot be held out; they have no rank")
    heads = centroids(features, group, len(entities.entities))
    confused: list[list[str]] = []
    if settings.confusions:
        rows = most_similar(heads, heads, settings.confusions + 1)[1].tolist()
        confused = wrong_names(rows, settings.confusions, lambda row: entities.entities[row])
    return Ranked(ranks, len(heads), confused, facts={"entities_with_one_image": alone})


def _report(settings: RankSettings, work: Work, entities: EntityImages, found: Ranked) -> None:
    """Write tables, tensors and the picture; fill in the manifest's figures."""
    import numpy as np
    from safetensors.numpy import save_file

    from priorkit.report.plots.rank_overview import rank_overview
    from priorkit.scoring.representations.rank_summary import overall_ranks, summarize_ranks

    def summary_of(ranks: Any) -> Any:
        known = ~np.isnan(ranks)
        shown = [name for name, ranked in zip(entities.shown, known, strict=True) if ranked]
        return summarize_ranks(ranks[known], shown, found.candidates)

    def overall(summary: Any) -> dict[str, dict[str, float | None]]:
        intervals = overall_ranks(summary, seed=settings.seed, resamples=settings.resamples)
        return {name: i.to_dict() for name, i in intervals.items()}

    ranks = found.ranks.numpy()
    summary = summary_of(ranks)
    columns: dict[str, Any] = dict(summary.columns())
    tensors = {"image_rank": ranks, "entity_mean_rank": summary.mean_rank}
    reverse: dict[str, Any] = {}
    if found.reverse is not None:
        among = len(entities.images) - np.bincount(entities.entity_of) + 1
        back = summarize_ranks(found.reverse.numpy(), entities.shown, 2)
        tensors["image_reverse_rank"] = found.reverse.numpy()
        columns["reverse_mean_rank"] = back.mean_rank
        columns["reverse_percentile"] = (back.mean_rank - 1) / np.maximum(among - 1, 1)
        columns["reverse_mrr"] = back.mrr
        reverse = {"reverse": {name: overall(back)[name] for name in ("mean_rank", "mrr", "recall_at_1")}}
    if found.confused:
        names = dict(zip(entities.entities, found.confused, strict=True))
        columns["confused_with"] = [names[name] for name in summary.entity]
    by_template: dict[str, Any] = {}
    if found.by_template:
        each = {template: summary_of(values.numpy()) for template, values in found.by_template.items()}
        by_template = {"templates": {template: overall(summary) for template, summary in each.items()}}
        tensors["template_image_rank"] = np.stack([values.numpy() for values in found.by_template.values()])
        write_table(_template_columns(each), work.path / "templates.parquet", {"sign": SIGN})
    write_table(columns, work.path / "table.parquet", {"sign": SIGN})
    write_table(
        {"path": [ref.name for ref in entities.images], "entity": entities.shown},
        work.path / "images.parquet",
    )
    save_file(tensors, work.path / "scores.safetensors", metadata={"sign": SIGN})
    (work.path / "ranks.png").write_bytes(
        rank_overview(
            columns, ranks, entities, found.candidates, "names" if settings.by == "names" else "centroids"
        )
    )
    work.metrics.update(
        entities=len(summary.entity),
        images=len(entities.images),
        candidates=found.candidates,
        sign=SIGN,
        ranked_by=settings.by,
        **found.facts,
        **overall(summary),
        **reverse,
        **by_template,
    )


def _template_columns(each: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A row per template and entity."""
    columns: dict[str, list[Any]] = {"template": []}
    for template, summary in each.items():
        for name, values in summary.columns().items():
            columns.setdefault(name, []).extend(list(values))
        columns["template"].extend([template] * len(summary.entity))
    return columns


STEP = Step(RankSettings, plan, execute)
run = STEP.run
