"""What remediation reads: entity images, held-out images, general pairs, names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from priorkit.core.errors import UsageError
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.columns import layout_of
from priorkit.data.images.entities import (
    EntityImages,
    candidate_names,
    read_entities,
    read_names,
    split_entities,
    warn_without_images,
    with_known_spelling,
)
from priorkit.data.images.image_check import image_check
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.stored_pairs import Pairs
from priorkit.inference.images.feature_cache import image_status_folder
from priorkit.inference.images.input_pairs import read_input_pairs
from priorkit.training.remediation.settings import DistillEncoderSettings


@dataclass(frozen=True)
class RemediationData:
    """All data of a run.

    Attributes:
        entities: the entity images that are trained on.
        without_images: number of entities without a usable image.
        held_out: entity images for measuring; None without.
        replay: general pairs that are trained on; None without.
        off_domain: general pairs for measuring; None without.
        names: the candidate names; those of the entities are among them.
        rejects: the images that could not be used, and unusual ones.
    """

    entities: EntityImages
    without_images: int
    held_out: EntityImages | None
    replay: Pairs | None
    off_domain: Pairs | None
    names: tuple[str, ...]
    rejects: Rejects

    @property
    def measurable(self) -> bool:
        """Whether there is anything to measure the trade-off on."""
        return self.held_out is not None or self.off_domain is not None

    def metrics(self) -> dict[str, Any]:
        """The counts of the manifest."""
        return {
            "entities": len(self.entities.entities),
            "entities_without_images": self.without_images,
            "names": len(self.names),
            "images": len(self.entities.images),
            "held_out_images": len(self.held_out.images) if self.held_out else 0,
            "rejected": len(self.rejects),
            "unusual_images": self.rejects.unusual_images(),
        }


def read_data(settings: DistillEncoderSettings, work: Work[Any], runtime: Runtime) -> RemediationData:
    """Read and check all images and pairs; rejected rows are written to the artifact.

    Raises:
        InputError: too many images cannot be used.
        UsageError: no image can be held out.
    """
    rejects = Rejects(settings.reject_limit)

    def read_pairs_of(name: str) -> Pairs:
        return read_input_pairs(work, name, runtime, rejects, layout_of(settings))

    entities, held_out = _read_entity_images(settings, work, rejects, runtime)
    off_domain = read_pairs_of("off_domain") if settings.off_domain else None
    names_file = work.inputs.optional("names")
    extra_names = read_names(names_file.path) if names_file else []
    without_images = warn_without_images(entities, "nothing is learned about them")
    replay = read_pairs_of("replay") if settings.replays else None
    rejects.write(work.path)
    names = candidate_names(entities.named, [*(held_out.named if held_out else ()), *extra_names])
    return RemediationData(entities, without_images, held_out, replay, off_domain, names, rejects)


def _read_entity_images(
    settings: DistillEncoderSettings, work: Work[Any], rejects: Rejects, runtime: Runtime
) -> tuple[EntityImages, EntityImages | None]:
    """The images that are trained on, and the held-out ones."""

    def read(name: str) -> EntityImages:
        source, layout = work.inputs.one(name), settings.entity_layout(work.inputs)
        # A split of the images is that which is trained on.
        layout = layout if name == "images" else replace(layout, split="")
        check = image_check(work, source, runtime, image_status_folder(), layout)
        return read_entities(source.path, rejects, check=check, layout=layout)

    entities = read("images")
    if settings.held_out:
        # The same entity, however the two sources spell its name.
        held_out = with_known_spelling(read("held_out"), entities.named)
        warn_without_images(held_out, "they are not held out")
        return entities, held_out
    if not settings.held_out_share:
        return entities, None
    trained, held_out = split_entities(entities, settings.held_out_share, settings.seed)
    if not held_out.images:
        raise UsageError("every entity has a single image; none can be held out", where="--held-out-share")
    return trained, held_out
