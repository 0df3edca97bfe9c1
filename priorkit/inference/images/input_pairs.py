"""The image-text pairs of a step's input."""

from __future__ import annotations

from typing import Any

from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.columns import RowLayout
from priorkit.data.images.image_check import image_check
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import read_pairs
from priorkit.data.pairs.stored_pairs import Pairs
from priorkit.inference.images.feature_cache import image_status_folder


def read_input_pairs(
    work: Work[Any],
    name: str,
    runtime: Runtime,
    rejects: Rejects,
    layout: RowLayout,
    *,
    limit: int = 0,
    with_regions: bool = False,
) -> Pairs:
    """Read the pairs of an input, with its images checked and their statuses kept for later runs.

    Args:
        work: the running step's.
        name: of the input.
        runtime: the run's device.
        rejects: takes broken rows and images.
        layout: the columns of images and texts, and where the images are.
        limit: as :func:`priorkit.data.pairs.reading.read_pairs`; with a limit no statuses are kept.
        with_regions: whether the images' regions are read too.

    Raises:
        InputError: nothing is left, or a file is damaged.
    """
    source = work.inputs.one(name)
    check = image_check(work, source, runtime, None if limit else image_status_folder(), layout)
    return read_pairs(source.path, rejects, check, limit, layout, with_regions=with_regions)
