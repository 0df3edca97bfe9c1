"""Make a small world of real drawings: emoji by four designers under open licences, with their names in Unicode.

    python examples/fetch_open_emoji.py OUT [--limit N] [--asked N] [--packages DIR]

The pictures and names come from npm packages, fetched by ``npm pack`` with their versions pinned; none is part of
priorkit. ``--packages`` names a folder where the packages already are (``NAME-VERSION.tgz``, as npm writes them). One
designer's pictures are SVG, which resvg draws: ``pip install resvg-py``.

What is written to OUT: ``pairs.jsonl`` (for pretrain-encoder), ``entity_images/train`` and ``entity_images/test`` (the
designer who is held out), ``captions.jsonl``, ``instructions.jsonl``, ``naming.jsonl`` and ``written.jsonl``
(benchmarks: one name of four, and the name itself), ``entities.jsonl`` (name, prior, category), ``LICENCES.md``. Which
names are rare or withheld follows only from the names.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """An npm package with pictures.

    Attributes:
        name, version: on npm.
        designer: what its pictures are called here.
        licence: of the pictures, which is not that of the package.
        folder: where they are in the package.
        suffix: of their files.
    """

    name: str
    version: str
    designer: str
    licence: str
    folder: str
    suffix: str

    @property
    def file(self) -> str:
        """The file that ``npm pack`` writes."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PICTURES = (
    Package(
        "emoji-datasource-google",
        "16.0.0",
        "noto",
        "Noto Emoji, Apache-2.0 (Google)",
        "package/img/google/64",
        ".png",
    ),
    Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "fluent",
        "Fluent Emoji, MIT (Microsoft)",
        "package/assets",
        ".webp",
    ),
    Package(
        "openmoji",
        "16.0.0",
        "openmoji",
        "OpenMoji, CC-BY-SA 4.0 (OpenMoji)",
        "package/color/svg",
        ".svg",
    ),
    Package(
        "emoji-datasource-twitter",
        "16.0.0",
        "twemoji",
        "Twemoji, CC-BY 4.0 (Twitter)",
        "package/img/twitter/64",
        ".png",
    ),
)
"""The last designer's pictures are held out."""

NAMES = Package(
    "emoji-datasource",
    "16.0.0",
    "",
    "names of Unicode's characters; the package is MIT",
    "package/emoji.json",
    "",
)

TEMPLATES = ("a drawing of {}", "{}", "an emoji of {}", "a small picture of {}")
QUESTIONS = ("What is shown here?", "Name what you see.", "What is this called?")

LEFT_OUT = ("Component",)
"""Categories whose pictures are no things of their own: skin tones and hair."""

CHOICES = 4

DRAWN_SIZE = 72
"""Pixels of a side of pictures that come as SVG."""


