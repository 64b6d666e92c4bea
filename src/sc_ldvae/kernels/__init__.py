"""Compiled functions of arrays: the likelihood and its gradient, sparse products, deviances. Knows NumPy only."""

from __future__ import annotations

from sc_ldvae.kernels._adam import adam_sparse, adam_update
from sc_ldvae.kernels._affine import fold_norm, norm_backward
from sc_ldvae.kernels._compare import compare, normalise
from sc_ldvae.kernels._compiling import Compilation, compiled_with
from sc_ldvae.kernels._count_loss import count_loss
from sc_ldvae.kernels._deviance import deviances
from sc_ldvae.kernels._first_layer import multiply
from sc_ldvae.kernels._heads import draw, draw_backward, head_backward, head_forward
from sc_ldvae.kernels._hidden import hidden_backward, hidden_forward
from sc_ldvae.kernels._kept import fill_kept
from sc_ldvae.kernels._proportions import add_proportions
from sc_ldvae.kernels._regression import dispersed_derivatives
from sc_ldvae.kernels._rows import SparseRows, first_other_row, gather_rows, rows_between, sparse_rows
from sc_ldvae.kernels._sums import matmul, matmul_transposed
from sc_ldvae.kernels._terms import TERMS
from sc_ldvae.kernels._threads import n_slices, n_threads, own_threads

__all__ = [
    "TERMS",
    "Compilation",
    "SparseRows",
    "adam_sparse",
    "adam_update",
    "add_proportions",
    "compare",
    "compiled_with",
    "count_loss",
    "deviances",
    "dispersed_derivatives",
    "draw",
    "draw_backward",
    "fill_kept",
    "first_other_row",
    "fold_norm",
    "gather_rows",
    "head_backward",
    "head_forward",
    "hidden_backward",
    "hidden_forward",
    "matmul",
    "matmul_transposed",
    "multiply",
    "n_slices",
    "n_threads",
    "norm_backward",
    "normalise",
    "own_threads",
    "rows_between",
    "sparse_rows",
]
