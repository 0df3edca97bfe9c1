"""Whether models and adapters belong together: architectures, named bases, tokenizers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, Problems
from priorkit.core.json_text import parse_json
from priorkit.merging.lora import LoraAdapter


def check_architectures(configs: Mapping[str, Mapping[str, Any]], reference: str, problems: Problems) -> None:
    expected = configs[reference]["model_type"]
    for label, config in configs.items():
        if config["model_type"] != expected:
            problems.add(
                f"a model of type '{config['model_type']}', the others are '{expected}'",
                where=label,
                hint="models of one architecture can be merged",
            )


def check_named_bases(
    adapters: Mapping[str, LoraAdapter], base: tuple[str, Path] | None, problems: Problems
) -> None:
    """Adapters without a base must at least name the same one."""
    named = {label: adapter.base_name for label, adapter in adapters.items() if adapter.base_name}
    if base is None and len({name.rstrip("/") for name in named.values()}) > 1:
        listed = ", ".join(f"{label} names '{name}'" for label, name in named.items())
        problems.add(
            f"the adapters are for different bases: {listed}",
            hint="if these are the same model, name it with --base (and --extract for an adapter)",
        )


def check_tokenizers(
    folders: Sequence[tuple[str, Path]], problems: Problems, language: Collection[str] = ()
) -> None:
    """Refuse tokenizers that give one id to different tokens; rows of embeddings would be mixed up.

    Vocabularies are compared where folders carry a ``tokenizer.json``.

    Args:
        folders: the inputs, ``(label, folder)``; the first with a tokenizer is compared with the others.
        problems: collects those that differ.
        language: labels of language models merged into a multimodal one, which may have more tokens than they.
    """
    first: tuple[str, bytes, dict[str, int] | None] | None = None
    for label, folder in folders:
        file = folder / "tokenizer.json"
        if not file.is_file():
            continue
        content = file.read_bytes()
        if first is None:
            first = (label, content, None)
        elif content != first[1]:
            known = first[2] or _vocabulary(first[1])
            first = (first[0], first[1], known)
            vocabulary = _vocabulary(content)
            differing = sorted(
                token
                for token in {**known, **vocabulary}
                if known.get(token) != vocabulary.get(token)
                and not (label in language and token not in vocabulary)
            )
            if differing:
                examples = "; ".join(
                    f"{token!r} is {known.get(token, 'absent')} and {vocabulary.get(token, 'absent')}"
                    for token in differing[:3]
                )
                problems.add(
                    f"its tokenizer differs from that of {first[0]} in {len(differing)} tokens: {examples}",
                    where=label,
                    hint="embeddings can only be merged row by row; give all the same tokenizer first",
                )


def _vocabulary(content: bytes) -> dict[str, int]:
    try:
        document = parse_json(content)
        words: Any = document["model"].get("vocab", {})
        vocabulary: dict[str, int] = (
            dict(cast("dict[str, int]", words))
            if isinstance(words, dict)
            else {entry[0]: number for number, entry in enumerate(words)}
        )
        vocabulary.update((token["content"], token["id"]) for token in document.get("added_tokens", []))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"tokenizer.json is not understood: {error}") from None
    return vocabulary
