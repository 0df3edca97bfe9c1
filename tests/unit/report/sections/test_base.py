"""The table of sections: every entry loads, and a new section is one file and one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorkit.data.results.artifact_graph import Members, gather
from priorkit.report import page, sections
from priorkit.report.sections import base

TOY = """
from priorkit.report.blocks import Note, Section


def toy_section(members):
    return Section("toy", "A toy", "Counts artifacts.", [Note(f"{len(members.all)} artifacts")])
"""


def test_every_section_loads() -> None:
    assert all(callable(base.load_builder(name)) for name in base.SECTIONS)
    assert len(set(base.SECTIONS)) == len(base.SECTIONS)


def test_a_section_is_one_file_and_one_line(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_for_test.py").write_text(TOY)
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    monkeypatch.setattr(base, "SECTIONS", ("toy_for_test.toy_section", *base.SECTIONS))
    built = base.build_sections(Members(gather({"corpus": make.corpus()})))
    assert built[0].anchor == "toy"
    page.write(built[:1], "Toys", tmp_path)
    assert "1 artifacts" in (tmp_path / page.PAGE).read_text()
