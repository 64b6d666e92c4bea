"""The arrays of a sparse matrix, looked at before what trusts them reads them: kernels, and SciPy's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COMPRESSED = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


def sound(matrix: Any, name: str) -> sparse.csr_matrix | sparse.csc_matrix:  # noqa: ANN401  either of two families
    """The same counts in compressed rows or columns, which share memory where they can.

    What the matrix says of itself, such as that its indices are sorted, is forgotten.

    Raises
    ------
    ValueError
        If its arrays do not fit together or point outside of it.
    """
    if matrix.format == "coo":
        for axis, positions in enumerate((matrix.row, matrix.col)):
            _check_positions(positions, matrix.shape[axis], name)
    if matrix.format == "bsr":
        _check_compressed(matrix, matrix.shape[0] // matrix.blocksize[0], matrix.shape[1] // matrix.blocksize[1], name)
    if matrix.format not in _COMPRESSED:
        matrix = matrix.tocsr()
    n_major, n_minor = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    _check_compressed(matrix, n_major, n_minor, name)
    return _COMPRESSED[matrix.format]((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _check_compressed(matrix: Any, n_major: int, n_minor: int, name: str) -> None:  # noqa: ANN401  any such format
    pointers, positions, n = matrix.indptr, matrix.indices, len(matrix.data)
    _check_kind(pointers, "indptr", name)
    if len(pointers) != n_major + 1:
        raise _damaged(name, f"indptr has {len(pointers)} entries, not {n_major + 1}")
    if pointers[0] != 0:
        raise _damaged(name, f"indptr starts at {pointers[0]}, not at 0")
    if (pointers[1:] < pointers[:-1]).any():
        raise _damaged(name, "indptr does not ascend")
    if len(positions) != n or pointers[-1] > n:
        raise _damaged(name, f"indptr ends at {pointers[-1]}, beside {len(positions)} indices and {n} values")
    _check_positions(positions[: pointers[-1]], n_minor, name)


def _check_positions(positions: NDArray[Any], n: int, name: str) -> None:
    _check_kind(positions, "indices", name)
    if len(positions) and not 0 <= (lowest := positions.min()) <= (highest := positions.max()) < n:
        outside = lowest if lowest < 0 else highest
        raise _damaged(name, f"an index is {outside}, but must be from 0 to {n - 1}")


def _check_kind(positions: NDArray[Any], what: str, name: str) -> None:
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise _damaged(name, f"{what} is {positions.dtype} with {positions.ndim} dimensions, not one of integers")


def _damaged(name: str, what: str) -> ValueError:
    return ValueError(f"{name} is a damaged sparse matrix: {what}. Read or build it again.")
