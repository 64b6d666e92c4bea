"""The door for counts: what is not a count is refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sc_ldvae._said import said
from sc_ldvae.counts._hints import advice
from sc_ldvae.counts._structure import sound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from sc_ldvae._typing import Positions

# No sequencer counts that far, and kernels turn counts into integers.
_TOO_LARGE = 2**31
# Values that are looked at at once, for a look makes copies.
_AT_ONCE = 2**22
_PLAIN = {np.dtype(np.float16): np.dtype(np.float32), np.dtype(np.longdouble): np.dtype(np.float64)}


class NotCountsError(ValueError):
    """Values are no counts: what was found, and what to do about it."""

    def __init__(self, found: str, example: str, to_do: str, place: tuple[int, int]) -> None:
        super().__init__(found, example, to_do, place)
        self.found, self.example, self.to_do = found, example, to_do
        # Positions, until somebody knows the names.
        self.cell: int | str = place[0]
        self.gene: int | str = place[1]

    def __str__(self) -> str:
        """As one text."""
        where = f"cell {self.cell!r}, gene {self.gene!r}"
        return f"{self.found} (for example {self.example} in {where}), but LDVAE models raw counts. {self.to_do}"


def check_counts(matrix: Any, name: str, genes: Positions | None = None) -> sparse.csr_matrix:  # noqa: ANN401  either of two families
    """Counts as a canonical float32 CSR matrix, whatever array type they came in.

    Parameters
    ----------
    matrix
        Cells x genes: a NumPy array or a SciPy sparse matrix of any number type. It is not changed.
    name
        What messages call it, such as ``"X"`` or ``"layers['counts']"``.
    genes
        Positions of the genes to read, in this order; all if None.

    Raises
    ------
    TypeError
        If it does not hold numbers.
    ValueError
        If a value is missing, infinite, negative, not an integer or 2**31 or more, or a sparse matrix is damaged.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_ldvae.counts import check_counts
    >>> check_counts(np.array([[0, 2], [1, 0]]), "X").data
    array([2., 1.], dtype=float32)
    """
    check_numbers(matrix, name)
    _check_mask(matrix.data if sparse.issparse(matrix) else matrix, name)
    plain = _in_plain_numbers(sound(matrix, name) if sparse.issparse(matrix) else np.ma.getdata(matrix))
    csr = sparse.csr_matrix(plain if genes is None else plain[:, genes])
    if not csr.has_canonical_format or not csr.data.all():
        # A copy, in a type that no sum overflows.
        csr = csr.astype(np.float64)
        csr.sum_duplicates()
        csr.eliminate_zeros()
    _check_values(csr, name)
    return csr.astype(np.float32, copy=False)


def check_numbers(matrix: Any, name: str) -> None:  # noqa: ANN401  whatever has a dtype
    """Refuse what holds no numbers, before any of it is read."""
    if matrix.dtype.kind not in "biuf":
        msg = f"{name} has the type {matrix.dtype}; counts must be numbers."
        raise TypeError(msg)


def check_no_empty_cell(totals: NDArray[np.floating], names: Sequence[str] | pd.Index, n_vars: int, name: str) -> None:
    """Refuse cells without any count: their library, and so their likelihood, would be zero."""
    empty = np.flatnonzero(totals == 0)
    if len(empty):
        msg = (
            f"{len(empty)} of {len(totals)} cells have no counts in {name} over the {n_vars} genes of the fit "
            f"(for example {said(names[empty[0]])}). Remove them, e.g. with "
            "sc.pp.filter_cells(adata, min_counts=1), or fit more genes (mask_var)."
        )
        raise ValueError(msg)


def _check_mask(values: NDArray[Any], name: str) -> None:
    if np.ma.is_masked(values):
        n_masked = int(np.ma.count_masked(values))
        msg = (
            f"{name} is a masked array, and {n_masked} of its values are masked. Say which counts they are, e.g. "
            f"adata.{name} = adata.{name}.filled(0)."
        )
        raise ValueError(msg)


def _in_plain_numbers(matrix: Any) -> Any:  # noqa: ANN401  either of two families
    """In a type that SciPy's sparse matrices can have: neither half nor extended precision, nor another byte order."""
    native = matrix.dtype.newbyteorder("=")
    dtype = _PLAIN.get(native, native)
    # What overflows becomes infinite, and is refused as such.
    with np.errstate(over="ignore"):
        return matrix if dtype == matrix.dtype else matrix.astype(dtype)


def _check_values(csr: sparse.csr_matrix, name: str) -> None:
    values = csr.data
    if not len(values) or (values.min() > 0 and values.max() < _TOO_LARGE and _are_whole(values)):
        return
    checks: dict[str, tuple[str, Callable[[], NDArray[np.bool_]]]] = {
        "missing or infinite": ("missing or infinite", lambda: ~np.isfinite(values)),
        "negative": ("negative", lambda: values < 0),
        "too large": ("2**31 or more", lambda: values >= _TOO_LARGE),
        "decimals": ("not integers", lambda: values != np.rint(values)),
    }
    for kind, (what, is_wrong) in checks.items():
        wrong = np.flatnonzero(is_wrong())
        if len(wrong):
            first = values[wrong[0]]
            # Of a number that is no integer so many digits that one sees it.
            example = str(first) if kind == "decimals" else f"{first:.4g}"
            place = int(np.searchsorted(csr.indptr, wrong[0], "right")) - 1, int(csr.indices[wrong[0]])
            found = f"{name} holds {len(wrong)} values that are {what}"
            raise NotCountsError(found, example, advice(csr, kind, name), place)


def _are_whole(values: NDArray[Any]) -> bool:
    if values.dtype.kind != "f":
        return True
    pieces = (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
    return all(bool((piece == np.rint(piece)).all()) for piece in pieces)
