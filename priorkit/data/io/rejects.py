"""Rejected rows: counted, written with their reason, tolerated up to a limit."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

from priorkit.core.errors import InputError
from priorkit.core.process.runtime import rank
from priorkit.data.images.decoding import KINDS

logger = logging.getLogger(__name__)

REJECTS = "rejects.jsonl"


class Rejects:
    """Collects rows that could not be used.

    Args:
        limit: the tolerated share of broken rows, 0 to 1.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.rows: list[dict[str, str | int]] = []
        self.total = 0
        self.unusual: Counter[str] = Counter()
        """Images that are used, by what is unusual about them."""

    def __len__(self) -> int:
        return len(self.rows)

    def __bool__(self) -> bool:
        # True also while it is empty: ``rejects or Rejects(0.0)`` must not replace a collection in use.
        return True

    def accept(self, count: int = 1) -> None:
        """Count usable rows."""
        self.total += count

    def add(self, file: str, row: int, reason: str, region: int = 0, *, accepted: bool = False) -> None:
        """Add a broken row, or a region of one; both count from 1, as editors count lines.

        Args:
            file: the file.
            row: the row's number.
            reason: why it cannot be used.
            region: the region's number in the row; 0 for the row itself.
            accepted: whether the row was counted as usable before.
        """
        self.total += not accepted
        self.rows.append(
            {"file": file, "row": row, **({"region": region} if region else {}), "reason": reason}
        )

    def withdraw(self, file: str, row: int, reason: str) -> None:
        """Reject a row that was accepted before."""
        self.add(file, row, reason)
        self.total -= 1

    def unusual_images(self) -> dict[str, int]:
        """How many images of each kind were used, for the manifest."""
        return {kind: self.unusual[kind] for kind in KINDS}

    def take_from(self, other: Rejects, start: int, stop: int) -> int:
        """Add rows ``start`` to ``stop`` of another collection; returns ``stop``."""
        self.rows.extend(other.rows[start:stop])
        self.total += stop - start
        return stop

    def raise_if_over_limit(self) -> None:
        """Check that the share of broken rows is within the limit; warn if there are any.

        Raises:
            InputError: naming the first broken rows and the share.
        """
        if not self.rows:
            return
        share = len(self.rows) / self.total
        first = self.rows[0]
        region = f", region {first['region']}" if "region" in first else ""
        text = (
            f"{len(self.rows)} of {self.total} rows are broken ({share:.2%}); "
            f"the first: {first['file']}:{first['row']}{region}: {first['reason']}"
        )
        if share > self.limit:
            raise InputError(
                text,
                hint=f"fix or remove them, or allow a larger share with --reject-limit (now {self.limit})",
            )
        logger.warning(text)

    def write(self, folder: Path) -> None:
        """Write the broken rows into the artifact's folder, if there are any."""
        if self.rows and rank() == 0:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows]
            (folder / REJECTS).write_text("".join(lines), encoding="utf-8")
