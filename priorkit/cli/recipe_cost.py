"""``priorkit recipe show --cost``: the cost of a recipe's training stages as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from priorkit import step_table
from priorkit.core.errors import UsageError
from priorkit.core.options import recipe
from priorkit.core.options.settings import StepSettings
from priorkit.core.options.specs import build, key_of, option_specs

STAGES = ("pretrain", "blind-tune", "align", "tune")
"""Steps whose cost is estimated, in the order of a run."""


def table_settings(path: recipe.RecipeFile, step: str, document: Mapping[str, Any]) -> StepSettings:
    """The settings of a recipe's table; any value serves for required ones that the command line gives.

    Raises:
        UsageError: a key or value is wrong.
    """
    model = step_table.load(step).settings
    values = recipe.step_values(path, model, list(document))
    missing = {
        spec.name: ["name=value"] if spec.multiple else "value"
        for spec in option_specs(model).values()
        if spec.required and spec.name not in values
    }
    locate: Callable[[str], str] = lambda name: recipe.key_location(path, step, key_of(model, name))  # noqa: E731
    return build(model, {**missing, **values}, locate)


def cost_table(
    path: recipe.RecipeFile, document: Mapping[str, Any], gpus: int, preset: str | None, text_tokens: int
) -> str:
    """Steps, tokens, FLOPs and memory per GPU of each training stage, as text.

    Args:
        path: the recipe.
        document: its tables.
        gpus: number of GPUs.
        preset: of the language model, where the recipe has no [pretrain] with one.
        text_tokens: mean number of tokens of a sample's text.

    Raises:
        UsageError: the recipe trains nothing, or what decides the cost is not known.
    """
    from priorkit.training import cost

    tables = {step: table_settings(path, step, document) for step in document if step in step_table.STEPS}
    stages = [step for step in STAGES if step in tables]
    if not stages:
        raise UsageError("it has no training stage", where=str(path), hint=f"one of {', '.join(STAGES)}")
    vocabulary = int(getattr(tables.get("tokenizer"), "vocab_size", 32_000))
    mix: Any = tables.get("mix")
    name = preset or getattr(tables.get("pretrain"), "preset", None)
    if name is None:
        raise UsageError(
            "the language model is not in the recipe", where=str(path), hint="name its preset with --model"
        )
    decoder = cost.Decoder.preset(name, vocabulary)
    context = int(mix.context_length) if mix is not None else int(decoder.fields["max_position_embeddings"])
    image_tokens = int(getattr(tables.get("align"), "image_tokens", None) or cost.DEFAULT_IMAGE_TOKENS)
    rows = [("", "steps", "tokens", "FLOPs", "memory per GPU")]
    for step in stages:
        settings: Any = tables[step]
        if step == "pretrain":
            found = cost.pretraining_cost(
                settings, decoder, context, mix.tokens if mix is not None else None, gpus
            )
        else:
            shown = 0 if step == "blind-tune" else image_tokens
            found = cost.finetuning_cost(settings, decoder, shown, text_tokens, gpus)
        rows.append(
            (
                step,
                f"{found.steps:,}",
                f"{found.tokens / 1e9:,.1f}B",
                f"{found.flops:.3g}",
                f"{found.memory_bytes / 2**30:,.1f} GiB",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    about = (
        f"{name}, {decoder.parameters / 1e9:.2f}B parameters, {gpus} GPUs; samples of {image_tokens} + {text_tokens} "
        "tokens; memory is an estimate without logits and encoder"
    )
    return "\n".join([about, *lines])
