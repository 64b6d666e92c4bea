"""A step of Adam (Kingma and Ba 2015) as one pass over parameters.

With gradient g: ``m += (1 - beta1) (g - m)``, ``v += (1 - beta2) (g^2 - v)``,
``p -= step m / (sqrt(v) / root_correction + eps)``.
"""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._jit import part_of_kernel
from sc_ldvae.kernels._parallel import parallel_kernel
from sc_ldvae.kernels._sums import linear_map


@parallel_kernel
def adam_update(
    which, n_slices, starts, ends, values, gradient, mean, square, step_sizes, root_correction, beta1, beta2, eps
):
    """Move stretches of the moving averages of gradient and squared gradient, then of the values."""
    for i in range(len(starts)):
        n = ends[i] - starts[i]
        own = slice(starts[i] + which * n // n_slices, starts[i] + (which + 1) * n // n_slices)
        arrays = values[own], gradient[own], mean[own], square[own]
        _move(arrays[0], arrays[1], arrays[2], arrays[3], step_sizes[i], root_correction, beta1, beta2, eps)


@parallel_kernel
def adam_sparse(
    which,
    n_slices,
    indptr,
    columns,
    counts,
    factors,
    values,
    mean,
    square,
    step_size,
    root_correction,
    beta1,
    beta2,
    eps,
):
    """The same for a matrix whose gradient is ``sparse @ factors`` (`multiply`), one row of it at a time."""
    n = len(indptr) - 1
    gradient = np.empty(values.shape[1], values.dtype)
    for row in range(which * n // n_slices, (which + 1) * n // n_slices):
        first, last = indptr[row], indptr[row + 1]
        linear_map(gradient, factors, columns[first:last], counts[first:last])
        _move(values[row], gradient, mean[row], square[row], step_size, root_correction, beta1, beta2, eps)


@part_of_kernel
def _move(p, g, m, v, step_size, root_correction, beta1, beta2, eps):
    one = p.dtype.type(1)
    for i in range(len(p)):
        m[i] += (one - beta1) * (g[i] - m[i])
        v[i] += (one - beta2) * (g[i] * g[i] - v[i])
        p[i] -= step_size * m[i] / (np.sqrt(v[i]) / root_correction + eps)
