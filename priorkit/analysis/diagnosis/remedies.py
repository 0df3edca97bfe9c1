"""What to run for each cause: files of names, and commands with the data that the entities lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.analysis.diagnosis.measures import PARTS, Part
from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json

if TYPE_CHECKING:
    from priorkit.analysis.diagnosis.settings import DiagnoseSettings

FOLDER = "remedies"

_DATA: Mapping[Part, str] = {
    "encoder": "images of these entities to train on; ENCODER the model's encoder with its text tower",
    "language": "documents about these entities; SOURCE the text that LLM was pretrained on, to keep it",
    "projector": "captioned images of these entities; ENCODER and LLM the model's parts",
    "tuning": "instructions that ask about images of these entities, with other ones to keep what is known",
}

_COMMANDS: Mapping[Part, tuple[str, ...]] = {
    "encoder": (
        'priorkit distill-encoder {encoder} IMAGES --only-entities "$here/encoder.txt" --out encoder-remediated',
        "priorkit align LLM encoder-remediated CAPTIONS --out aligned-encoder",
        "priorkit tune aligned-encoder INSTRUCTIONS --out tuned-encoder",
    ),
    "language": (
        "priorkit mix about=DOCUMENTS general=SOURCE --tokenizer LLM --tokens 10M --out corpus-language",
        "priorkit pretrain corpus-language --from LLM --out llm-language",
        "priorkit align llm-language {encoder} CAPTIONS --out aligned-language",
        "priorkit tune aligned-language INSTRUCTIONS --out tuned-language",
    ),
    "projector": (
        "priorkit align LLM {encoder} general=CAPTIONS about=MORE_CAPTIONS --out aligned-projector",
        "priorkit tune aligned-projector INSTRUCTIONS --out tuned-projector",
    ),
    "tuning": ("priorkit tune {mllm} general=INSTRUCTIONS about=MORE_INSTRUCTIONS --out tuned-more",),
}


def write_remedies(
    folder: Path,
    entities: Sequence[str],
    verdicts: Sequence[str],
    settings: DiagnoseSettings,
    gains: Mapping[str, Any] | None,
    *,
    trainable: bool,
) -> dict[str, Any]:
    """Write the names of each cause and the commands that help them, below ``remedies/``.

    Args:
        folder: the artifact's.
        entities: names.
        verdicts: one each.
        settings: of the diagnosis.
        gains: what :func:`read_gains` read; None without.
        trainable: whether priorkit trains the model; of others the names and the data are written only.

    Returns:
        For ``results.json``: cause -> number of entities, file of names, commands, data, expected gain.
    """
    found: dict[str, Any] = {}
    lines = [
        "#!/usr/bin/env bash",
        "# What helps the entities of each cause. WORDS IN CAPITALS are data and models of yours to fill in.",
        "set -euo pipefail",
        'here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)',
    ]
    if not trainable:
        lines.append(
            "# priorkit does not train this family of models: use the data below with its own tools."
        )
    for part in PARTS:
        names = [entity for entity, verdict in zip(entities, verdicts, strict=True) if verdict == part]
        if not names:
            continue
        (folder / FOLDER).mkdir(exist_ok=True)
        (folder / FOLDER / f"{part}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        commands = [
            command.replace("{encoder}", settings.encoder or "ENCODER").replace("{mllm}", settings.mllm)
            for command in (_COMMANDS[part] if trainable else ())
        ]
        lines += ["", f"# {part}: {len(names)} entities, in {part}.txt", f"# Data: {_DATA[part]}.", *commands]
        found[part] = {
            "entities": len(names),
            "names": f"{FOLDER}/{part}.txt",
            "commands": commands,
            "data": _DATA[part],
            "expected_gain": gains[part][part] if gains and part in gains.get(part, {}) else None,
        }
    if found:
        (folder / FOLDER / "commands.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def read_gains(path: Path) -> dict[str, dict[str, Any]]:
    """Gains by verdict and remedy, of a file that :func:`priorkit.analysis.diagnosis.experiments.remedy_gains` made.

    Raises:
        InputError: it is no such file.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable table of gains: {error}", where=str(path)) from None
    gains = content.get("gains") if isinstance(content, dict) else None
    if not isinstance(gains, dict) or not all(
        isinstance(row, dict) and all(isinstance(cell, dict) and "value" in cell for cell in row.values())
        for row in gains.values()
    ):
        raise InputError("no table of gains: expected 'gains', by verdict and remedy", where=str(path))
    return gains
