"""Comparing the deltas of several inputs: cosines, agreement of signs, norms by layer, rank spectra."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# pyarrow, safetensors and matplotlib are not fully typed.

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.merging.deltas import Deltas
from priorkit.merging.execute import map_tensors
from priorkit.merging.methods.arrays import gram
from priorkit.merging.names import layer_of
from priorkit.merging.plan import MergePlan
from priorkit.merging.tensors import FLOATS

SPECTRUM = 64
"""Leading singular directions kept of each matrix."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor's figures.

    Attributes:
        products: inner products of the inputs' deltas, ``[n, n]``.
        same_sign: entries where both deltas are non-zero and agree in sign, ``[n, n]``.
        both: entries where both deltas are non-zero, ``[n, n]``.
        base_norm: the norm of the base's tensor; NaN without a base.
        energies: squared singular values of each change, descending, ``[n, SPECTRUM]``; zeros for vectors.
    """

    products: Floats
    same_sign: Floats
    both: Floats
    base_norm: float
    energies: Floats


@dataclass(frozen=True, slots=True)
class DeltaComparison:
    """Figures of all tensors.

    Attributes:
        labels: the inputs.
        tensors: by name.
    """

    labels: tuple[str, ...]
    tensors: dict[str, TensorComparison]

    @property
    def cosine(self) -> Floats:
        """Cosines between the inputs' full deltas, ``[n, n]``; 0 where one is zero."""
        products = sum((t.products for t in self.tensors.values()), np.zeros((len(self.labels),) * 2))
        sizes = np.sqrt(np.diag(products))
        scale = np.outer(sizes, sizes)
        return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)

    @property
    def sign_agreement(self) -> Floats:
        """Share of entries, non-zero in both, whose signs agree, ``[n, n]``; NaN where there are none."""
        same = sum((t.same_sign for t in self.tensors.values()), np.zeros((len(self.labels),) * 2))
        both = sum((t.both for t in self.tensors.values()), np.zeros((len(self.labels),) * 2))
        return np.divide(same, both, out=np.full_like(same, np.nan), where=both > 0)

    @property
    def layer_norm(self) -> Floats:
        """Norms of the deltas by layer, ``[n, layers]``."""
        layers = [layer for name in self.tensors if (layer := layer_of(name)) is not None]
        squares = np.zeros((len(self.labels), max(layers, default=-1) + 1))
        for name, figures in self.tensors.items():
            layer = layer_of(name)
            if layer is not None:
                squares[:, layer] += np.diag(figures.products)
        return np.sqrt(squares)

    @property
    def spectrum(self) -> Floats:
        """Share of the squared norm of all matrices in the leading singular directions, ``[n, SPECTRUM]``.

        Column ``k`` is the share that LoRAs of rank ``k + 1`` could hold.
        """
        energies = sum((t.energies for t in self.tensors.values()), np.zeros((len(self.labels), SPECTRUM)))
        total = sum(
            (np.diag(t.products) for t in self.tensors.values() if t.energies.any()),
            np.zeros(len(self.labels)),
        )[:, None]
        return np.divide(np.cumsum(energies, 1), total, out=np.zeros_like(energies), where=total > 0)


def compare_inputs(plan: MergePlan, deltas: Deltas, workers: int) -> DeltaComparison:
    """Compare the inputs, a tensor at a time."""
    names = list(dict.fromkeys(name for s in plan.inputs for name in (*s.loras, *s.full)))
    names = [name for name in names if name not in plan.reference or plan.reference[name].dtype in FLOATS]
    labels = tuple(source.label for source in plan.inputs)

    def need(name: str) -> int:
        return math.prod(plan.shape_of(name)) * 4 * (len(labels) + 3)

    return DeltaComparison(
        labels, map_tensors(names, lambda name: _compare(plan, deltas, name), need, workers, "compare")
    )


