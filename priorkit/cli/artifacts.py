"""Commands for artifacts: inspect, verify, diff."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from priorkit.cli.output import print_result
from priorkit.core import artifact
from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError
from priorkit.core.safetensors_header import read_header

logger = logging.getLogger(__name__)

ArtifactPath = Annotated[str, typer.Argument(metavar="ARTIFACT", help="Directory of a finished artifact.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def open_finished(path: str) -> Artifact:
    """An artifact by its path.

    Raises:
        InputError: there is none.
    """
    if not Path(path).exists():
        raise InputError(f"no such directory: {path}")
    return artifact.open_artifact(Path(path))


def inspect(path: ArtifactPath, as_json: Json = False) -> None:
    """Show what an artifact is, what it was made from, and its figures."""
    opened = open_finished(path)
    if as_json:
        print_result(json.dumps(opened.to_json(), ensure_ascii=False))
        return
    manifest = opened.manifest
    size = sum(record.size for record in manifest.files.values())
    lines = [
        f"{opened.kind} made by '{manifest.step}' on {manifest.created}, seed {manifest.seed}",
        f"digest   {opened.digest[:16]}",
        f"files    {len(manifest.files)}, {size / 1e6:.1f} MB",
        *_file_rows(opened),
        "inputs" + ("" if manifest.inputs else "   none"),
        *(f"  {item.setting}: {item.path} ({item.kind}, {item.digest[:12]})" for item in manifest.inputs),
        "metrics" + ("" if manifest.metrics else "  none"),
        *_tree(manifest.metrics),
        "cost",
        *_tree(manifest.cost),
        "settings",
        *_tree(manifest.settings),
        "versions  " + ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    ]
    print_result("\n".join(lines))


def _file_rows(opened: Artifact, most: int = 12) -> list[str]:
    """The artifact's files, tensors counted where they are safetensors; long lists are cut."""
    rows: list[str] = []
    files = sorted(opened.manifest.files.items(), key=lambda item: (item[0].count("/"), item[0]))
    for name, record in files[:most]:
        shapes = _tensor_summary(opened.path / name) if name.endswith(".safetensors") else ""
        rows.append(f"  {name}  {record.size / 1e6:.2f} MB{shapes}")
    if len(files) > most:
        rows.append(f"  ... and {len(files) - most} more")
    return rows


def _tensor_summary(path: Path) -> str:
    tensors = read_header(path)
    values = sum(tensor.count for tensor in tensors.values())
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors.values()}))
    return f"  {len(tensors)} tensors, {values:,} values, {dtypes}"


def _tree(values: dict[str, Any], indent: int = 2) -> list[str]:
    rows: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            rows.append(" " * indent + f"{name}:")
            rows.extend(_tree(value, indent + 2))
        elif isinstance(value, float):
            rows.append(" " * indent + f"{name}: {value:.6g}")
        else:
            text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
            rows.append(" " * indent + f"{name}: {text if len(text) <= 160 else text[:157] + '...'}")
    return rows


def verify(path: ArtifactPath) -> None:
    """Check every file of an artifact, and its manifest, for changes and damage.

    Files that were added later are named in a warning; they are not checked.
    """
    opened = open_finished(path)
    artifact.verify_files(opened.path, opened.manifest.files)
    artifact.warn_of_added_files(opened)
    manifest = "and the manifest"
    if not opened.manifest_checked:
        manifest = "the manifest itself cannot be checked"
        logger.warning(
            f"{opened.path / artifact.MANIFEST} was written before manifests had a checksum: settings, inputs and "
            "metrics in it cannot be checked; making the artifact again adds one"
        )
    print_result(f"{path}: {len(opened.manifest.files)} files as recorded, {manifest}")


def diff(
    left: ArtifactPath,
    right: Annotated[str, typer.Argument(metavar="OTHER", help="Directory of another artifact.")],
    as_json: Json = False,
) -> None:
    """Show how two artifacts differ: settings, inputs, files, metrics."""
    one, other = open_finished(left), open_finished(right)
    tables = {
        "kind": ({"kind": one.kind}, {"kind": other.kind}),
        "settings": (one.manifest.settings, other.manifest.settings),
        "inputs": (
            {item.setting: item.digest for item in one.manifest.inputs},
            {item.setting: item.digest for item in other.manifest.inputs},
        ),
        "files": (
            {name: record.sha256 for name, record in one.manifest.files.items()},
            {name: record.sha256 for name, record in other.manifest.files.items()},
        ),
        "metrics": (_flat(one.manifest.metrics), _flat(other.manifest.metrics)),
        "versions": (one.manifest.versions, other.manifest.versions),
    }
    differences = {
        table: {name: [a.get(name), b.get(name)] for name in sorted({**a, **b}) if a.get(name) != b.get(name)}
        for table, (a, b) in tables.items()
    }
    differences = {table: rows for table, rows in differences.items() if rows}
    if as_json:
        print_result(json.dumps(differences, ensure_ascii=False))
        return
    lines: list[str] = [] if differences else ["no difference"]
    for table, rows in differences.items():
        lines.append(table)
        lines.extend(f"  {name}: {_cell(a)} -> {_cell(b)}" for name, (a, b) in rows.items())
    print_result("\n".join(lines))


def _cell(value: Any) -> str:
    if value is None:
        return "(absent)"
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            rows.update(_flat(value, f"{prefix}{name}."))
        else:
            rows[prefix + name] = value
    return rows
