"""What is derived from a step's settings: its options, their checks, what decides an artifact's bytes."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from priorkit.core.errors import Problems, UsageError, nearest
from priorkit.core.options.settings import Settings, StepSettings, extra_of
from priorkit.core.options.value_kinds import inner_type, place, shown, value_type


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """What the command line and the recipe need to know of one field."""

    name: str
    flag: str
    help: str
    group: str
    positional: bool
    required: bool
    default: Any
    is_flag: bool
    multiple: bool
    choices: tuple[str, ...]
    metavar: str
    accepts: tuple[str, ...]
    hub: str
    changes_result: bool
    advanced: bool
    value_type: Any

    @property
    def key(self) -> str:
        """Its name in a recipe."""
        return self.flag[2:].replace("-", "_")


def _metavar(name: str, inner: Any, choices: tuple[str, ...], accepts: tuple[str, ...]) -> str:
    origin = typing.get_origin(inner)
    if choices:
        return "|".join(choices)
    if origin is dict:
        return "NAME=VALUE"
    if origin is tuple:
        inner = inner_type(typing.get_args(inner)[0])
    if accepts:
        return accepts[0].upper()
    return {int: "N", float: "X", str: "TEXT"}.get(inner, name.upper())


def _group_of(model: type[Settings], name: str) -> str:
    for base in reversed(model.__mro__):
        if issubclass(base, Settings) and name in base.model_fields:
            return vars(base).get("group", StepSettings.group)
    return StepSettings.group


def _spec(model: type[Settings], name: str, field: FieldInfo) -> OptionSpec:
    extra = extra_of(field)
    inner = inner_type(field.annotation)
    element = value_type(inner)
    choices = tuple(str(c) for c in typing.get_args(element)) if typing.get_origin(element) is Literal else ()
    accepts = tuple(extra.get("accepts", ()))
    positional = bool(extra.get("positional"))
    return OptionSpec(
        name=name,
        flag=str(extra.get("flag") or "--" + name.replace("_", "-")),
        help=field.description or "",
        group="inputs" if positional else _group_of(model, name),
        positional=positional,
        required=field.is_required(),
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        is_flag=inner is bool,
        multiple=typing.get_origin(inner) in (tuple, dict),
        choices=choices,
        metavar=str(extra.get("metavar") or _metavar(name, inner, choices, accepts)),
        accepts=accepts,
        hub=str(extra.get("hub", "")),
        changes_result=bool(extra.get("changes_result", True)),
        advanced=bool(extra.get("advanced", False)),
        value_type=value_type(inner),
    )


@cache
def option_specs(model: type[Settings]) -> dict[str, OptionSpec]:
    """All options of a settings model by field name: the step's own first, the shared groups after."""
    specs = {name: _spec(model, name, field) for name, field in model.model_fields.items()}
    order = {"inputs": 0, "what to do": 1, "runtime": 8, "output": 9}
    return dict(sorted(specs.items(), key=lambda item: order.get(item[1].group, 5)))


def key_of(model: type[Settings], name: str) -> str:
    """The recipe key of a field: ``from_llm`` -> ``from``; other names pass through."""
    spec = option_specs(model).get(name)
    return spec.key if spec else name


S = TypeVar("S", bound=Settings)


def flag_of(model: type[Settings], name: str) -> str:
    """The command-line spelling of a field: ``learning_rate`` -> ``--learning-rate``."""
    spec = option_specs(model).get(name)
    if spec is None:
        return name
    return spec.metavar if spec.positional else spec.flag


def changed(settings: Settings, names: Iterable[str]) -> list[str]:
    """Those of the named fields that are not at their default."""
    fields = type(settings).model_fields
    return [
        name
        for name in names
        if getattr(settings, name) != fields[name].get_default(call_default_factory=True)
    ]


def refuse_changed(
    settings: Settings, names: Iterable[str], problems: Problems, what: str, hint: str = ""
) -> None:
    """Add a problem for each option that was given but would have no effect.

    Args:
        settings: the settings.
        names: fields that have no effect here.
        problems: where the problems go.
        what: why it has no effect, the same for all.
        hint: what to do.
    """
    for name in changed(settings, names):
        problems.add(what, where=flag_of(type(settings), name), hint=hint)


