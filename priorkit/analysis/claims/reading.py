"""Files of claims: what is claimed, and how it is decided, stated before it is run. docs/claims.md has the format."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from priorkit.analysis.claims.base import ClaimTable, Measure, Term
from priorkit.analysis.claims.registry import KINDS
from priorkit.core.errors import Problems, UsageError, nearest
from priorkit.core.options.recipe import RecipeFile, read_toml
from priorkit.core.options.specs import plain_message
from priorkit.core.options.value_kinds import inner_type, shown, value_type

CLAIMS_TABLE = "claims"
"""The only table of the file; one table below it per claim."""

_EFFECTS = ("measures", "controls")


class Gate(ClaimTable):
    """What must work before a claim can be decided: a value that an evaluation must reach."""

    evaluation: str
    benchmark: str
    metric: str
    least: float


class Statement(ClaimTable):
    """The keys of a claim other than its measures and controls.

    Attributes:
        paper: where it is from.
        statement: the claim in one sentence.
        comparison: what is compared, and what is held fixed.
        seeds: the least number of seeds.
        gate: the condition that comes first.
    """

    paper: str
    statement: str
    comparison: str
    seeds: Annotated[int, Field(ge=3)] = 3
    gate: Gate | None = None


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        id: its key in the file.
        stated: what is claimed.
        measures: the effects that decide; all must be as the claim predicts.
        controls: effects that are reported with them.
    """

    id: str
    stated: Statement
    measures: Sequence[Measure]
    controls: Sequence[Measure]

    @property
    def effects(self) -> list[Measure]:
        """Measures, then controls."""
        return [*self.measures, *self.controls]

    def terms(self) -> list[Term]:
        """All that is averaged, for measures and controls."""
        return [term for effect in self.effects for term in effect.terms()]

    def labels(self) -> list[str]:
        """Labels of all artifacts that it needs, without seeds."""
        gate = [self.stated.gate.evaluation] if self.stated.gate else []
        return list(dict.fromkeys([*gate, *(term.label for term in self.terms() if term.label)]))


def read_claims(path: RecipeFile) -> list[Claim]:
    """Read a file of claims.

    Raises:
        InputError: it cannot be read.
        UsageError: it is not valid TOML, or keys are unknown, missing or of the wrong type; all problems at once.
    """
    document = read_toml(path)
    reader = _Reader(path, Problems(UsageError))
    for key in document:
        if key != CLAIMS_TABLE:
            reader.problems.add(
                f"unknown table '{key}'", where=str(path), hint=f"a claim is a table [{CLAIMS_TABLE}.NAME]"
            )
    tables = document.get(CLAIMS_TABLE)
    if not isinstance(tables, dict) or not tables:
        reader.problems.add(f"no table [{CLAIMS_TABLE}.NAME]: the file states no claim", where=str(path))
        reader.problems.fail()
    claims = [reader.claim(name, table) for name, table in typing.cast("dict[str, Any]", tables).items()]
    reader.problems.raise_if_any()
    return [claim for claim in claims if claim is not None]


