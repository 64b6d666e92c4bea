"""Which function says how probable one cell's counts are: the type of what a likelihood hands over tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numba.extending import overload

from sc_ldvae.kernels._jit import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any]")

# Cells whose gradients are added to the weights' at once.
TILE = 8
N_SCRATCH = 4
NOTHING = np.empty(0, np.float32)
_INLINED: Any = {"forceinline": True, **OPTIONS}
_FUNCTIONS: dict[type, Callable[..., Any]] = {}


def row_loss(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    """Log-likelihood of one cell without the factorials of its counts; fills its gradients.

    Parameters
    ----------
    terms
        A named tuple of a likelihood's own arrays; its class tells the likelihood.
    group
        Row of the cell in arrays that have one per group of cells.
    log_library, proportions, log_proportions
        Log library; proportions of all genes; their logs at the nonzeros. Without a library the proportions are the
        expression itself, and the logs are not filled.
    genes, counts
        The cell's nonzeros.
    outputs
        Outputs of the linear maps, maps x genes: the log proportions up to a constant, then the parts that are such.
    scratch
        Room for N_SCRATCH rows of genes.
    gradients, i
        Rows of genes: by log expression in row `i`, by each part in `i` and multiples of TILE, linear maps first.
    """
    raise NotImplementedError


def row_of(terms: type) -> Callable[[_Function], _Function]:
    """Register `row_loss` for a class of terms."""

    def registered(function: _Function) -> _Function:
        _FUNCTIONS[terms] = function
        return function

    return registered


@overload(row_loss, jit_options=_INLINED)
def _row_loss(terms, group, log_library, proportions, log_proportions, genes, counts, outputs, scratch, gradients, i):
    return _FUNCTIONS[terms.instance_class]