def build(model: type[S], values: Mapping[str, Any], where: Callable[[str], str] | None = None) -> S:
    """Validate values into settings; all that is wrong is reported at once.

    Args:
        model: the settings model.
        values: field name -> value.
        where: gives the origin of a field's value; by default its command-line spelling.

    Raises:
        UsageError: unknown names, wrong types, values out of range, missing ones.
    """
    where = where or (lambda name: flag_of(model, name))
    try:
        return model(**values)
    except ValidationError as error:
        specs = option_specs(model)
        problems = Problems(UsageError)
        for item in error.errors(include_url=False):
            name = str(item["loc"][0]) if item["loc"] else ""
            if item["type"] == "extra_forbidden":
                problems.add(f"unknown key '{name}'", where=where(name), hint=nearest(name, specs))
            elif item["type"] == "missing":
                spec = specs[name]
                label = name.upper() if spec.positional else spec.flag
                problems.add(f"{label} is missing ({_lower_first(spec.help)})", hint=_usage_hint(model))
            else:
                spec = specs.get(name)
                choices = spec.choices if spec else ()
                problems.add(
                    place(item["loc"][1:]) + plain_message(item, choices), where=where(name) if name else ""
                )
        problems.fail()


def _usage_hint(model: type[Settings]) -> str:
    return f"see priorkit {model.step} --help" if issubclass(model, StepSettings) else ""


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if text else text


def plain_message(item: Any, choices: Sequence[str] = ()) -> str:
    """What pydantic found, in words for people: what was expected, and what was given.

    Args:
        item: one of pydantic's errors.
        choices: the valid values, where they are few.
    """
    message: str = item["msg"]
    message = message.removeprefix("Value error, ").replace(", unable to parse string as an integer", "")
    message = message.replace(", unable to parse string as a number", "")
    if message.startswith("Input should be"):
        message = "should be" + message.removeprefix("Input should be")
        for theirs, plain in _PLAIN_TYPES.items():
            message = message.replace(theirs, plain)
        given: Any = item["input"]
        message += f", got {shown(given)}"
        if choices and isinstance(given, str):
            message += f" ({nearest(given, choices)})"
    return message


_PLAIN_TYPES = {
    "a valid tuple": "a list",
    "a valid dictionary": "a table or a list of NAME=VALUE",
    "a valid boolean, unable to interpret input": "true or false",
}


def result_settings(settings: StepSettings) -> dict[str, Any]:
    """The settings that decide the artifact's bytes, as JSON-compatible values.

    Inputs are left out: they are compared by digest, not by path.
    """
    specs = option_specs(type(settings))
    values = settings.model_dump(mode="json")
    return {
        name: value
        for name, value in values.items()
        if specs[name].changes_result and not specs[name].accepts and name != "out"
    }


def default_values(model: type[StepSettings]) -> dict[str, Any]:
    """Defaults of the options by field name, as JSON-compatible values."""
    fields = model.model_fields.items()
    given = {
        name: field.get_default(call_default_factory=True)
        for name, field in fields
        if not field.is_required()
    }
    return model.model_construct(**given).model_dump(mode="json", include=set(given))


def input_values(settings: StepSettings) -> Iterator[tuple[OptionSpec, str, str]]:
    """The inputs a settings object names: ``(option, label, path or id)`` in order of declaration."""
    for spec in option_specs(type(settings)).values():
        if not spec.accepts:
            continue
        value = getattr(settings, spec.name)
        if value is None:
            continue
        if isinstance(value, Mapping):
            for key, item in typing.cast("Mapping[str, str]", value).items():
                yield spec, f"{spec.name}.{key}", item
        elif isinstance(value, tuple):
            for index, item in enumerate(typing.cast("tuple[str, ...]", value)):
                for suffix, path in settings.expand_input(spec.name, item).items():
                    yield spec, f"{spec.name}.{index}{suffix}", path
        else:
            yield spec, spec.name, str(value)
