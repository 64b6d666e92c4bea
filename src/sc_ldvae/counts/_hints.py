"""What numbers that are no counts may be instead, and what to do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats

_LAYER = "name the layer that holds the raw counts, e.g. layer='counts'."
# Counts that were computed back from log-normalised values in single precision are this close to integers.
_NEARLY = 0.05
# Of a normalised cell, values over the smallest are ratios of small counts; so many cells tell.
_CELLS, _LARGEST_RATIO, _RATIO_ERROR = 200, 20.0, 2e-3
# Logs of single cells stay below this.
_LARGEST_LOG = 20.0
# Bases of the logs that people take.
_BASES = (math.e, 2.0, 10.0)


def advice(matrix: csr_matrix, what: str, name: str) -> str:
    """What to do about values of a kind: ``'missing or infinite'``, ``'negative'``, ``'too large'``, ``'decimals'``."""
    if what == "negative":
        return f"They look scaled or regressed out: {_LAYER}"
    if what == "too large":
        return (
            "No sequencer counts that far: an unsigned type in which a subtraction ran below zero looks like this. "
            "Take the counts from before it."
        )
    if what == "decimals":
        return _of_decimals(matrix, f"round them, adata.{name} = np.rint(adata.{name})")
    return f"N{_LAYER[1:]}"


def _of_decimals(matrix: csr_matrix, rounding: str) -> str:
    away = np.abs(matrix.data - np.rint(matrix.data))
    off = float(away.max())
    if off < _NEARLY:
        return (
            f"They are within {off:.1g} of integers, as counts are that were computed back from other values: "
            f"{rounding}."
        )
    if matrix.data.max() < _LARGEST_LOG and any(_has_ratios_of_counts(matrix, np.log(base)) for base in _BASES):
        return f"They look log-normalised: {_LAYER}"
    if _has_ratios_of_counts(matrix, None):
        return f"They look normalised: {_LAYER}"
    # How much rounding changes. Values that a correction for ambient RNA did not reach are integers.
    whole, typical = float((away == 0).mean()), float(away[away > 0].mean())
    return (
        f"Of the values beside zero {100 * whole:.0f} % are integers, and the others {typical:.2g} away from one on "
        f"average. If they are counts that were corrected or estimated, {rounding}, or {_LAYER}"
    )


def _has_ratios_of_counts(matrix: csr_matrix, log_base: float | None) -> bool:
    """Whether in most cells all small values are one unit's multiples, as scaled counts are; of logs, taken back."""
    cells = [own if log_base is None else np.expm1(own * log_base) for own in _some_cells(matrix)]
    verdicts = [_are_multiples(own) for own in cells if len(own) > 1]
    return sum(verdicts) > len(verdicts) / 2


def _some_cells(matrix: csr_matrix) -> list[NDArray[np.float64]]:
    rows = range(0, matrix.shape[0], -(-matrix.shape[0] // _CELLS))
    return [matrix.data[matrix.indptr[i] : matrix.indptr[i + 1]].astype(np.float64) for i in rows]


def _are_multiples(values: Floats) -> bool:
    values = np.sort(values)
    ratios = values[1:] / values[0]
    ratios = ratios[ratios <= max(_LARGEST_RATIO, ratios[0])]
    # The smallest count of a cell may be two or three.
    units = [smallest * ratios for smallest in (1, 2, 3)]
    return any(bool((np.abs(unit - np.rint(unit)) <= _RATIO_ERROR * unit).all()) for unit in units)
