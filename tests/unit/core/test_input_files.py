"""The list of an input's files: what is read is what decides the digest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.core.input_files import is_clutter, list_files
from priorkit.core.inputs import resolve
from priorkit.data.conversations.conversation import check_conversations
from priorkit.data.images.entities import read_entities
from priorkit.data.images.tagged_tables import find_tables
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import files_of
from priorkit.data.pairs.reading import check_pairs
from priorkit.data.text.documents import text_files

ROW = {
    "text": "t",
    "image": "",
    "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
}
TABLE_READERS: dict[str, Callable[[Path], list[Path]]] = {
    "rows": files_of,
    "text": text_files,
    "conversations": check_conversations,
    "pairs": check_pairs,
    "tables": find_tables,
}
CLUTTER = (
    ".a.jsonl", "._a.jsonl", ".ipynb_checkpoints/a.jsonl", "__MACOSX/a.jsonl", "@eaDir/a.jsonl", "#a.jsonl#",
    "a.jsonl~", "~$a.jsonl", "run.partial/a.jsonl", "Thumbs.db", ".git/deep/a.jsonl",
)  # fmt: skip

trees = st.dictionaries(
    st.from_regex(r"[a-c](/[a-c]){0,2}", fullmatch=True).map(lambda name: name + ".jsonl"),
    st.sampled_from(("plain", "mark", "link", "copy")),
    min_size=1,
    max_size=5,
)


def grow(root: Path, tree: dict[str, str], clutter: list[str], linked: bool) -> None:
    """Write files, some behind links or after a byte order mark, next to what is to be left out."""
    for folder in ("in", "elsewhere"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir()
    line = json.dumps(ROW) + "\n"
    for number, (name, kind) in enumerate(tree.items()):
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "link":
            (root / "elsewhere" / str(number)).write_text(line)
            path.symlink_to(root / "elsewhere" / str(number))
        else:
            path.write_text(("\ufeff" if kind == "mark" else "") + line, encoding="utf-8")
    for name in clutter:
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line)
    if linked:
        (root / "elsewhere" / "deep").mkdir()
        (root / "elsewhere" / "deep" / "z.jsonl").write_text(line)
        (root / "in" / "linked").symlink_to(root / "elsewhere")
        (root / "elsewhere" / "deep" / "back").symlink_to(root / "in")
        (root / "in" / "around").symlink_to("around")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, st.lists(st.sampled_from(CLUTTER), unique=True, max_size=4), st.booleans(), st.data())
def test_every_reader_reads_what_decides_the_digest(
    tmp_path: Path, tree: dict[str, str], clutter: list[str], linked: bool, data: st.DataObject
) -> None:
    grow(tmp_path, tree, clutter, linked)
    root = tmp_path / "in"
    hashed = {name for name in list_files(root).names if name.endswith(".jsonl")}
    assert set(tree) <= hashed
    assert not any(
        is_clutter(part) or part.endswith(".partial") for name in hashed for part in name.split("/")
    )
    for reader in TABLE_READERS.values():
        assert {path.relative_to(root).as_posix() for path in reader(root)} == hashed
    before = resolve(str(root), "x", ()).digest()
    for name in clutter:
        (root / name).write_text("changed")
    assert resolve(str(root), "x", ()).digest() == before
    (root / data.draw(st.sampled_from(sorted(hashed)))).write_text(json.dumps(ROW) + "\n" * 2)
    assert resolve(str(root), "x", ()).digest() != before


def test_a_plain_folder_keeps_its_digest(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.jsonl").write_text("1\n")
    (tmp_path / "b" / "c.txt").write_text("2\n")
    expected = "fac7ae027f9353bd"
    assert resolve(str(tmp_path), "x", ()).digest()[:16] == expected


def test_entities_behind_links_have_their_own_digest(tmp_path: Path) -> None:
    from PIL import Image

    for colour in ("red", "blue"):
        (tmp_path / "store" / colour).mkdir(parents=True)
        Image.new("RGB", (4, 4), colour).save(tmp_path / "store" / colour / "0.png")
        (tmp_path / f"of-{colour}").mkdir()
        (tmp_path / f"of-{colour}" / "cat").symlink_to(tmp_path / "store" / colour)
    inputs = [resolve(str(tmp_path / f"of-{colour}"), "images", ()) for colour in ("red", "blue")]
    assert len({item.content_key() for item in inputs}) == 2
    assert all(len(read_entities(item.path, Rejects(0)).images) == 1 for item in inputs)


def test_a_dangling_link_is_named_where_it_would_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "gone.bin").symlink_to("nowhere")
    assert files_of(tmp_path) == [tmp_path / "a.jsonl"]
    (tmp_path / "gone.jsonl").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"gone\.jsonl: the link leads nowhere"):
        files_of(tmp_path)
    with pytest.raises(InputError, match=r"the link .*gone\.jsonl leads nowhere"):
        resolve(str(tmp_path / "gone.jsonl"), "x", ())


def test_an_artifact_below_an_input_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n")
    before = resolve(str(tmp_path), "x", ()).digest()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "priorkit.json").write_text("{}")
    (tmp_path / "made" / "b.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "c.csv").write_text("text\nx\n")
    (tmp_path / "dataset_infos.json").write_text('{"default": {}}')
    assert files_of(tmp_path) == [tmp_path / "a.jsonl"]
    assert {"c.csv", "made", "dataset_infos.json"} <= set(caplog.text.replace(";", "").split())
    assert resolve(str(tmp_path), "x", ()).digest() != before  # the other two are parts of it
    assert not any("made" in name for name in list_files(tmp_path).names)


def test_names_that_are_not_utf8_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"h\xffron")
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    (tmp_path / "good.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a file name that is not UTF-8: 'h.+udcffron/a\.png'") as caught:
        list_files(tmp_path)
    str(caught.value).encode()
