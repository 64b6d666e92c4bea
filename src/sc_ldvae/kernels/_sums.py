"""Weighted sums of rows, products with rows four at a time, and other loops that kernels share."""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._add_rows import add_rows
from sc_ldvae.kernels._jit import exp, kernel, part_of_kernel


@part_of_kernel
def add_products(out, rows, columns, x):
    """Add ``rows[:, columns] @ x`` to `out`, one value per row; the columns are a slice."""
    n, width = len(rows), len(x)
    k = 0
    while k + 4 <= n:
        r0, r1, r2, r3 = rows[k, columns], rows[k + 1, columns], rows[k + 2, columns], rows[k + 3, columns]
        s0 = s1 = s2 = s3 = x.dtype.type(0)
        for j in range(width):
            s0 += r0[j] * x[j]
            s1 += r1[j] * x[j]
            s2 += r2[j] * x[j]
            s3 += r3[j] * x[j]
        out[k] += s0
        out[k + 1] += s1
        out[k + 2] += s2
        out[k + 3] += s3
        k += 4
    while k < n:
        out[k] += dot(rows[k, columns], x)
        k += 1


@part_of_kernel
def dot(a, b):
    """Sum of the products."""
    total = a.dtype.type(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@part_of_kernel
def positions(n):
    """All of `n` rows, in the type in which kernels choose some: another one would be compiled for itself."""
    every = np.empty(n, np.int32)
    for i in range(n):
        every[i] = i
    return every


@part_of_kernel
def linear_map(out, rows, chosen, weights):
    """Fill `out` with ``weights @ rows[chosen]``."""
    out[:] = 0
    add_rows(out, rows, chosen, weights)


@part_of_kernel
def add_scaled(out, x, factor):
    """Add ``factor * x`` to `out`."""
    for j in range(len(out)):
        out[j] += factor * x[j]


@part_of_kernel
def scale(x, factor):
    """Multiply `x` by `factor`."""
    for j in range(len(x)):
        x[j] *= factor


@part_of_kernel
def exp_of(out, x):
    """Fill `out` with the exponential of `x`."""
    for j in range(len(x)):
        out[j] = exp(x[j])


def matmul(a, b):
    """``a @ b`` with the same bits for any number of threads: those of a BLAS change them.

    For small matrices its threads would also cost more than they save. Worse, its pool would wait for the cores on
    which the kernels' own threads spin.
    """
    out = np.empty((len(a), b.shape[1]), b.dtype)
    # In one layout, and positions in one type: each other one would be compiled for itself.
    _multiply(np.ascontiguousarray(a), np.ascontiguousarray(b), np.arange(len(b), dtype=np.int32), out)
    return out


def matmul_transposed(a, b):
    """``a @ b.T``, likewise."""
    out = np.zeros((len(a), len(b)), b.dtype)
    _multiply_transposed(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
    return out


@kernel
def _multiply(a, b, everything, out):
    for i in range(len(a)):
        linear_map(out[i], b, everything, a[i])


@kernel
def _multiply_transposed(a, b, out):
    for i in range(len(a)):
        add_products(out[i], b, slice(0, len(a[i])), a[i])
