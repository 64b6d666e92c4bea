"""Dropout masks, the same bits as :func:`sc_ldvae.nn._dropout.kept`."""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._jit import kernel

_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _40 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(40)


@kernel
def fill_kept(seed, rate, first, width, out):
    """Fill columns `first` to `first + width` of `out` with 0, or one over the share kept."""
    inverse, zero, unit = out.dtype.type(1 / (1 - rate)), out.dtype.type(0), 2.0**-24
    # Compared as integers: uniform >= rate, where uniform has 24 bits.
    least = np.uint64(np.ceil(out.dtype.type(rate) / unit))
    for i in range(len(out)):
        row = out[i, first : first + width]
        start = np.uint64(seed) + np.uint64(i * width + 1) * _STEP
        for j in range(width):
            state = start + np.uint64(j) * _STEP
            state = (state ^ (state >> _30)) * _FIRST
            state = (state ^ (state >> _27)) * _SECOND
            row[j] = inverse if ((state ^ (state >> _31)) >> _40) >= least else zero
