"""The training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sc_ldvae.counts import n_minibatches
from sc_ldvae.fit._history import History
from sc_ldvae.fit._schedule import kl_weights, learning_rate, n_epochs, patience
from sc_ldvae.fit._scores import mean_elbo
from sc_ldvae.fit._watcher import Nobody

if TYPE_CHECKING:
    from sc_ldvae._options import Schedule
    from sc_ldvae._typing import Mask, Positions
    from sc_ldvae.counts import Cells
    from sc_ldvae.engine import Engine
    from sc_ldvae.fit._watcher import Watcher
    from sc_ldvae.nn import LDVAE


@dataclass(frozen=True)
class Permutations:
    """Random orders from torch's generator, of which the draws of the model come, too."""

    generator: torch.Generator

    def permutation(self, n: int) -> Positions:
        """The numbers below `n` in random order."""
        return (
            torch.randperm(n, generator=self.generator, dtype=torch.int64, device=self.generator.device).cpu().numpy()
        )


def train(
    model: LDVAE,
    engine: Engine,
    cells: Cells,
    held_out: Mask,
    schedule: Schedule,
    generator: torch.Generator,
    watcher: Watcher | None = None,
    history: History | None = None,
    last: int | None = None,
) -> tuple[History, str]:
    """Maximise the ELBO of the training cells; leave the model in the state that was best on the others.

    A schedule may be gone through in parts, with another model in each.

    Parameters
    ----------
    model
        Changed in place; it ends in evaluation mode.
    engine
        What computes steps of this model.
    cells
        Training cells and others.
    held_out
        Which are the others, n_obs.
    schedule
        Length, minibatch size, peak learning rate.
    generator
        Source of everything random, on the model's device.
    watcher
        Who is told.
    history
        Of the epochs before, which is continued.
    last
        Epoch at which to leave off in the midst of the schedule, with the model as it is then.

    Returns
    -------
    One entry per epoch, and why training stopped.

    Raises
    ------
    FloatingPointError
        If an ELBO stops being a finite number.
    """
    training, others = (~held_out).nonzero()[0], held_out.nonzero()[0]
    max_epochs = n_epochs(schedule, len(training))
    n_steps = max_epochs * n_minibatches(len(training), schedule.batch_size)
    rising, permutations, watcher = kl_weights(n_steps), Permutations(generator), watcher or Nobody()
    history, best_state, reason = history or History(), None, ""
    step = len(history.epoch) * n_minibatches(len(training), schedule.batch_size)

    while not reason and len(history.epoch) != last:
        model.train()
        elbo = torch.zeros((), dtype=torch.float32, device=generator.device)
        history.lr.append(learning_rate(step, n_steps, schedule.lr))
        for minibatch in cells.shuffled(training, schedule.batch_size, permutations):
            kl_weight = rising[min(step, len(rising) - 1)]
            terms = engine.step(minibatch, learning_rate(step, n_steps, schedule.lr), kl_weight, generator)
            elbo += terms.per_cell().detach().sum()
            step += 1
        history.epoch.append(len(history.epoch) + 1)
        history.kl_weight.append(kl_weight)
        history.elbo.append(float(elbo) / len(training))
        _check_finite("ELBO", history.elbo[-1], history)
        watcher.trained(model)
        model.eval()
        if len(others):
            history.elbo_held_out.append(mean_elbo(engine, cells, others))
            _check_finite("held-out ELBO", history.elbo_held_out[-1], history)
            if last is None and history.best_epoch() == len(history.epoch) - 1:
                best_state = {key: value.clone() for key, value in model.state_dict().items()}
        reason = _reason_to_stop(history, max_epochs, early_stopping=schedule.early_stopping and last is None)
        watcher.scored(model, history, reason)

    if best_state is not None:
        model.load_state_dict(best_state)
    return history, reason


def _check_finite(what: str, elbo: float, history: History) -> None:
    if not math.isfinite(elbo):
        msg = f"The {what} became {elbo} in epoch {history.epoch[-1]}."
        raise FloatingPointError(msg)


def _reason_to_stop(history: History, max_epochs: int, *, early_stopping: bool) -> str:
    epoch = history.epoch[-1]
    since_best = epoch - 1 - history.best_epoch()
    if early_stopping and since_best >= patience(max_epochs):
        return f"held-out ELBO best in epoch {epoch - since_best}, not improved for {since_best} epochs"
    return f"max_epochs={max_epochs} reached" if epoch == max_epochs else ""
