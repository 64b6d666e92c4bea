"""The encoders' first layers as one product of sparse counts and stacked weights, and its gradient."""

from __future__ import annotations

import numpy as np
from numba import prange

from sc_ldvae.kernels._jit import slice_of_kernel, stay_apart
from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._sums import linear_map


@parallel_kernel
def multiply(serial, n_slices, indptr, columns, values, weights, out):
    """Fill ``out = sparse @ weights``, where `columns` and `values` are the sparse matrix's nonzeros.

    With the nonzeros by gene and the gradient of the output as `weights`, this is the gradient of the weights: a sum of
    a few rows for each gene, without sorting and without two threads that write to one place.
    """

    def multiply_rows(which):
        _multiply_rows(np.int64(which), n_slices, indptr, columns, values, weights, out)

    if serial:
        for which in range(n_slices):
            multiply_rows(which)
    else:
        for which in prange(n_slices):
            multiply_rows(which)


@slice_of_kernel
def _multiply_rows(which, n_slices, indptr, columns, values, weights, out):
    stay_apart()
    n = len(indptr) - 1
    for row in range(which * n // n_slices, (which + 1) * n // n_slices):
        first, last = indptr[row], indptr[row + 1]
        linear_map(out[row], weights, columns[first:last], values[first:last])
