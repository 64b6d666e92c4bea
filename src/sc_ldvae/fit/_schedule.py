"""How long to train, at which learning rate and which weight of the divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sc_ldvae.counts import n_minibatches
from sc_ldvae.nn import FACTORY

if TYPE_CHECKING:
    from sc_ldvae._options import Schedule

# Shares of the whole schedule, in steps: the learning rate and the weight of the KL divergence rise for so long.
WARMUP = 0.1
PATIENCE = 0.4
# Share of the rounds in which the prior of the loadings chooses among the factors, and the fewest steps of a fit in
# which it can. By default there are so many times the epochs then: what is left takes over from more factors than
# there are in a fit that has as many from the start.
SELECTING = 0.45
LEAST_STEPS = 300
MORE_FOR_SELECTING = 1.1
# Rounds of a fit, where its epochs are so long that a part of one has so many steps.
_ROUNDS, _SHORTEST_ROUND = 10, 200
# Learning rates at both ends, as shares of the peak.
LR_FIRST = 0.3
LR_LAST = 4e-6


@dataclass(frozen=True)
class Rounds:
    """What a training is made of: epochs, each of as many steps, and rounds, after each of which cells are scored.

    A round is an epoch. Where epochs are long and few, it is a part of one.
    """

    n_epochs: int
    steps_per_epoch: int

    @property
    def n_steps(self) -> int:
        """Steps in all."""
        return self.n_epochs * self.steps_per_epoch

    @property
    def per_epoch(self) -> int:
        """Rounds of an epoch."""
        return max(1, min(-(-_ROUNDS // self.n_epochs), self.steps_per_epoch // _SHORTEST_ROUND))

    @property
    def n(self) -> int:
        """Rounds in all."""
        return self.n_epochs * self.per_epoch

    @property
    def n_selecting(self) -> int:
        """First rounds, in which a prior of the loadings chooses among the factors; 0 in fits too short for that."""
        return round(SELECTING * self.n) if self.n_steps >= LEAST_STEPS else 0

    @property
    def patience(self) -> int:
        """Rounds without a better held-out ELBO after which training stops."""
        return max(5, round(PATIENCE * self.n))

    def epoch_after(self, n_rounds: int) -> float:
        """Passes over the training cells in so many rounds."""
        epochs, more = divmod(n_rounds, self.per_epoch)
        return epochs + more / self.per_epoch if more else epochs

    def steps_after(self, n_rounds: int) -> int:
        """Steps in so many rounds."""
        return round(self.epoch_after(n_rounds) * self.steps_per_epoch)


def rounds_of(schedule: Schedule, n_training: int, n_ranks: int = 1) -> Rounds:
    """For so many training cells, of which each of `n_ranks` processes has its minibatches."""
    more = 1.0 if schedule.loadings_prior is None else MORE_FOR_SELECTING
    n_epochs = schedule.max_epochs or default_max_epochs(n_training, n_ranks * schedule.batch_size, more)
    return Rounds(n_epochs, n_minibatches(n_training, schedule.batch_size, n_ranks))


def default_max_epochs(n_cells: int, batch_size: int, more: float = 1.0) -> int:
    """Epochs that come to at least 350 steps, or 6 times the square root of the number of cells, times `more`."""
    n_steps = more * max(350, 6 * math.sqrt(n_cells))
    return max(1, round(n_steps / n_minibatches(n_cells, batch_size)))


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    """One cycle (Smith and Topin 2019): up to the peak and down to almost nothing, both along a cosine."""
    done = step / max(n_steps - 1, 1)
    if done < WARMUP:
        return peak * _cosine(LR_FIRST, 1, done / WARMUP)
    return peak * _cosine(1, LR_LAST, (done - WARMUP) / (1 - WARMUP))


def kl_weights(n_steps: int) -> list[float]:
    """Of the first steps; then it stays at the last of them, which is 1."""
    return torch.linspace(0, 1, max(2, round(WARMUP * n_steps)), **FACTORY).tolist()


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
