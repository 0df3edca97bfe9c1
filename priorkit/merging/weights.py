"""Weights per input, per tensor: one number, rules by name or layer, gradients over depth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from priorkit.core.errors import Problems, UsageError
from priorkit.merging.names import layer_of, matches

RULE_HINT = "[INPUT:]PATTERN=W or =W1,W2,..., such as 'mlp=0.5', '2:layers.0-7=0', '*=0,1'"


@dataclass(frozen=True, slots=True)
class Rule:
    """A weight for the tensors that a pattern names.

    Attributes:
        text: the pattern as written.
        input: which input it is for, from 0; None for all.
        pattern: see :func:`priorkit.merging.names.matches`.
        values: one weight, or several that are spread over the depth and interpolated between.
    """

    text: str
    input: int | None
    pattern: str
    values: tuple[float, ...]

    def value(self, depth: float) -> float:
        """The weight at a depth from 0 (embeddings, first layer) to 1 (last layer, head)."""
        position = depth * (len(self.values) - 1)
        below = min(int(position), len(self.values) - 2) if len(self.values) > 1 else 0
        above = min(below + 1, len(self.values) - 1)
        share = position - below
        return self.values[below] * (1 - share) + self.values[above] * share


def parse_rules(rules: Mapping[str, str], inputs: int) -> list[Rule]:
    """Read rules as written on the command line or in a recipe.

    Raises:
        UsageError: naming every rule that cannot be read.
    """
    problems = Problems(UsageError)
    parsed: list[Rule] = []
    for text, content in rules.items():
        prefix = re.match(r"(\d+):(.*)", text)
        number = int(prefix[1]) if prefix else None
        try:
            values = tuple(float(part) for part in content.split(","))
        except ValueError:
            problems.add(f"'{text}={content}' is no rule", where="--weight-rule", hint=RULE_HINT)
            continue
        if number is not None and not 1 <= number <= inputs:
            problems.add(
                f"'{text}' is for input {number}, there are {inputs}", where="--weight-rule", hint=RULE_HINT
            )
            continue
        parsed.append(
            Rule(text, None if number is None else number - 1, prefix[2] if prefix else text, values)
        )
    problems.raise_if_any()
    return parsed


class Weights:
    """The weights of all inputs for each tensor; of several rules that fit, the last one holds."""

    def __init__(self, plain: Sequence[float], rules: Sequence[Rule], names: Iterable[str]) -> None:
        known = list(names)
        self._plain, self._rules = tuple(plain), tuple(rules)
        self._last = max((layer for name in known if (layer := layer_of(name)) is not None), default=0)
        self.unused = [rule.text for rule in rules if not any(matches(rule.pattern, name) for name in known)]

    def of(self, name: str) -> tuple[float, ...]:
        """One weight per input for a tensor."""
        values = list(self._plain)
        for rule in self._rules:
            if matches(rule.pattern, name):
                weight = rule.value(self._depth(name))
                for index in range(len(values)) if rule.input is None else [rule.input]:
                    values[index] = weight
        return tuple(values)

    def _depth(self, name: str) -> float:
        layer = layer_of(name)
        if layer is None:
            return 0.0 if "embed" in name else 1.0
        return layer / self._last if self._last else 0.0
