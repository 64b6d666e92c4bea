"""Adam on the flat buffers of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_ldvae.kernels import adam_sparse, adam_update, n_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_ldvae._typing import Arrays, Floats
    from sc_ldvae.engine._encoder import SparseGradient
    from sc_ldvae.engine._flat import Stretch

BETAS = (0.9, 0.95)
# The gradients of rare genes are far below torch's default eps after the mean over cells.
EPS = 1e-8
# Learning rates as multiples of the schedule's. The encoders' many weights only follow; dispersions have far to go.
RATES = {"encoder": 0.15, "decoder": 1.0, "dispersion": 1.5}


class Adam:
    """Adam on a flat buffer.

    Parameters
    ----------
    values, gradient
        The buffers.
    betas, eps
        As in torch.
    groups
        Sizes of the groups that the buffer is made of, and what each multiplies the learning rate by; None: one group.
    first_layers
        Weights that may be moved with a gradient that is not in its buffer.
    """

    def __init__(
        self,
        values: torch.Tensor,
        gradient: torch.Tensor,
        *,
        betas: tuple[float, float],
        eps: float,
        groups: Sequence[tuple[int, float]] | None = None,
        first_layers: Sequence[Stretch] = (),
    ) -> None:
        self._betas, self._eps = betas, eps
        self._arrays = [t.numpy() for t in (values, gradient, torch.zeros_like(values), torch.zeros_like(values))]
        self._n_steps = 0
        sizes, rates = zip(*groups or [(len(values), 1.0)], strict=True)
        ends = np.cumsum(sizes)
        self._all = _Stretches(len(values), ends - sizes, ends, np.array(rates))
        self._rest = self._all.without(first_layers)
        self._of_first_layers = [
            (self._all.rate_at(one.start), [self._like(one, moment) for moment in self._arrays[2:]])
            for one in first_layers
        ]

    def state(self) -> Arrays:
        """Moments of the gradient, and the number of steps."""
        return {"first": self._arrays[2], "second": self._arrays[3], "n_steps": np.array(self._n_steps)}

    def load(self, state: Arrays) -> None:
        """Go on from there."""
        self._arrays[2][:], self._arrays[3][:], self._n_steps = state["first"], state["second"], int(state["n_steps"])

    def step(self, lr: float, first_layers: Sequence[SparseGradient] = ()) -> None:
        """Update the values from the gradient that stands in its buffer, or is a product, of those `first_layers`."""
        self._n_steps += 1
        number = self._arrays[0].dtype.type
        corrections = [1 - beta**self._n_steps for beta in self._betas]
        rate = lr / corrections[0]
        scalars = [number(scalar) for scalar in (corrections[1] ** 0.5, *self._betas, self._eps)]
        for product, (own_rate, moments) in zip(first_layers, self._of_first_layers, strict=False):
            own = *product[1:], product.weight.value, *moments, number(rate * own_rate)
            adam_sparse(product.n_slices, *own, *scalars)
        n, starts, ends, rates = self._rest if first_layers else self._all
        adam_update(n_slices(n), starts, ends, *self._arrays, (rate * rates).astype(number), *scalars)

    @staticmethod
    def _like(stretch: Stretch, buffer: Floats) -> Floats:
        """What a buffer of the same layout has there."""
        return buffer[stretch.start : stretch.start + stretch.value.size].reshape(stretch.value.shape)


class _Stretches(NamedTuple):
    """Of a buffer, with their multiples of the learning rate."""

    n: int
    """Length of all together."""
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    rates: NDArray[np.float64]

    def rate_at(self, place: int) -> float:
        """Of the last one that begins before or at a place."""
        return float(self.rates[np.searchsorted(self.starts, place, "right") - 1])

    def without(self, taken: Sequence[Stretch]) -> _Stretches:
        """What is left when some are taken out."""
        starts = np.sort(np.concatenate([self.starts, [one.start + one.value.size for one in taken]]).astype(np.int64))
        ends = np.sort(np.concatenate([self.ends, [one.start for one in taken]]).astype(np.int64))
        return _Stretches(int((ends - starts).sum()), starts, ends, np.array([self.rate_at(start) for start in starts]))
