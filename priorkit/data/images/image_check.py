"""The images of a data set, decoded once before anything is trained on them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.artifact import replace_durably
from priorkit.core.inputs import Input
from priorkit.core.json_text import parse_json
from priorkit.core.process import distributed
from priorkit.core.process.progress import track
from priorkit.core.process.runtime import Runtime, rank, world_size
from priorkit.core.process.threads import streamed_in_threads
from priorkit.core.work import Work
from priorkit.data.images.decoding import MAX_PIXELS, BrokenImageError, ImageRef, decode_with_kinds

logger = logging.getLogger(__name__)

CHUNK = 32
"""Images that a thread, or under torchrun a process, takes at a time."""

_VERSION = 1
"""Raised when the same images would get another status."""


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """The result of decoding an image.

    Attributes:
        fault: why it cannot be used; empty where it can.
        kinds: what is unusual about it, of :data:`priorkit.data.images.decoding.KINDS`.
    """

    fault: str = ""
    kinds: tuple[str, ...] = ()


USABLE = ImageStatus()


@dataclass(frozen=True)
class ImageCheck:
    """How the images of a source are checked before they are used.

    Attributes:
        spool_folder: where unnamed files hold images embedded in tables; None means the system's folder of
            temporary files.
        cache_file: where statuses are kept, so that later runs over the same source need not decode its
            images again; None keeps nothing.
        shared: whether the processes of a process group share the work; else each checks everything.
    """

    spool_folder: Path | None = None
    cache_file: Path | None = None
    shared: bool = False

    def statuses(self, refs: Sequence[ImageRef]) -> Mapping[int, ImageStatus]:
        """Decode all images once.

        Returns:
            The statuses of broken and unusual images by their index; all others are :data:`USABLE`.
        """
        cached = self._cached(len(refs))
        if cached is not None:
            return cached
        chunks = [range(start, min(start + CHUNK, len(refs))) for start in range(0, len(refs), CHUNK)]
        if self.shared:
            chunks = chunks[rank() :: world_size()]
        statuses: dict[int, ImageStatus] = {}
        tracked = track(
            streamed_in_threads(lambda indices: [_status(refs[index]) for index in indices], chunks),
            "check images", len(chunks), f"x {CHUNK} images",
        )  # fmt: skip
        for indices, results in tracked:
            statuses.update(
                (index, status) for index, status in zip(indices, results, strict=True) if status != USABLE
            )
        if self.shared:
            for text in distributed.all_texts(_as_text(statuses, len(refs))):
                statuses.update(_from_text(text, len(refs)) or {})
        statuses = dict(sorted(statuses.items()))
        if self.cache_file is not None and rank() == 0:
            _write_cache(self.cache_file, _as_text(statuses, len(refs)))
        return statuses

    def _cached(self, count: int) -> Mapping[int, ImageStatus] | None:
        """The statuses from an earlier run; the first process sends them to the others, which may lack its disk."""
        text = ""
        if self.cache_file is not None and rank() == 0:
            try:
                text = self.cache_file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                text = ""
        if self.shared:
            text = distributed.all_texts(text)[0]
        return _from_text(text, count)


DEFAULT_CHECK = ImageCheck()
"""By this process only, nothing cached."""


def image_check(
    work: Work[Any], source: Input, started: Runtime, cache_folder: Path | None, layout: object
) -> ImageCheck:
    """How a step checks the images of one of its inputs.

    Embedded images are spooled next to the artifact. Under torchrun the processes share the work.

    Args:
        work: the running step's.
        source: the input.
        started: the run's device; the process group is joined here.
        cache_folder: where statuses are kept, by the source's stamp or digest, so that neither a resumed
            run nor another one over the same images decodes them all again; None where not all of the
            source is checked.
        layout: how the source is read, as that decides which images it has and in what order.
    """
    distributed.start(started)
    return ImageCheck(
        spool_folder=next(folder for folder in work.path.absolute().parents if folder.is_dir()),
        cache_file=cache_folder / cache_name(source, layout) if cache_folder is not None else None,
        shared=world_size() > 1,
    )


def cache_name(source: Input, layout: object) -> str:
    """The name of the file for a source's statuses, from everything that they depend on."""
    import PIL

    text = json.dumps(
        {
            "form": _VERSION,
            "pillow": PIL.__version__,
            "pixels": MAX_PIXELS,
            "layout": repr(layout),
            "source": source.quick_key(),
            # The hub's revision is that of a repository; which of its files are meant is in what was given.
            "given": source.given if source.revision else "",
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32] + ".json"


def _status(ref: ImageRef) -> ImageStatus:
    try:
        return ImageStatus(kinds=decode_with_kinds(ref)[1])
    except BrokenImageError as error:
        return ImageStatus(str(error))


def _as_text(statuses: Mapping[int, ImageStatus], count: int) -> str:
    rows = [[index, status.fault, list(status.kinds)] for index, status in statuses.items()]
    return json.dumps({"images": count, "found": rows}, ensure_ascii=False)


def _from_text(text: str, count: int) -> dict[int, ImageStatus] | None:
    """None where there are none, or they are of other images."""
    try:
        content = parse_json(text)
        if content["images"] != count:
            return None
        return {int(index): ImageStatus(str(fault), tuple(kinds)) for index, fault, kinds in content["found"]}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _write_cache(file: Path, text: str) -> None:
    """Write a text; where the disk does not allow it, the next run decodes again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError as error:
        logger.warning(f"the images' statuses are not cached: {error.strerror} ({file.parent})")
