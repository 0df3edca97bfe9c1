"""The table of merge methods: names, parameters and defaults, as in mergekit 0.1.5.

A method is one :class:`MergeMethod`, with a :class:`Parameter` for each option that no other method has.
Command-line options, recipe keys, help and checks are generated from the two tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from priorkit.merging.methods.arrays import Array
from priorkit.merging.methods.linear import (
    KARCHER_TOLERANCE,
    karcher_coefficients,
    model_stock_coefficients,
    slerp_coefficients,
    weighted,
)
from priorkit.merging.methods.sparsify import SparsifyMethod, sce

MANY = 10**6
"""Most inputs of a method that takes any number."""


Coefficients = Callable[[Any, Sequence[float], Mapping[str, Any]], list[float]]
"""Gram matrix (None unless a method needs it), weights and parameters -> one coefficient per input."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option of one or several merge methods.

    Attributes:
        name: its keyword in the methods' functions; a trailing underscore is not part of the option's name.
        type: ``bool``, ``int`` or ``float``.
        help: one sentence; the methods and their defaults are appended to it.
        checks: bounds of its value: ``ge``, ``gt``, ``le``, ``lt``.
        advanced: whether only ``--help-all`` shows it.
    """

    name: str
    type: type
    help: str
    checks: Mapping[str, float] = field(default_factory=dict[str, float])
    advanced: bool = True

    @property
    def flag(self) -> str:
        """Its option on the command line."""
        return "--" + self.name.rstrip("_").replace("_", "-")


def _has_normalize(parameters: Mapping[str, Any]) -> bool:
    return bool(parameters.get("normalize"))


@dataclass(frozen=True, slots=True)
class MergeMethod:
    """A merge method.

    A method is a linear combination (``coefficients``), computed on LoRA factors or block by block, or works
    on the deltas of a full tensor (``select``).

    Attributes:
        name: mergekit's name, or one of our own where mergekit has none.
        parameters: its options in addition to ``--weight``, with their defaults; slerp's ``t``
            follows from the weights, ``w_2 / (w_1 + w_2)``, where it is not given.
        takes_weights: whether it uses ``--weight``.
        on_models: whether full models are merged as they are; other methods, and adapters, use deltas.
        inputs: the fewest and the most inputs.
        coefficients: see :data:`Coefficients`.
        select: called with the deltas and the parameters (with ``weights`` and ``density`` if
            ``takes_weights``, with ``draws`` if ``draws``); returns the merged delta.
        needs_gram: whether the coefficients depend on the inputs' inner products.
        draws: whether it draws random numbers.
        normalizes: whether its weights are divided by their sum, given its parameters.
    """

    name: str
    parameters: Mapping[str, Any]
    takes_weights: bool = True
    on_models: bool = False
    inputs: tuple[int, int] = (1, MANY)
    coefficients: Coefficients | None = None
    select: Callable[..., Array] | None = None
    needs_gram: bool = False
    draws: bool = False
    normalizes: Callable[[Mapping[str, Any]], bool] = _has_normalize


PARAMETERS: dict[str, Parameter] = {}
"""All parameters by name, in the order in which the help lists them."""

METHODS: dict[str, MergeMethod] = {}
"""All methods by name."""


def register(method: MergeMethod, *parameters: Parameter) -> None:
    """Add a method to the table, with the parameters that no other method has.

    Raises:
        ValueError: a name is taken, or a parameter of the method is not declared.
    """
    for parameter in parameters:
        if parameter.name in PARAMETERS:
            raise ValueError(f"the parameter '{parameter.name}' is declared already")
    known = {*PARAMETERS, *(parameter.name for parameter in parameters), "density"}
    if method.name in METHODS:
        raise ValueError(f"the merge method '{method.name}' is registered already")
    if unknown := set(method.parameters) - known:
        raise ValueError(f"{method.name}: parameters without a declaration: {', '.join(sorted(unknown))}")
    PARAMETERS.update({parameter.name: parameter for parameter in parameters})
    METHODS[method.name] = method


def help_of(parameter: Parameter) -> str:
    """The help of a parameter with the methods that take it and their defaults."""
    defaults = {
        method.name: method.parameters[parameter.name]
        for method in METHODS.values()
        if parameter.name in method.parameters
    }
    text = parameter.help.rstrip(".")
    if parameter.type is bool:
        on = [name for name, default in defaults.items() if default]
        return f"{text} (default with {_patterns(on)})." if on else f"{text}."
    values = {default for default in defaults.values() if default is not None}
    suffix = f"; default: {values.pop():g}" if len(values) == 1 else ""
    return f"{text} ({_patterns(list(defaults))}{suffix})."


def _patterns(names: list[str]) -> str:
    """Names of methods, those of a family as ``family*``."""
    patterns: list[str] = []
    for name in names:
        family = [other for other in METHODS if other.startswith(name.split("_")[0])]
        complete = len(family) > 1 and set(family) <= set(names)
        patterns.append(name.split("_")[0] + "*" if complete else name)
    return ", ".join(dict.fromkeys(patterns))


def _sparsified(
    name: str, keep: str, elect: bool, normalize: bool, rescale: bool, **parameters: Any
) -> MergeMethod:
    """A method that sparsifies the deltas and adds them up, with or without TIES's sign election."""
    defaults = {"density": 1.0, "normalize": normalize, "rescale": rescale, "lambda_": 1.0, **parameters}
    return MergeMethod(
        name,
        defaults,
        select=SparsifyMethod(keep, elect),
        draws=keep in ("random", "rank"),
        # With the election the divisor is computed per entry, so that weights may sum to 0.
        normalizes=lambda given: bool(given.get("normalize")) and not elect,
    )


