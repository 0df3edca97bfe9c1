"""The images of a data set, decoded once before anything is trained on them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.artifact import replace_durably
from priorkit.core.progress import track
from priorkit.core.runtime import rank, world_size
from priorkit.data.conversations.conversation import Conversation
from priorkit.data.images.decoding import (
    MAX_PIXELS,
    BrokenImageError,
    ImageRef,
    Spool,
    decode,
    decode_and_tell,
)
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.threads import streamed_in_threads

logger = logging.getLogger(__name__)

CHUNK = 32
"""Images that a thread takes at a time, and that a process takes before it is the next one's turn."""

_FORM = 1
"""Raised when the same images would be judged otherwise."""


@dataclass(frozen=True, slots=True)
class Look:
    """What decoding an image has told.

    Attributes:
        fault: why it cannot be used; empty where it can.
        kinds: what is unusual about it, of :data:`priorkit.data.images.decoding.KINDS`.
    """

    fault: str = ""
    kinds: tuple[str, ...] = ()


FINE = Look()

Exchange = Callable[[str], Sequence[str]]
"""Gives the texts of all processes, in their order, for this one's."""


@dataclass(frozen=True)
class ImageCheck:
    """How the images of a source are looked at before they are used.

    Attributes:
        spool: folder in which images embedded in tables are put into an unnamed file; None leaves them in
            memory.
        kept: where to keep what was found, so that later runs over the same source need not look again.
        exchange: shares the work among processes; None for one that looks at everything itself.
    """

    spool: Path | None = None
    kept: Path | None = None
    exchange: Exchange | None = None

    def open_spool(self) -> Spool | None:
        """A new file for embedded images, where they are not to stay in memory."""
        return None if self.spool is None else Spool(self.spool)

    def looks(self, refs: Sequence[ImageRef]) -> Mapping[int, Look]:
        """Decode all images once.

        Returns:
            Place -> what was found, of the images that are broken or unusual; :data:`FINE` are all others.
        """
        known = self._known(len(refs))
        if known is not None:
            return known
        chunks = [range(start, min(start + CHUNK, len(refs))) for start in range(0, len(refs), CHUNK)]
        if self.exchange is not None:
            chunks = chunks[rank() :: world_size()]
        found: dict[int, Look] = {}
        tracked = track(
            streamed_in_threads(lambda places: [_look(refs[place]) for place in places], chunks),
            "check images", len(chunks), f"x {CHUNK} images",
        )  # fmt: skip
        for places, looks in tracked:
            found.update((place, look) for place, look in zip(places, looks, strict=True) if look != FINE)
        if self.exchange is not None:
            for text in self.exchange(_as_text(found, len(refs))):
                found.update(_from_text(text, len(refs)) or {})
        found = dict(sorted(found.items()))
        if self.kept is not None and rank() == 0:
            _keep(self.kept, _as_text(found, len(refs)))
        return found

    def _known(self, count: int) -> Mapping[int, Look] | None:
        """What an earlier run found; the first process tells the others, which need not see its disk."""
        text = ""
        if self.kept is not None and rank() == 0:
            try:
                text = self.kept.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                text = ""
        if self.exchange is not None:
            text = self.exchange(text)[0]
        return _from_text(text, count)


PLAIN = ImageCheck()
"""In memory, by this process, nothing kept."""


def name_of_kept(**source: Any) -> str:
    """A file name for what is found about a source's images, by all that it depends on."""
    import PIL

    text = json.dumps(
        {"form": _FORM, "pillow": PIL.__version__, "pixels": MAX_PIXELS, **source}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32] + ".json"


def _look(ref: ImageRef) -> Look:
    try:
        return Look(kinds=decode_and_tell(ref)[1])
    except BrokenImageError as error:
        return Look(str(error))


def _as_text(found: Mapping[int, Look], count: int) -> str:
    rows = [[place, look.fault, list(look.kinds)] for place, look in found.items()]
    return json.dumps({"images": count, "found": rows}, ensure_ascii=False)


def _from_text(text: str, count: int) -> dict[int, Look] | None:
    """None where there is nothing, or it is about other images."""
    try:
        content = json.loads(text)
        if content["images"] != count:
            return None
        return {int(place): Look(str(fault), tuple(kinds)) for place, fault, kinds in content["found"]}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _keep(file: Path, text: str) -> None:
    """Keep a text; a disk that does not let us costs time in the next run, not this run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError as error:
        logger.warning(f"what was found about the images is not kept: {error.strerror} ({file.parent})")


def decodable(
    conversations: Iterable[tuple[str, int, Conversation]], rejects: Rejects
) -> Iterator[tuple[str, int, Conversation]]:
    """Let through the conversations all of whose images decode; the others go to ``rejects``, in order."""
    for item, reason in streamed_in_threads(lambda item: _fault(item[2]), conversations):
        if reason:
            rejects.add(item[0], item[1], reason)
        else:
            yield item


def _fault(conversation: Conversation) -> str:
    """Why an image of a conversation cannot be used; empty where all can."""
    for image in conversation.images:
        try:
            decode(image)
        except BrokenImageError as error:
            return f"{conversation.id}: {error}"
    return ""