def _compare(plan: MergePlan, deltas: Deltas, name: str) -> TensorComparison:
    shape = plan.shape_of(name)
    count = len(plan.inputs)
    values: list[NDArray[Any]] = []
    for source in plan.inputs:
        change = deltas.of(source, name)
        full = np.zeros(math.prod(shape), np.float32)
        if change is not None:
            for start, length in deltas.blocks(name):
                full[start : start + length] = change(start, length)
        values.append(full)
    same, both = np.zeros((count, count)), np.zeros((count, count))
    signs = [np.sign(value).astype(np.int8) for value in values]
    for row in range(count):
        for column in range(row + 1):
            product = signs[row] * signs[column]
            same[row, column] = same[column, row] = int((product > 0).sum())
            both[row, column] = both[column, row] = int((product != 0).sum())
    energies = np.zeros((count, SPECTRUM))
    if len(shape) > 1:
        for index, value in enumerate(values):
            if value.any():
                spectrum = _energies(value.reshape(shape[0], -1))[:SPECTRUM]
                energies[index, : len(spectrum)] = spectrum
    base_norm = math.nan
    if name in plan.reference:
        base = deltas.base(name)
        base_norm = math.sqrt(float(gram([base])[0, 0]))
    return TensorComparison(gram(values), same, both, base_norm, energies)


def _energies(matrix: NDArray[Any]) -> Floats:
    """Squared singular values, descending."""
    wide = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).astype(np.float64)
    return np.maximum(np.linalg.eigvalsh(wide @ wide.T)[::-1], 0.0)


def rows(analysis: DeltaComparison) -> list[dict[str, Any]]:
    """The table: a row per tensor and input.

    Columns: ``tensor, layer, input, norm, relative_norm`` (to the base's tensor), ``stable_rank``
    (squared Frobenius over squared spectral norm) and ``rank_90`` (directions that hold 90 % of the squared
    norm, at most 64; null where 64 hold less or the tensor is a vector).
    """
    table: list[dict[str, Any]] = []
    for name, figures in analysis.tensors.items():
        for index, label in enumerate(analysis.labels):
            square, energies = float(figures.products[index, index]), figures.energies[index]
            reached = np.flatnonzero(np.cumsum(energies) >= 0.9 * square) if energies[0] > 0 else np.zeros(0)
            norm = math.sqrt(square)
            table.append(
                {
                    "tensor": name,
                    "layer": layer_of(name),
                    "input": label,
                    "norm": norm,
                    "relative_norm": norm / figures.base_norm if figures.base_norm > 0 else None,
                    "stable_rank": square / float(energies[0]) if energies[0] > 0 else None,
                    "rank_90": int(reached[0]) + 1 if reached.size else None,
                }
            )
    return table


def write_comparison(analysis: DeltaComparison, folder: Path) -> dict[str, Any]:
    """Write ``table.parquet``, ``scores.safetensors`` and ``analysis.png``.

    Returns:
        The matrices for the manifest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    pq.write_table(pa.Table.from_pylist(rows(analysis)), folder / "table.parquet")
    arrays = {
        "cosine": analysis.cosine,
        "sign_agreement": analysis.sign_agreement,
        "layer_norm": analysis.layer_norm,
        "spectrum": analysis.spectrum,
    }
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "scores.safetensors"
    )
    _plot(analysis, folder / "analysis.png")
    norms = np.sqrt(sum(np.diag(figures.products) for figures in analysis.tensors.values()))
    return {
        "inputs": list(analysis.labels),
        "cosine": analysis.cosine.tolist(),
        "sign_agreement": [[None if math.isnan(x) else x for x in row] for row in analysis.sign_agreement],
        "norm": np.atleast_1d(norms).tolist(),
    }


def _plot(analysis: DeltaComparison, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    short = [f"{number}" for number in range(1, len(analysis.labels) + 1)]
    for panel, title, matrix, low in (
        (panels[0, 0], "cosine of the changes", analysis.cosine, -1.0),
        (panels[0, 1], "share of entries with equal signs", analysis.sign_agreement, 0.0),
    ):
        image = panel.imshow(matrix, vmin=low, vmax=1.0, cmap="RdBu" if low < 0 else "viridis")
        panel.set(title=title, xlabel="input", ylabel="input")
        panel.set_xticks(range(len(short)), short)
        panel.set_yticks(range(len(short)), short)
        figure.colorbar(image, ax=panel)
    for index, label in enumerate(analysis.labels):
        panels[1, 0].plot(analysis.layer_norm[index], marker="o", label=label)
        panels[1, 1].plot(range(1, SPECTRUM + 1), analysis.spectrum[index], label=label)
    panels[1, 0].set(title="norm of the change by layer", xlabel="layer", ylabel="norm")
    panels[1, 1].set(
        title="share held by leading singular directions", xlabel="rank", ylabel="share", ylim=(0, 1.02)
    )
    panels[1, 0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