def _slerp(products: Any, weights: Sequence[float], options: Mapping[str, Any]) -> list[float]:
    position: float | None = options["t"]
    return slerp_coefficients(
        products, t=weighted(weights, normalize=True)[1] if position is None else position
    )


PEFT_FACTOR_LINEAR = "peft_factor_linear"
"""PEFT's ``linear``, which sums A and B separately and so is no sum of deltas; see ``factors.factor_linear``."""

register(
    MergeMethod(
        "linear",
        {"normalize": True},
        on_models=True,
        coefficients=lambda products, weights, options: weighted(weights, **options),
    ),
    Parameter("normalize", bool, "Divide by the total weight.", advanced=False),
)
register(
    MergeMethod(
        "slerp",
        {"t": None},
        on_models=True,
        inputs=(2, 2),
        coefficients=_slerp,
        needs_gram=True,
        normalizes=lambda given: given.get("t") is None,
    ),
    Parameter(
        "t", float, "Position from the first (0) to the second input (1), by default from the weights.",
        {"ge": 0, "le": 1},
    ),
)  # fmt: skip
register(
    MergeMethod(
        "task_arithmetic",
        {"normalize": False, "lambda_": 1.0},
        coefficients=lambda products, weights, options: weighted(weights, **options),
    ),
    Parameter("lambda_", float, "Factor on the merged delta.", advanced=False),
)
register(
    _sparsified("ties", "largest", True, normalize=True, rescale=False),
    Parameter("rescale", bool, "Scale the kept entries to make up for the dropped ones."),
)
register(_sparsified("dare_linear", "random", False, normalize=False, rescale=True))
register(_sparsified("dare_ties", "random", True, normalize=False, rescale=True))
register(
    _sparsified("della", "rank", True, normalize=True, rescale=True, epsilon=0.15),
    Parameter(
        "epsilon", float, "Half the range of the keep probabilities around the density.", {"gt": 0, "lt": 1}
    ),
)
register(_sparsified("della_linear", "rank", False, normalize=False, rescale=True, epsilon=0.15))
register(
    _sparsified("breadcrumbs", "band", False, normalize=False, rescale=False, gamma=0.01),
    Parameter("gamma", float, "Share of the largest entries to drop.", {"ge": 0, "lt": 1}),
)
register(_sparsified("breadcrumbs_ties", "band", True, normalize=False, rescale=False, gamma=0.01))
register(
    MergeMethod("sce", {"select_topk": 1.0}, takes_weights=False, select=sce),
    Parameter("select_topk", float, "Share of the entries to keep, by variance.", {"gt": 0, "le": 1}),
)
register(
    MergeMethod(
        "model_stock",
        {},
        takes_weights=False,
        inputs=(2, MANY),
        coefficients=lambda products, weights, options: model_stock_coefficients(products),
        needs_gram=True,
    )
)
register(
    MergeMethod(
        "karcher",
        {"max_iter": 10, "tol": KARCHER_TOLERANCE},
        on_models=True,
        coefficients=lambda products, weights, options: karcher_coefficients(products, weights, **options),
        needs_gram=True,
        normalizes=lambda given: True,
    ),
    Parameter("max_iter", int, "Most iterations.", {"ge": 1}),
    Parameter("tol", float, "Angle at which the iteration stops.", {"gt": 0}),
)
register(MergeMethod(PEFT_FACTOR_LINEAR, {}))
