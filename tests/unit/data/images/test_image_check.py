"""Checking the images of a source once: by threads, by processes, cached; pairs and entities read with it."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.core.inputs import Input
from priorkit.core.process.threads import streamed_in_threads
from priorkit.data.images import image_check
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.entities import read_entities
from priorkit.data.images.image_check import ImageCheck, ImageStatus, cache_name
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import read_pairs


def content(color: tuple[int, int, int], kind: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), color).convert(mode).save(stream, kind)
    return stream.getvalue()


def refs(count: int, broken: tuple[int, ...] = (), unusual: tuple[int, ...] = ()) -> list[ImageRef]:
    found: list[ImageRef] = []
    for number in range(count):
        data = content((number % 256, 0, 0))
        if number in unusual:
            data = content((number % 256, 0, 0), "JPEG", "CMYK")
        found.append(ImageRef(str(number), content=data[:30] if number in broken else data))
    return found


def test_threads_keep_the_order() -> None:
    def slow(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number * number

    assert list(streamed_in_threads(slow, range(200))) == [(number, number * number) for number in range(200)]


def test_broken_and_unusual_images_have_their_indices() -> None:
    found = ImageCheck().statuses(refs(100, broken=(3, 64), unusual=(40,)))
    assert list(found) == [3, 40, 64]
    assert found[40] == ImageStatus(kinds=("cmyk",))
    assert all(found[place].fault for place in (3, 64))


def test_statuses_are_cached_and_images_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ImageCheck(cache_file=tmp_path / "cache" / "x.json")
    images = refs(40, broken=(3,), unusual=(39,))
    found = check.statuses(images)
    with monkeypatch.context() as patched:
        patched.setattr(image_check, "decode_with_kinds", lambda ref: pytest.fail(f"{ref.name} was decoded"))
        assert check.statuses(images) == found
    # With another number of images or a damaged cache file, all are decoded again.
    assert list(check.statuses(images[:39])) == [3]
    assert check.cache_file is not None
    check.cache_file.write_text("{")
    assert check.statuses(images) == found


def test_the_cache_file_depends_on_source_and_reader(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(content((1, 2, 3)) + name.encode())
    sources = [Input("pairs", str(tmp_path / name), tmp_path / name, "folder") for name in ("a", "b")]
    names = {cache_name(source, reader) for source in sources for reader in ("pairs", "entities")}
    assert len(names) == 4


def test_an_unwritable_cache_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert list(ImageCheck(cache_file=tmp_path / "file" / "x.json").statuses(refs(5, broken=(1,)))) == [1]
    assert "not cached" in caplog.text


def test_processes_share_the_work_and_know_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = refs(150, broken=(0, 33, 70), unusual=(140,))
    one_process = ImageCheck().statuses(images)
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen: dict[int, list[str]] = {0: [], 1: []}
    decode = image_check.decode_with_kinds

    def process(number: int, others: list[str]) -> dict[int, ImageStatus]:
        monkeypatch.setenv("RANK", str(number))
        names: list[str] = []
        monkeypatch.setattr(
            image_check, "decode_with_kinds", lambda ref: (names.append(ref.name), decode(ref))[1]
        )
        said: list[str] = []

        def exchange(text: str) -> list[str]:
            said.append(text)
            other = others[len(said) - 1] if others else ""
            return [text, other] if number == 0 else [other, text]

        monkeypatch.setattr(image_check.distributed, "all_texts", exchange)
        cache_file = tmp_path / "cache.json" if number == 0 else None
        found = ImageCheck(cache_file=cache_file, shared=True).statuses(images)
        seen[number] = names
        process.said = said  # type: ignore[attr-defined]
        return dict(found)

    process(1, [])
    found = process(0, process.said)  # type: ignore[attr-defined]
    assert found == dict(one_process)
    assert sorted(map(int, seen[0] + seen[1])) == list(range(150))
    assert 64 <= len(seen[0]) <= 96
    # The second process gets what the first one cached.
    text = (tmp_path / "cache.json").read_text()
    assert process(1, [text]) == dict(one_process)
    assert seen[1] == []


def table(path: Path, images: list[ImageRef], **columns: list[object]) -> Path:
    cells = [{"bytes": ref.content, "path": None} for ref in images]
    pq.write_table(pa.table({"image": cells, **columns}), path, row_group_size=7)
    return path


def test_pairs_are_those_of_the_usable_rows_and_rejects_keep_their_order(tmp_path: Path) -> None:
    texts: list[object] = [f"text {number}" for number in range(60)]
    texts[2] = texts[50] = " "
    images = refs(60, broken=(1, 20, 59), unusual=(7, 8))
    path = table(tmp_path / "p.parquet", images, text=texts)
    rejects = Rejects(1.0)
    pairs = read_pairs(path, rejects, ImageCheck(spool_folder=tmp_path))
    assert [row["row"] for row in rejects.rows] == [2, 3, 21, 51, 60]
    assert (rejects.total, len(pairs)) == (60, 55)
    assert rejects.unusual_images() == {"cmyk": 2, "sixteen_bit": 0, "animated": 0, "rotated": 0}
    usable = [row for row in range(60) if row not in (1, 2, 20, 50, 59)]
    assert list(pairs.texts) == [texts[row] for row in usable]
    assert all(ref.content is None for ref in pairs.images)
    assert [ref.read() for ref in pairs.images] == [images[row].content for row in usable]
    assert [ref.name for ref in pairs.images] == [f"p.parquet:{row + 1}" for row in usable]
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_a_limit_stops_the_reading(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(content((number, 0, 0))[: 20 if number == 1 else None])
    rows = [{"image": f"{number}.png", "text": str(number)} for number in range(8)]
    lines = [json.dumps(row) for row in rows[:6]] + ["no row"] * 50
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="51 of 56 rows are broken"):
        read_pairs(tmp_path / "p.jsonl", Rejects(0.3))
    rejects = Rejects(0.3)
    assert tuple(read_pairs(tmp_path / "p.jsonl", rejects, limit=4).texts) == ("0", "2", "3", "4")
    assert (rejects.total, len(rejects)) == (5, 1)


def test_entity_images_of_tables_are_kept_on_disk(tmp_path: Path) -> None:
    names: list[object] = [("heron", "egret", "crane")[number % 3] for number in range(12)]
    images = refs(12, broken=(4,), unusual=(5,))
    path = table(tmp_path / "e.parquet", images, entity=names)
    rejects = Rejects(1.0)
    spooled = read_entities(path, rejects, check=ImageCheck(tmp_path))
    rows = [int(ref.name.rpartition(":")[2]) - 1 for ref in spooled.images]
    assert sorted(rows) == [row for row in range(12) if row != 4]
    assert spooled.shown == [names[row] for row in rows]
    assert [ref.read() for ref in spooled.images] == [images[row].content for row in rows]
    assert all(ref.content is None for ref in spooled.images)
    assert rejects.unusual["cmyk"] == 1
    kept = spooled.keep([0, 3])
    assert [ref.read() for ref in kept.images] == [spooled.images[row].read() for row in (0, 3)]
