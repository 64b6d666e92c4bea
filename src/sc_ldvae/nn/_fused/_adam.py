"""Adam (Kingma and Ba 2015) as one pass over all parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.nn._fused._jit import kernel

if TYPE_CHECKING:
    from sc_ldvae.nn._fused._threads import Threads


class Adam:
    """Adam on one flat buffer."""

    def __init__(
        self, values: torch.Tensor, gradient: torch.Tensor, threads: Threads, *, betas: tuple[float, float], eps: float
    ) -> None:
        self._threads, self._betas, self._eps = threads, betas, eps
        self._arrays = [t.numpy() for t in (values, gradient, torch.zeros_like(values), torch.zeros_like(values))]
        self._n_steps = 0

    def step(self, lr: float) -> None:
        """Update the values from the gradient that stands in its buffer."""
        self._n_steps += 1
        number = self._arrays[0].dtype.type
        corrections = [1 - beta**self._n_steps for beta in self._betas]
        scalars = (lr / corrections[0], corrections[1] ** 0.5, *self._betas, self._eps)
        parts = self._threads.parts(len(self._arrays[0]))
        self._threads.run(_update, parts, *self._arrays, *(number(scalar) for scalar in scalars))


@kernel
def _update(part, n_parts, values, gradient, mean, square, step_size, root_correction, beta1, beta2, eps):
    """Update the part's values; `step_size` is the learning rate over the mean's bias correction."""
    n = len(values)
    own = slice(part * n // n_parts, (part + 1) * n // n_parts)
    p, g, m, v = values[own], gradient[own], mean[own], square[own]
    one = p.dtype.type(1)
    for i in range(len(p)):
        m[i] += (one - beta1) * (g[i] - m[i])
        v[i] += (one - beta2) * (g[i] * g[i] - v[i])
    for i in range(len(p)):
        p[i] -= step_size * m[i] / (np.sqrt(v[i]) / root_correction + eps)
