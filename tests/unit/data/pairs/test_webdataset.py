from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import decode
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import check_pairs, read_pairs
from priorkit.data.pairs.webdataset import samples_of


def encoded(seed: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            add(archive, name, content)
    return path


def reasons(rejects: Rejects) -> list[str]:
    return [str(row["reason"]) for row in rejects.rows]


def test_pairs_of_every_kind_of_member(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        ("./sub/0001.png", encoded(1)),
        ("./sub/0001.txt", b" a heron\n"),
        ("0002.JPG", encoded(2, "JPEG")),
        ("0002.json", json.dumps({"caption": "an egret", "width": 8}).encode()),
        ("0003.seg.png", encoded(9)),
        ("0003.webp", encoded(3, "WEBP")),
        ("0003.text", b"ein Kranich"),
    )  # fmt: skip
    rejects = Rejects(0.0)
    pairs = read_pairs(path, rejects)
    assert tuple(pairs.texts) == ("a heron", "an egret", "ein Kranich")
    assert len(rejects) == 0
    assert all(ref.span is not None and ref.content is None for ref in pairs.images)
    shown = np.asarray(decode(pairs.images[0]))
    assert np.array_equal(shown, np.asarray(Image.open(io.BytesIO(encoded(1)))))
    assert pairs.images[0].name == "a.tar:sub/0001"


def test_a_folder_of_shards_ignores_tables_next_to_them(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"{number:05}.tar", ("1.png", encoded(number)), ("1.txt", b"x%d" % number))
    (tmp_path / "00000_stats.json").write_text("{}")
    assert tuple(read_pairs(tmp_path, Rejects(0.0)).texts) == ("x0", "x1", "x2")


def test_broken_members_are_counted_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "1.png", encoded(1))
        add(archive, "1.txt", b"fine")
        add(archive, "2.txt", b"no image")
        add(archive, "3.png", encoded(3))
        add(archive, "4.png", encoded(4)[:40])
        add(archive, "4.txt", b"cut short")
        add(archive, "5.png", encoded(5))
        add(archive, "5.txt", b"\xff\xfe")
        add(archive, "6.png", encoded(6))
        add(archive, "6.json", b"[1]")
        link = tarfile.TarInfo("7.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        add(archive, "7.txt", b"a link")
        add(archive, "../../8.png", encoded(8))
        add(archive, "../../8.txt", b"a name that leads out is a label")
        add(archive, "9.png", b"")
        add(archive, "9.txt", b"nothing")
    rejects = Rejects(1.0)
    pairs = read_pairs(path, rejects)
    assert tuple(pairs.texts) == ("fine", "a name that leads out is a label")
    found = reasons(rejects)
    assert len(found) == 7
    for number, words in ((0, "2: no image"), (1, "3: no text"), (2, "a.tar:4"), (3, "cannot be read"),
                          (4, "6: its text is empty"), (5, "7: 7.png is not a regular file"), (6, "a.tar:9")):  # fmt: skip
        assert words in found[number], found
    assert not (tmp_path.parent / "8.png").exists()
    with pytest.raises(InputError, match="7 of 9 rows are broken"):
        read_pairs(path, Rejects(0.1))


@pytest.mark.parametrize("cut", [300, 700, 1500])
def test_a_shard_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = shard(
        tmp_path / "a.tar", ("1.png", encoded(1)), ("1.txt", b"x"), ("2.png", encoded(2)), ("2.txt", b"y")
    )
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="not a complete tar file"):
        read_pairs(path, Rejects(1.0))


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(InputError, match="not a complete tar file"):
        check_pairs(tmp_path / "a.tar")
    (tmp_path / "b.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="no random access"):
        check_pairs(tmp_path / "b.tar.gz")
    shard(tmp_path / "c.tar")
    with pytest.raises(InputError, match="the shard is empty"):
        check_pairs(tmp_path / "c.tar")


def test_members_of_a_sample_must_be_adjacent(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", ("1.png", b"a"), ("2.png", b"bb"), ("1.txt", b"ccc"))
    assert [(s.key, {k: v[1] for k, v in s.members.items()}) for s in samples_of(path)] == [
        ("1", {"png": 1}), ("2", {"png": 2}), ("1", {"txt": 3}),
    ]  # fmt: skip


def test_captions_in_llavas_format(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(1))
    talk = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": "a heron"}]
    rows = [
        {"id": "1", "image": "1.png", "conversations": talk},
        {"id": "2", "conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]},
        {"id": "3", "image": "missing.png", "conversations": talk},
        {"id": "4", "image": "../1.png", "conversations": talk},
    ]
    for file in (tmp_path / "chat.json", tmp_path / "chat.jsonl"):
        text = json.dumps(rows) if file.suffix == ".json" else "\n".join(map(json.dumps, rows))
        file.write_text(text)
        rejects = Rejects(1.0)
        pairs = read_pairs(file, rejects)
        assert tuple(pairs.texts) == ("a heron",)
        assert pairs.images[0].path == tmp_path / "1.png"
        words = " ".join(reasons(rejects))
        assert "no such image: missing.png" in words
        assert "leaves its folder" in words
        assert "2: 0 images, not one" in words
        assert rejects.total == 4
