from __future__ import annotations

from priorkit.data.io.rejects import Rejects


def test_an_empty_collection_is_not_replaced_by_another() -> None:
    rejects = Rejects(0.5)
    used = rejects or Rejects(0.0)
    used.add("a.jsonl", 1, "no text")
    assert used is rejects
    assert len(rejects) == 1
