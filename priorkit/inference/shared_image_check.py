"""How steps look at images before they use them: shared among processes, remembered. A part of several steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from priorkit.core import runtime
from priorkit.core.inputs import Input
from priorkit.core.work import Work
from priorkit.data.images.image_check import Exchange, ImageCheck, name_of_kept

if TYPE_CHECKING:
    import torch


def image_check(
    work: Work, label: str, started: runtime.Runtime, reader: str = "pairs", keep: bool = True
) -> ImageCheck:
    """How to look at the images of an input.

    Embedded images are spooled beside the result. What was found is kept in the user's cache folder, by the
    source's stamp or digest, so that neither a resumed run nor another one over the same images decodes
    them all again.

    Args:
        work: the running step's.
        label: of the input.
        started: the run's device; the process group is joined here.
        reader: what reads the source, as that decides which images it has.
        keep: whether all of the source is looked at, so that what was found can be kept.
    """
    from priorkit.core import distributed
    from priorkit.inference.feature_cache import cache_folder

    distributed.start(started)
    return ImageCheck(
        spool=next(folder for folder in work.path.absolute().parents if folder.is_dir()),
        kept=cache_folder().with_name("images") / _name(work.inputs[label], reader) if keep else None,
        exchange=_exchange(started.device) if runtime.world_size() > 1 else None,
    )


def _name(source: Input, reader: str) -> str:
    # The hub's revision is that of a repository; which of its files are meant stands in what was given.
    given = source.given if source.revision else ""
    return name_of_kept(reader=reader, source=source.stamp() or source.digest(), given=given)


def _exchange(device: torch.device) -> Exchange:
    """Texts of all processes: each writes its own row of a table of bytes, whose sum is the whole."""

    def exchange(text: str) -> Sequence[str]:
        import numpy as np
        import torch

        from priorkit.core import distributed

        content, size, number = text.encode(), runtime.world_size(), runtime.rank()
        lengths = torch.zeros(size, dtype=torch.int64, device=device)
        lengths[number] = len(content)
        longest = max(1, int(distributed.total(lengths).max()))
        table = torch.zeros(size, longest, dtype=torch.uint8, device=device)
        own = np.frombuffer(content, dtype=np.uint8).copy()
        table[number, : len(content)] = torch.from_numpy(own).to(device)
        rows = distributed.total(table).cpu().numpy()
        return [row[:length].tobytes().decode() for row, length in zip(rows, lengths.tolist(), strict=True)]

    return exchange
