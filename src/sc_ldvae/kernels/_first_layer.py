"""The encoders' first layers as one product of sparse counts and stacked weights, and its gradient."""

from __future__ import annotations

from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._sums import linear_map


@parallel_kernel
def multiply(which, n_slices, indptr, columns, values, weights, out):
    """Fill ``out = sparse @ weights``, where `columns` and `values` are the sparse matrix's nonzeros.

    With the nonzeros by gene and the gradient of the output as `weights`, this is the gradient of the weights: a sum of
    a few rows for each gene, without sorting and without two threads that write to one place.
    """
    n = len(indptr) - 1
    for row in range(which * n // n_slices, (which + 1) * n // n_slices):
        first, last = indptr[row], indptr[row + 1]
        linear_map(out[row], weights, columns[first:last], values[first:last])
