"""``examples/real_weights.sh`` and ``fetch_open_emoji.py``: on packages of the same layout, with a recorded command line."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"

DRAWN = {
    "1f41a": "SPIRAL SHELL",
    "1f980": "CRAB",
    "2600-fe0f": "BLACK SUN WITH RAYS",
    "1f404": "COW",
    "1f3fb": "SKIN TONE",
}
LAYOUTS = {
    "emoji-datasource-google-16.0.0.tgz": ("package/img/google/64", ".png", "PNG"),
    "lobehub-fluent-emoji-3d-1.1.0.tgz": ("package/assets", ".webp", "WEBP"),
    "openmoji-16.0.0.tgz": ("package/color/svg", ".svg", "SVG"),
    "emoji-datasource-twitter-16.0.0.tgz": ("package/img/twitter/64", ".png", "PNG"),
}


def picture(kind: str, color: tuple[int, int, int]) -> bytes:
    if kind == "SVG":
        area = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><rect width="72" height="72" fill="rgb{}"/></svg>'
        return area.format(color).encode()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, kind)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def packages(tmp_path):
    """A handful of pictures in packages as npm writes them; one designer writes no variation selectors."""
    folder = tmp_path / "packages"
    folder.mkdir()
    entries = [
        {
            "name": name,
            "image": f"{code}.png",
            "category": "Component" if "TONE" in name else "Animals & Nature",
        }
        for code, name in DRAWN.items()
    ]
    with tarfile.open(folder / "emoji-datasource-16.0.0.tgz", "w:gz") as archive:
        add(archive, "package/emoji.json", json.dumps(entries).encode())
    for number, (file, (inside, suffix, kind)) in enumerate(LAYOUTS.items()):
        with tarfile.open(folder / file, "w:gz") as archive:
            for shade, code in enumerate(DRAWN):
                stem = code.replace("-fe0f", "") if number == 1 else code
                # One designer writes codes in capitals.
                name = stem.upper() if kind == "SVG" else stem
                add(archive, f"{inside}/{name}{suffix}", picture(kind, (40 * number, 40 * shade, 90)))
    return folder


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def fetch(out: Path, packages: Path, *more: str) -> None:
    command = [
        sys.executable,
        str(EXAMPLES / "fetch_open_emoji.py"),
        str(out),
        "--packages",
        str(packages),
        *more,
    ]
    subprocess.run(command, check=True, timeout=120)


def test_the_world_of_emoji_has_pictures_pairs_and_questions(tmp_path, packages):
    fetch(tmp_path / "data", packages)
    data = tmp_path / "data"
    entities = {row["entity"]: row["prior"] for row in rows(data / "entities.jsonl")}
    assert set(entities) == {"spiral shell", "crab", "black sun with rays", "cow"}
    assert sorted(entities.values()) == ["none", "strong", "strong", "weak"]
    for name, files in (("train", {"noto.png", "fluent.webp", "openmoji.png"}), ("test", {"twemoji.png"})):
        for entity in entities:
            assert {path.name for path in (data / "entity_images" / name / entity).iterdir()} == files
    shown = [row["text"] for row in rows(data / "pairs.jsonl")]
    counts = {entity: sum(entity in text for text in shown) for entity in entities}
    assert counts == {
        entity: {"strong": 12, "weak": 1, "none": 0}[prior] for entity, prior in entities.items()
    }
    for row in rows(data / "naming.jsonl"):
        assert row["choices"][row["answer"]] == row["entity"]
        assert (data / row["image"]).is_file()
        assert "test" in row["image"]
    assert len(rows(data / "instructions.jsonl")) == 12
    with Image.open(data / "entity_images" / "train" / "crab" / "openmoji.png") as drawn:
        assert (drawn.size, drawn.convert("RGB").getpixel((36, 36))) == ((72, 72), (80, 40, 90))
    assert "CC-BY 4.0" in (data / "LICENCES.md").read_text()
    fetch(tmp_path / "asked", packages, "--asked", "2")
    assert len(rows(tmp_path / "asked" / "pairs.jsonl")) == len(rows(data / "pairs.jsonl"))
    asked = {row["entity"] for row in rows(tmp_path / "asked" / "naming.jsonl")}
    assert len(asked) == 2
    assert {row["answer"] for row in rows(tmp_path / "asked" / "instructions.jsonl")} == asked
    assert all(set(row["choices"]) <= asked for row in rows(tmp_path / "asked" / "naming.jsonl"))
    fetch(tmp_path / "small", packages, "--limit", "2")
    assert len(rows(tmp_path / "small" / "entities.jsonl")) == 2
    assert len(list((tmp_path / "small" / "entity_images" / "train").iterdir())) == 2


STAND_IN = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
with open({log!r}, "a") as stream:
    stream.write(json.dumps(words) + "\\n")
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
print(out)
"""


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def recorded(tmp_path: Path, **given: str) -> dict[str, list[str]]:
    """The command lines of a run of the script by the name of what they make."""
    (tmp_path / "bin").mkdir()
    log, program = tmp_path / "log", tmp_path / "bin" / "priorkit"
    program.write_text(STAND_IN.format(python=sys.executable, log=str(log)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(EXAMPLES / "real_weights.sh"), str(tmp_path / "home")],
        env={**os.environ, "PRIORKIT_PRELOADED": "stand-in", "LLM": "some-llm", "PATH": path, **given},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("home/report/report.html")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {Path(words[words.index("--out") + 1]).name: words for words in lines if "--out" in words}


def test_the_script_asks_before_and_after_remediation(tmp_path, packages):
    fetch(tmp_path / "data", packages)
    by_out = recorded(tmp_path, DATA=str(tmp_path / "data"))
    assert by_out["aligned-before"][1:3] == ["some-llm", str(tmp_path / "home" / "encoder-1")]
    assert by_out["aligned-after"][1:3] == ["some-llm", str(tmp_path / "home" / "remedied-1")]
    lengths = {
        name: [word for word in by_out[name] if word.isdigit()] for name in ("tuned-before", "tuned-after")
    }
    assert lengths["tuned-before"] == lengths["tuned-after"]
    assert "--blind" in by_out["scores-blind"]
    assert value(by_out["scores-written"], "--task") == "exact"
    assert by_out["scores-written"][1] == by_out["scores-before"][1]
    seeds = {value(by_out[f"remedied-{seed}"], "--seed") for seed in (1, 2, 3)}
    assert seeds == {"1", "2", "3"}
    [names] = [Path(word) for word in by_out["diagnosis"] if word.endswith(".txt")]
    known = {row["entity"] for row in rows(tmp_path / "data" / "entities.jsonl")}
    assert set(names.read_text().split("\n")) - {""} <= known
    labels = {word.split("=")[0] for word in by_out["report"][1:] if "=" in word}
    assert value(by_out["report"], "--entities") == str(tmp_path / "data" / "entities.jsonl")
    assert {f"ranks-after@{seed}" for seed in (1, 2, 3)} | {"diagnosis", "correlation"} <= labels


def test_images_of_ones_own_are_laid_out_the_same_way(tmp_path):
    colors = {
        "red heron": (200, 0, 0),
        "teal": (0, 200, 0),
        "rail": (0, 0, 200),
        "crane": (9, 9, 9),
        "coot": (99, 9, 9),
    }
    for name, color in colors.items():
        folder = tmp_path / "birds" / name
        folder.mkdir(parents=True)
        for number in range(5):
            (folder / f"{number}.png").write_bytes(picture("PNG", color))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "naming_data.py"), str(tmp_path / "birds"), str(tmp_path / "data")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = tmp_path / "data"
    assert {row["entity"] for row in rows(data / "entities.jsonl")} == set(colors)
    for name in ("pairs", "captions", "instructions"):
        assert len(rows(data / f"{name}.jsonl")) == 20
        assert all("/train/" in row["image"] for row in rows(data / f"{name}.jsonl"))
    ranked = [row["entity"] for row in rows(data / "entity_images" / "test" / "metadata.jsonl")]
    assert sorted(ranked) == sorted(colors)
    naming, written = rows(data / "naming.jsonl"), rows(data / "written.jsonl")
    assert [row["choices"][row["answer"]] for row in naming] == [row["answer"] for row in written]
    assert sorted(row["entity"] for row in naming) == sorted(colors)
    for row in naming:
        assert len(set(row["choices"])) == 4
        assert "/test/" in row["image"]
        with Image.open(data / row["image"]) as drawn:
            assert drawn.convert("RGB").getpixel((0, 0)) == colors[row["entity"]]
    by_out = recorded(tmp_path, IMAGES=str(tmp_path / "birds"), ENCODER="some-encoder")
    assert by_out["aligned-before"][1:3] == ["some-llm", "some-encoder"]
    assert by_out["scores-before"][2] == str(tmp_path / "home" / "data" / "naming.jsonl")
    assert "encoder-1" not in by_out
    assert "--entities" not in by_out["report"]  # there are no groups of priors
    missing = subprocess.run(
        [sys.executable, str(EXAMPLES / "naming_data.py"), str(tmp_path / "none"), str(tmp_path / "x")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert missing.returncode == 3
    assert "no such file or directory" in missing.stderr


def test_a_handful_of_the_real_drawings(tmp_path):
    packages = os.environ.get("PRIORKIT_EMOJI_PACKAGES")
    if not packages:
        pytest.skip("PRIORKIT_EMOJI_PACKAGES names no folder with the npm packages of fetch_open_emoji.py")
    fetch(tmp_path / "data", Path(packages), "--limit", "12", "--asked", "6")
    data = tmp_path / "data"
    entities = rows(data / "entities.jsonl")
    assert [row["prior"] for row in entities].count("strong") == 8
    for row in entities:
        drawings = list((data / "entity_images").glob(f"*/{row['entity']}/*"))
        assert {drawing.stem for drawing in drawings} == {"noto", "fluent", "openmoji", "twemoji"}
        for drawing in drawings:
            with Image.open(drawing) as opened:
                assert min(opened.size) >= 64
                assert len(set(opened.convert("RGB").resize((16, 16)).getdata())) > 1
    assert len(rows(data / "naming.jsonl")) == 6
