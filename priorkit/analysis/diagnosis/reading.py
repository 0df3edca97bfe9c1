"""What a diagnosis reads before it asks: images of entities, Rank_e, names that can be written, facts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from priorkit.analysis.diagnosis.plan import DiagnosisPlan
from priorkit.analysis.diagnosis.settings import DiagnoseSettings
from priorkit.core.errors import InputError
from priorkit.core.work import Work
from priorkit.data.images.entities import EntityImages, read_entities, warn_without_images
from priorkit.data.images.image_check import image_check
from priorkit.data.io.rejects import Rejects
from priorkit.inference.diagnosis.facts import Fact, read_facts
from priorkit.inference.diagnosis.language import unwritable_names
from priorkit.inference.images.feature_cache import image_status_folder

if TYPE_CHECKING:
    import torch

    from priorkit.core.process.runtime import Runtime
    from priorkit.inference.diagnosis.asking import Asker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subjects:
    """The entities that a model is asked about.

    Attributes:
        entities: images of those whose names the model's tokenizer can write.
        ranks: ``[images]`` Rank_e; None without a text tower.
        unwritable: names of the others.
        facts: about these entities.
    """

    entities: EntityImages
    ranks: torch.Tensor | None
    unwritable: Sequence[str]
    facts: Sequence[Fact]


def read_subjects(
    settings: DiagnoseSettings, work: Work[DiagnosisPlan], asker: Asker, rejects: Rejects, started: Runtime
) -> Subjects:
    """Read images and facts, rank the names.

    Raises:
        InputError: nothing is left to compare.
    """
    entities = _read_images(settings, work, rejects, started)
    ranks = _rank_e(settings, work, entities, started)
    entities, ranks, unwritable = _writable(asker, entities, ranks, settings.images)
    facts, unknown = list[Fact](), list[str]()
    if item := work.inputs.optional("facts"):
        facts, unknown = read_facts(item.path, entities.entities, rejects)
    if unknown:
        logger.warning(
            f"facts about {len(unknown)} entities without images, such as '{unknown[0]}', are left out"
        )
    return Subjects(entities, ranks, unwritable, facts)


def _read_images(
    settings: DiagnoseSettings, work: Work[DiagnosisPlan], rejects: Rejects, started: Runtime
) -> EntityImages:
    images = work.inputs.one("images")
    layout = settings.entity_layout(work.inputs)
    check = image_check(work, images, started, image_status_folder(), layout)
    entities = read_entities(images.path, rejects, check=check, layout=layout)
    warn_without_images(entities, "they have no verdict")
    if len(entities.entities) == 1:
        raise InputError("one entity: its name can be compared with no other", where=settings.images)
    if entities.single:
        logger.warning(
            "every entity has a single image, none of which can be held out: the probes say nothing, and most "
            "verdicts will be 'not decidable'"
        )
    return entities


def _rank_e(
    settings: DiagnoseSettings, work: Work[DiagnosisPlan], entities: EntityImages, started: Runtime
) -> torch.Tensor | None:
    """Rank_e of each image by the encoder's text tower; None without one."""
    item = work.inputs.optional("encoder")
    if item is None or not work.plan.payload.rank_e:
        if item is not None:
            logger.warning(f"{item.given} has no text tower; the encoder is judged only by the probe")
        return None
    from priorkit.inference.rank_e.features import encode_entities
    from priorkit.inference.rank_e.ranking import rank_by_names
    from priorkit.models.vision.loading import encoder_loader

    load = encoder_loader(item.path, started.device, text=True)
    # Broken images are counted and left out already.
    kept, encoded = encode_entities(
        load, entities, Rejects(0.0), encoder=item, images=work.inputs.one("images"),
        layout=settings.entity_layout(work.inputs), folder=None, started=started,
        batch_size=settings.batch_size, threads=settings.workers,
    )  # fmt: skip
    return rank_by_names(
        load(), kept, encoded.features.to(started.device), (settings.template,), [],
        batch_size=settings.batch_size, confusions=0, reverse=False,
    ).ranks  # fmt: skip


def _writable(
    asker: Asker, entities: EntityImages, ranks: torch.Tensor | None, source: str
) -> tuple[EntityImages, torch.Tensor | None, list[str]]:
    """The images of entities whose names the tokenizer can write, and the names of the others."""
    lost = unwritable_names(asker.tokenizer, entities.entities)
    if not lost:
        return entities, ranks, []
    rows = [row for row, name in enumerate(entities.shown) if name not in set(lost)]
    if len({entities.entity_of[row] for row in rows}) < 2:
        raise InputError(
            f"the model's tokenizer cannot write {len(lost)} of the {len(entities.entities)} names, such as "
            f"'{lost[0]}'",
            where=source,
            hint="give names in a script that it knows, with --entity-names",
        )
    logger.warning(
        f"names that the model's tokenizer cannot write: {len(lost)}, such as '{lost[0]}'; they are 'not decidable'"
    )
    return entities.keep(rows), None if ranks is None else ranks[rows], lost