class _Reader:
    """Reads claims, collecting problems with their places in the file."""

    def __init__(self, path: RecipeFile, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self._lines = path.read_text(encoding="utf-8-sig").splitlines()

    def claim(self, name: str, table: Any) -> Claim | None:
        """A claim; None where something is wrong with it."""
        before = len(self.problems)
        if not isinstance(table, dict):
            self.problems.add(f"should be a table, got {shown(table)}", where=self._place(name))
            return None
        keys = typing.cast("dict[str, Any]", table)
        stated = self._model(Statement, {k: v for k, v in keys.items() if k not in _EFFECTS}, name)
        measures, controls = ([*self._effects(name, section, keys.get(section, []))] for section in _EFFECTS)
        if not keys.get("measures"):
            self.problems.add(
                "no measure decides it",
                where=self._place(name),
                hint=f"add [[{CLAIMS_TABLE}.{name}.measures]]",
            )
        if len(self.problems) > before or not isinstance(stated, Statement):
            return None
        claim = Claim(name, stated, measures, controls)
        for label in claim.labels():
            if "@" in label:
                self.problems.add(
                    f"'{label}' should be a label without its seed", where=self._place(name),
                    hint=f"write '{label.partition('@')[0]}'; the artifacts are given as LABEL@SEED",
                )  # fmt: skip
        return claim

    def _effects(self, name: str, section: str, tables: Any) -> Iterator[Measure]:
        if not isinstance(tables, list) or not all(
            isinstance(table, dict) for table in typing.cast("list[Any]", tables)
        ):
            self.problems.add(
                f"'{section}' should be a list of tables",
                where=self._place(name),
                hint=f"write [[{CLAIMS_TABLE}.{name}.{section}]]",
            )
            return
        for index, table in enumerate(typing.cast("list[dict[str, Any]]", tables)):
            kind = table.get("kind")
            where = self._place(name, section, index, "kind")
            if kind is None:
                self.problems.add("missing key 'kind'", where=where, hint=f"one of {', '.join(KINDS)}")
            elif not isinstance(kind, str) or kind not in KINDS:
                self.problems.add(
                    f"no kind of effect {shown(kind)}", where=where, hint=nearest(str(kind), KINDS)
                )
            else:
                keys = {key: value for key, value in table.items() if key != "kind"}
                effect = self._model(KINDS[kind], keys, name, section, index)
                if isinstance(effect, Measure):
                    self._check(effect, where=self._place(name, section, index), section=section)
                    yield effect

    def _check(self, effect: Measure, where: str, section: str) -> None:
        if section == "measures" and effect.smallest is None:
            self.problems.add(
                "missing key 'smallest', the smallest effect of interest", where=where,
                hint="without it nothing could count against the claim",
            )  # fmt: skip
        if any(term.source == "evaluation" and not term.benchmarks for term in effect.terms()):
            self.problems.add("missing key 'benchmarks', of the measure or of each of its parts", where=where)

    def _model(
        self, model: type[BaseModel], values: Mapping[str, Any], name: str, section: str = "", index: int = 0
    ) -> BaseModel | None:
        try:
            return model(**values)
        except ValidationError as error:
            found = error.errors(include_url=False)
            for item in found:
                # A list whose elements are wrong also counts as too short.
                if item["type"] != "too_short" or not any(
                    len(other["loc"]) > len(item["loc"]) and other["loc"][: len(item["loc"])] == item["loc"]
                    for other in found
                ):
                    self._add(item, model, name, section, index)
            return None

    def _add(self, item: Any, model: type[BaseModel], name: str, section: str, index: int) -> None:
        path: tuple[str | int, ...] = item["loc"]
        where = self._place(name, section, index, str(path[0]) if path else "")
        inside = "".join(f"{part}: " if isinstance(part, str) else f"{part + 1}: " for part in path[:-1])
        last = path[-1] if path else ""
        if item["type"] == "extra_forbidden":
            known = sorted(_model_at(model, path[:-1]).model_fields)
            if len(path) == 1:
                known += ["kind"] if section else _EFFECTS
            self.problems.add(f"{inside}unknown key '{last}'", where=where, hint=nearest(str(last), known))
        elif item["type"] == "missing":
            self.problems.add(f"{inside}missing key '{last}'", where=where)
        elif item["type"] == "too_short":
            few = item["ctx"]
            self.problems.add(
                f"{inside}{last}: at least {few['min_length']} needed, got {few['actual_length']}",
                where=where,
            )
        else:
            place = f"{inside}{last if isinstance(last, str) else last + 1}: " if path else ""
            self.problems.add(f"{place}{plain_message(item)}", where=where)

    def _place(self, name: str, section: str = "", index: int = 0, key: str = "") -> str:
        """``FILE:LINE [claims.V1] measures 2``."""
        header = f"{CLAIMS_TABLE}.{name}"
        shown_place = f"[{header}]" + (f" {section} {index + 1}" if section else "")
        line = self._line(f"{header}.{section}" if section else header, index, key)
        return f"{self.path}:{line} {shown_place}" if line else f"{self.path} {shown_place}"

    def _line(self, header: str, index: int, key: str) -> int:
        """The line of a key in the nth table of this name, of the table where it lacks the key, 0 where neither is found."""
        found, seen, inside = 0, -1, False
        for number, text in enumerate(self._lines, start=1):
            if match := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", text):
                name = match[1].replace('"', "")
                seen += name == header
                if found and name == f"{header}.{key}":
                    return number
                if name == header and seen == index:
                    found = number
                inside = name == header and seen == index
            elif inside and key and re.match(rf'\s*"?{re.escape(key)}"?\s*[=.]', text):
                return number
        return found


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """The model of the table that a location leads to."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            inner = inner_type(value_type(inner_type(model.model_fields[part].annotation)))
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return model
