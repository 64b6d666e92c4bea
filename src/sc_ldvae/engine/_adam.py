"""Adam on the flat buffers of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.kernels import adam_update, n_slices

if TYPE_CHECKING:
    from sc_ldvae._typing import Arrays

BETAS = (0.9, 0.95)
# The gradients of rare genes are far below torch's default eps after the mean over cells.
EPS = 1e-8
# Learning rates as multiples of the schedule's. The encoders' many weights only follow; dispersions have far to go.
RATES = {"encoder": 0.15, "decoder": 1.0, "dispersion": 1.5}


class Adam:
    """Adam on a flat buffer, or on a stretch of one."""

    def __init__(self, values: torch.Tensor, gradient: torch.Tensor, *, betas: tuple[float, float], eps: float) -> None:
        self._betas, self._eps = betas, eps
        self._arrays = [t.numpy() for t in (values, gradient, torch.zeros_like(values), torch.zeros_like(values))]
        self._n_steps = 0

    def state(self) -> Arrays:
        """Moments of the gradient, and the number of steps."""
        return {"first": self._arrays[2], "second": self._arrays[3], "n_steps": np.array(self._n_steps)}

    def load(self, state: Arrays) -> None:
        """Go on from there."""
        self._arrays[2][:], self._arrays[3][:], self._n_steps = state["first"], state["second"], int(state["n_steps"])

    def step(self, lr: float) -> None:
        """Update the values from the gradient that stands in its buffer."""
        self._n_steps += 1
        number = self._arrays[0].dtype.type
        corrections = [1 - beta**self._n_steps for beta in self._betas]
        scalars = (lr / corrections[0], corrections[1] ** 0.5, *self._betas, self._eps)
        adam_update(n_slices(len(self._arrays[0])), *self._arrays, *(number(scalar) for scalar in scalars))
