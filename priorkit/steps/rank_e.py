"""Rank_e: how high an encoder ranks the true name of what an image shows."""

from __future__ import annotations

import logging

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.options.specs import refuse_changed
from priorkit.core.options.templates import check_templates
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.images.entities import (
    check_entities,
    check_names_file,
    read_entities,
    read_names,
    warn_without_images,
)
from priorkit.data.images.image_check import image_check
from priorkit.data.io.rejects import Rejects
from priorkit.inference.rank_e.settings import RankSettings

logger = logging.getLogger(__name__)


def plan(settings: RankSettings, inputs: Inputs) -> Plan[tuple[str, ...]]:
    """Check the encoder from headers, the templates, and that the options fit each other.

    Returns:
        A plan with the prompt templates.
    """
    from priorkit.inference.images.encoders import check_any_encoder

    problems = Problems(UsageError)
    encoder = inputs.one("encoder").path
    config, text_tower = check_any_encoder(encoder, names=settings.by == "names")
    if settings.by == "names" and not text_tower:
        raise InputError(
            f"'{config['model_type']}' has no text tower; names cannot be ranked",
            where=str(encoder),
            hint="--by centroids ranks the nearest class centroid of held-out images instead of names",
        )
    if settings.by == "centroids":
        unused = ("candidates", "template", "template_file", "reverse")
        refuse_changed(settings, unused, problems, "has no effect with --by centroids, which uses no names")
    elif settings.template_file:
        refuse_changed(
            settings, ("template",), problems, "has no effect with --template-file, which replaces it",
            hint="put all templates into the file, one per line",
        )  # fmt: skip
    file = inputs.optional("template_file")
    if file:
        check_names_file(file.path, f"--template-file {settings.template_file}")
    templates = tuple(dict.fromkeys(read_names(file.path) if file else settings.template))
    check_templates(templates, problems)
    problems.raise_if_any()
    if candidates := inputs.optional("candidates"):
        check_names_file(candidates.path, f"--candidates {settings.candidates}")
        read_names(candidates.path)
    entities = check_entities(
        inputs.one("images").path, settings.reject_limit, settings.entity_layout(inputs)
    )
    if settings.by == "centroids" and entities is not None and entities.single:
        raise InputError(
            "every entity has a single image; none can be held out",
            where=settings.images,
            hint="--by centroids needs two images or more per entity",
        )
    prompts = f"{len(templates)} templates" if len(templates) > 1 else "".join(templates)
    ranked_by = f"names, {prompts}" if settings.by == "names" else f"centroids, {settings.folds} folds"
    return Plan([("encoder", str(config["model_type"])), ("ranked by", ranked_by)], payload=templates)


def execute(settings: RankSettings, work: Work[tuple[str, ...]]) -> None:
    """Encode images and names; count for each image how many names come before the true one."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.inference.images.encoders import any_encoder_loader
    from priorkit.inference.rank_e.features import encode_entities
    from priorkit.inference.rank_e.ranking import rank_by_centroids, rank_by_names
    from priorkit.inference.rank_e.tables import RankTables

    rejects = Rejects(settings.reject_limit)
    images = work.inputs.one("images")
    layout = settings.entity_layout(work.inputs)
    check = image_check(work, images, started, None, layout)
    entities = read_entities(images.path, rejects, verify=False, check=check, layout=layout)

    encoder = any_encoder_loader(work.inputs.one("encoder").path, started.device, text=settings.by == "names")
    with started.autocast():
        entities, encoded = encode_entities(
            encoder, entities, rejects, encoder=work.inputs.one("encoder"), images=images, layout=layout,
            folder=settings.features, started=started, batch_size=settings.batch_size,
            threads=settings.workers,
        )  # fmt: skip
        rejects.write(work.path)
        without_images = warn_without_images(entities, "they have no rank")
        features = encoded.features.to(started.device)
        if settings.by == "names":
            candidates = work.inputs.optional("candidates")
            ranking = rank_by_names(
                encoder(), entities, features, work.plan.payload,
                read_names(candidates.path) if candidates else [],
                batch_size=settings.batch_size, confusions=settings.confusions, reverse=settings.reverse,
            )  # fmt: skip
        else:
            try:
                ranking = rank_by_centroids(
                    entities, features, settings.folds, settings.seed, settings.confusions
                )
            except InputError as error:
                raise error.at(settings.images) from None
    if ranking.candidates == 1:
        logger.warning("there is only one name to rank, so every rank is 1: add entities or --candidates")
    if runtime.rank() == 0:
        from priorkit.report.plots.rank_overview import rank_overview

        tables = RankTables(ranking, entities, settings.by, settings.seed, settings.resamples)
        columns = tables.write(work.path)
        picture = rank_overview(columns, ranking.ranks.numpy(), entities, ranking.candidates, settings.by)
        (work.path / "ranks.png").write_bytes(picture)
        work.metrics.update(tables.metrics())
    work.metrics.update(
        rejected=len(rejects),
        entities_without_images=without_images,
        unusual_images=rejects.unusual_images(),
        entities_without_names=layout.names.unnamed(entities.named),
    )
    work.cost.update(features_kept=float(encoded.cached))


STEP = Step(RankSettings, plan, execute)
run = STEP.run
