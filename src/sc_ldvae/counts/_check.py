"""The door for counts: what is not a count is refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

# Log-normalised values of single cells stay below this; counts that are not integers for other reasons rarely do.
_LARGEST_LOG_VALUE = 20


def check_counts(matrix: Any, name: str) -> sparse.csr_matrix:  # noqa: ANN401  either of two families
    """Counts as a canonical float32 CSR matrix, whatever array type they came in.

    Parameters
    ----------
    matrix
        Cells x genes: a NumPy array or a SciPy sparse matrix of any number type. It is not changed.
    name
        What messages call it, such as ``"X"`` or ``"layers['counts']"``.

    Raises
    ------
    TypeError
        If it does not hold numbers.
    ValueError
        If a value is missing, infinite, negative or not an integer.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_ldvae.counts import check_counts
    >>> check_counts(np.array([[0, 2], [1, 0]]), "X").data
    array([2., 1.], dtype=float32)
    """
    if matrix.dtype.kind not in "biuf":
        msg = f"{name} has the type {matrix.dtype}; counts must be numbers."
        raise TypeError(msg)
    csr = sparse.csr_matrix(matrix)
    if not csr.has_canonical_format or (csr.data == 0).any():
        # A copy, in a type that no sum overflows.
        csr = csr.astype(np.float64)
        csr.sum_duplicates()
        csr.eliminate_zeros()
    _check_values(csr.data, name)
    return csr.astype(np.float32)


def check_no_empty_cell(totals: NDArray[np.floating], names: Sequence[str] | pd.Index, n_vars: int, name: str) -> None:
    """Refuse cells without any count: their library, and so their likelihood, would be zero."""
    empty = np.flatnonzero(totals == 0)
    if len(empty):
        msg = (
            f"{len(empty)} of {len(totals)} cells have no counts in {name} over the {n_vars} genes of the fit "
            f"(for example {names[empty[0]]!r}). Remove them, e.g. with "
            "sc.pp.filter_cells(adata, min_counts=1), or fit more genes (mask_var)."
        )
        raise ValueError(msg)


def _check_values(values: NDArray[Any], name: str) -> None:
    checks: dict[str, Callable[[], NDArray[np.bool_]]] = {
        "missing or infinite": lambda: ~np.isfinite(values),
        "negative": lambda: values < 0,
        "not integers": lambda: values != np.rint(values),
    }
    for what, is_wrong in checks.items():
        wrong = is_wrong()
        n_wrong = int(wrong.sum())
        if n_wrong:
            msg = (
                f"{name} holds {n_wrong} values that are {what} (for example {values[wrong][0]:.4g}), but LDVAE models "
                f"raw counts.{_hint(values, what)}"
            )
            raise ValueError(msg)


def _hint(values: NDArray[Any], what: str) -> str:
    if what == "not integers" and values.max() < _LARGEST_LOG_VALUE:
        return " They look log-normalised: name the layer that holds the raw counts, e.g. layer='counts'."
    if what == "negative":
        return " They look scaled or regressed out: name the layer that holds the raw counts, e.g. layer='counts'."
    return " Name the layer that holds them, e.g. layer='counts'."
