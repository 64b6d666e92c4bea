"""How long to train, at which learning rate and which weight of the divergence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sc_ldvae.counts import n_minibatches
from sc_ldvae.nn import FACTORY

if TYPE_CHECKING:
    from sc_ldvae._options import Schedule

# Shares of the whole schedule, in steps: the learning rate and the weight of the KL divergence rise for so long.
WARMUP = 0.1
PATIENCE = 0.4
# Share of the epochs in which the prior of the loadings chooses among the factors, and the fewest steps of a fit in
# which it can. By default there are so many times the epochs then: what is left takes over from more factors than
# there are in a fit that has as many from the start.
SELECTING = 0.45
LEAST_STEPS = 300
MORE_FOR_SELECTING = 1.1
# Learning rates at both ends, as shares of the peak.
LR_FIRST = 0.3
LR_LAST = 4e-6


def n_epochs(schedule: Schedule, n_training: int) -> int:
    """Epochs for so many training cells."""
    more = 1.0 if schedule.loadings_prior is None else MORE_FOR_SELECTING
    return schedule.max_epochs or default_max_epochs(n_training, schedule.batch_size, more)


def default_max_epochs(n_cells: int, batch_size: int, more: float = 1.0) -> int:
    """Epochs that come to at least 350 steps, or 6 times the square root of the number of cells, times `more`."""
    n_steps = more * max(350, 6 * math.sqrt(n_cells))
    return max(2, round(n_steps / n_minibatches(n_cells, batch_size)))


def n_selecting(schedule: Schedule, n_training: int) -> int:
    """First epochs, in which a prior of the loadings chooses among the factors; 0 in fits too short for that."""
    epochs = n_epochs(schedule, n_training)
    if epochs * n_minibatches(n_training, schedule.batch_size) < LEAST_STEPS:
        return 0
    return round(SELECTING * epochs)


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    """One cycle (Smith and Topin 2019): up to the peak and down to almost nothing, both along a cosine."""
    done = step / max(n_steps - 1, 1)
    if done < WARMUP:
        return peak * _cosine(LR_FIRST, 1, done / WARMUP)
    return peak * _cosine(1, LR_LAST, (done - WARMUP) / (1 - WARMUP))


def kl_weights(n_steps: int) -> list[float]:
    """Of the first steps; then it stays at the last of them, which is 1."""
    return torch.linspace(0, 1, max(2, round(WARMUP * n_steps)), **FACTORY).tolist()


def patience(max_epochs: int) -> int:
    """Epochs without a better held-out ELBO after which training stops."""
    return max(5, round(PATIENCE * max_epochs))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