def main() -> None:
    """Fetch, extract and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="most names, chosen by their hash; 0 for all")
    parser.add_argument(
        "--asked", type=int, default=0,
        help="most names, of those, that captions, instructions and questions are about; 0 for all",
    )  # fmt: skip
    parser.add_argument("--packages", type=Path, default=None, help="folder with the packages")
    options = parser.parse_args()
    out: Path = options.out
    if (out / "LICENCES.md").is_file():
        return
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if importlib.util.find_spec("resvg_py") is None:
        sys.exit("OpenMoji's pictures are SVG, which resvg draws: pip install resvg-py")
    packages: Path = options.packages or partial / "packages"
    for package in (NAMES, *PICTURES):
        fetch(package, packages)
    write_world(packages, partial, options.limit, options.asked)
    shutil.rmtree(partial / "packages", ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def fetch(package: Package, folder: Path) -> None:
    """Fetch a package, unless it is there."""
    folder.mkdir(exist_ok=True)
    if (folder / package.file).is_file():
        return
    if shutil.which("npm") is None:
        sys.exit(
            f"npm is needed to fetch {package.name}; or put {package.file} into a folder and name it with --packages"
        )
    done = subprocess.run(
        ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode or not (folder / package.file).is_file():
        sys.exit(f"npm could not fetch {package.name}@{package.version}: {done.stderr.strip()[-300:]}")


def order(text: str) -> str:
    """A key that shuffles names in the same way everywhere."""
    return hashlib.sha256(text.encode()).hexdigest()


def names_of(packages: Path) -> list[dict[str, str]]:
    """Name, category and file of each emoji, one per name."""
    with tarfile.open(packages / NAMES.file) as archive:
        stream = archive.extractfile(NAMES.folder)
        assert stream is not None
        listed = json.load(stream)
    found: dict[str, dict[str, str]] = {}
    for entry in listed:
        if entry["category"] in LEFT_OUT:
            continue
        name = " ".join(entry["name"].casefold().replace("-", " ").split())
        stem = entry["image"].rpartition(".")[0]
        found.setdefault(name, {"entity": name, "category": entry["category"], "stem": stem})
    return [found[name] for name in sorted(found)]


def pictures_of(package: Package, packages: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """File name without suffix, and bytes of PNG or WebP, of the pictures that are wanted."""
    with tarfile.open(packages / package.file) as archive:
        for member in archive:
            path = Path(member.name)
            if path.parent.as_posix() == package.folder and path.suffix == package.suffix:
                # Variation selectors are in some designers' names and not in others'.
                stem = path.stem.lower()
                stem = stem if stem in wanted else stem.replace("-fe0f", "")
                stream = archive.extractfile(member)
                if stem in wanted and stream is not None:
                    content = stream.read()
                    yield stem, drawn_from_svg(content) if package.suffix == ".svg" else content


def drawn_from_svg(content: bytes) -> bytes:
    """A picture as PNG; letters are drawn in no font, so that every machine makes the same picture."""
    from resvg_py import svg_to_bytes

    return svg_to_bytes(svg_string=content.decode(), width=DRAWN_SIZE, skip_system_fonts=True)


def write_world(packages: Path, out: Path, limit: int, asked: int) -> None:
    """Write the pictures, and what is read and asked about them."""
    entries = names_of(packages)
    by_stem = {key: entry for entry in entries for key in {entry["stem"], entry["stem"].replace("-fe0f", "")}}
    drawn: dict[str, dict[str, Path]] = {}
    for package in PICTURES:
        held_out = package is PICTURES[-1]
        for stem, content in pictures_of(package, packages, set(by_stem)):
            entity = by_stem[stem]["entity"]
            path = (
                out
                / "entity_images"
                / ("test" if held_out else "train")
                / entity
                / f"{package.designer}{package.suffix.replace('.svg', '.png')}"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            drawn.setdefault(entity, {})[package.designer] = path
    complete = sorted((entity for entity, paths in drawn.items() if len(paths) == len(PICTURES)), key=order)
    kept = complete[:limit] if limit else complete
    for entity in drawn.keys() - set(kept):
        for path in drawn[entity].values():
            shutil.rmtree(path.parent, ignore_errors=True)
    category = {entry["entity"]: entry["category"] for entry in entries}
    # By the order of their hashes: two thirds common, a sixth rare, a sixth withheld.
    in_questions = set(kept[:asked] if asked else kept)
    prior = {entity: ("none", "weak", *["strong"] * 4)[number % 6] for number, entity in enumerate(kept)}
    rows = {name: (out / f"{name}.jsonl").open("w", encoding="utf-8") for name in
            ("pairs", "captions", "instructions", "naming", "written", "entities")}  # fmt: skip

    def write(name: str, row: dict[str, object]) -> None:
        rows[name].write(json.dumps(row, ensure_ascii=False) + "\n")

    for entity in sorted(kept):
        write("entities", {"entity": entity, "prior": prior[entity], "category": category[entity]})
        write_entity(entity, prior[entity], {name: path.relative_to(out).as_posix() for name, path in drawn[entity].items()},
                     sorted(other for other in in_questions if category[other] == category[entity]),
                     entity in in_questions, write)  # fmt: skip
    for stream in rows.values():
        stream.close()
    lines = [f"- {package.name} {package.version}: {package.licence}" for package in (*PICTURES, NAMES)]
    (out / "LICENCES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_entity(
    entity: str,
    prior: str,
    files: dict[str, str],
    alike: list[str],
    asked: bool,
    write: Callable[[str, dict[str, object]], None],
) -> None:
    """Write the rows of one name: pairs by its prior, captions and questions of the training designers, a test item."""
    designers = [package.designer for package in PICTURES]
    *training, held_out = designers
    seen = {"strong": training, "weak": training[:1], "none": []}[prior]
    for designer in seen:
        for template in TEMPLATES if prior == "strong" else TEMPLATES[:1]:
            write("pairs", {"image": files[designer], "text": template.format(entity)})
    if not asked:
        return
    for number, designer in enumerate(training):
        question = QUESTIONS[(number + len(entity)) % len(QUESTIONS)]
        if prior != "none":
            write("captions", {"image": files[designer], "text": TEMPLATES[0].format(entity)})
        write(
            "instructions",
            {"id": f"{entity} {designer}", "image": files[designer], "question": question, "answer": entity},
        )
    others = sorted((other for other in alike if other != entity), key=lambda other: order(entity + other))[
        : CHOICES - 1
    ]
    choices = sorted([entity, *others], key=lambda choice: order(choice + entity))
    asked_about = {"id": entity, "image": files[held_out], "question": QUESTIONS[0]}
    groups = {"entity": entity, "prior": prior}
    write("naming", {**asked_about, "choices": choices, "answer": choices.index(entity), **groups})
    write("written", {**asked_about, "answer": entity, **groups})


if __name__ == "__main__":
    main()
