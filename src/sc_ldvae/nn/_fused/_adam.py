"""Adam (Kingma and Ba 2015) as one pass over all parameters."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange

from sc_ldvae.nn._fused._jit import parallel_kernel
from sc_ldvae.nn._fused._threads import n_parts


class Adam:
    """Adam on a flat buffer, or on a stretch of one."""

    def __init__(self, values: torch.Tensor, gradient: torch.Tensor, *, betas: tuple[float, float], eps: float) -> None:
        self._betas, self._eps = betas, eps
        self._arrays = [t.numpy() for t in (values, gradient, torch.zeros_like(values), torch.zeros_like(values))]
        self._n_steps = 0

    def step(self, lr: float) -> None:
        """Update the values from the gradient that stands in its buffer."""
        self._n_steps += 1
        number = self._arrays[0].dtype.type
        corrections = [1 - beta**self._n_steps for beta in self._betas]
        scalars = (lr / corrections[0], corrections[1] ** 0.5, *self._betas, self._eps)
        _update(n_parts(len(self._arrays[0])), *self._arrays, *(number(scalar) for scalar in scalars))


@parallel_kernel
def _update(parts, values, gradient, mean, square, step_size, root_correction, beta1, beta2, eps):
    n = len(values)
    one = values.dtype.type(1)
    for part in prange(parts):
        own = slice(part * n // parts, (part + 1) * n // parts)
        p, g, m, v = values[own], gradient[own], mean[own], square[own]
        for i in range(len(p)):
            m[i] += (one - beta1) * (g[i] - m[i])
            v[i] += (one - beta2) * (g[i] * g[i] - v[i])
            p[i] -= step_size * m[i] / (np.sqrt(v[i]) / root_correction + eps)
