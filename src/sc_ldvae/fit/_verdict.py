"""Whether a training came to a result, or ran away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.assess import null_proportions
from sc_ldvae.counts import evenly, n_minibatches
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LOG_PROBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sc_ldvae._options import Schedule
    from sc_ldvae._typing import Floats, Mask, Positions
    from sc_ldvae.counts import Cells
    from sc_ldvae.fit._history import History
    from sc_ldvae.nn import Model

# Cells whose counts say how probable all are under the null: so many at most, of so many numbers.
_CELLS, _NUMBERS = 500, 2**21
# How far below the null, as a share of it and in nats, no ordinary fit ends: after a few steps, and after so many.
# Until then posteriors are far from priors, and BatchNorm's running moments, which held-out cells need, lag behind.
_FEW, _MANY, _STEPS = (5.0, 1000.0), (0.5, 50.0), 150
# Counts can't be more probable than certain, but for rounding.
_ABOVE_CERTAIN = 0.1


def check_result(model: Model, cells: Cells, held_out: Mask, history: History, schedule: Schedule) -> None:
    """Refuse parameters that are no numbers, and a model that says less of the cells than their mean proportions do.

    The null gives every cell its library times the genes' overall proportions, under the same likelihood with the
    dispersions that fits start from.

    Raises
    ------
    FloatingPointError
        If the training diverged.
    """
    if not all(bool(values.isfinite().all()) for values in model.state_dict().values()):
        msg = "The fit ended with parameters that are not finite."
        raise FloatingPointError(msg)
    training = np.flatnonzero(~held_out)
    n_steps = history.epoch[-1] * n_minibatches(len(training), schedule.batch_size)
    far = n_steps >= _STEPS
    null_of = _null(model, cells, training)
    _check_elbo("ELBO", history.elbo[-1], null_of(training), _MANY if far else _FEW)
    if history.elbo_held_out:
        null = null_of(np.flatnonzero(held_out))
        _check_elbo("held-out ELBO", max(history.elbo_held_out), null, _MANY if far else (math.inf, math.inf))


def _check_elbo(what: str, elbo: float, null: float, below: tuple[float, float]) -> None:
    if elbo > _ABOVE_CERTAIN * abs(null) + 1:
        msg = f"The {what} ended at {elbo:.6g} nats per cell, but counts can't be more probable than certain."
        raise FloatingPointError(msg)
    if elbo < null - below[0] * abs(null) - below[1]:
        msg = f"The {what} ended at {elbo:.6g} nats per cell, far below the {null:.6g} of the genes' mean proportions."
        raise FloatingPointError(msg)


def _null(model: Model, cells: Cells, training: Positions) -> Callable[[Positions], float]:
    """Mean log-likelihood of some of the cells that it is asked for."""
    views = cells.views(model.widths)
    nulls = [
        _null_of_view(view.gene_likelihood, own.cells, own.among(training))
        for view, own in zip(model.views, views, strict=True)
    ]

    def mean(asked: Positions) -> float:
        total = 0.0
        for null, own in zip(nulls, views, strict=True):
            some = own.among(asked)
            total += null(some) * len(some) / len(asked) if len(some) else 0.0
        return total

    return mean


def _null_of_view(likelihood: str, cells: Cells, training: Positions) -> Callable[[Positions], float]:
    most = max(1, min(_CELLS, _NUMBERS // cells.source.n_vars))
    some = evenly(training, most)
    rows, library = cells.source.rows(some).astype(np.float64), cells.library(some).astype(np.float64)
    null = null_proportions(LIKELIHOODS[likelihood], cells.source, training)
    start = LIKELIHOODS[likelihood].start(rows, library)
    log_expression = np.log(LIKELIHOODS[likelihood].expression(null, start))

    def mean(asked: Positions) -> float:
        scored = evenly(asked, most)
        counts, log_library = cells.source.rows(scored).toarray(), np.log(cells.library(scored))
        arguments = [counts, log_library[:, None] + log_expression, *(values[None] for values in start.values())]
        return float(LOG_PROBS[likelihood](*map(_double, arguments)).sum(1).mean())

    return mean


def _double(values: Floats) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")
