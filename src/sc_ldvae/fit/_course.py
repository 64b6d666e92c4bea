"""The training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.counts import evenly
from sc_ldvae.fit._history import History
from sc_ldvae.fit._schedule import kl_weights, learning_rate, rounds_of
from sc_ldvae.fit._scores import mean_elbo
from sc_ldvae.fit._watcher import Nobody

if TYPE_CHECKING:
    from collections.abc import Generator

    from sc_ldvae._options import Schedule
    from sc_ldvae._typing import Mask, Positions
    from sc_ldvae.counts import Cells, Minibatch
    from sc_ldvae.engine import Engine
    from sc_ldvae.fit._watcher import Watcher
    from sc_ldvae.nn import LDVAE

# Held-out cells that are scored after a round: the same every time, and with the same draws.
_WATCHED = 5000


@dataclass(frozen=True)
class Permutations:
    """Random orders from torch's generator, of which the draws of the model come, too."""

    generator: torch.Generator

    def permutation(self, n: int) -> Positions:
        """The numbers below `n` in random order."""
        return (
            torch.randperm(n, generator=self.generator, dtype=torch.int64, device=self.generator.device).cpu().numpy()
        )


class Course:
    """A training on its way, which may go on with another model.

    Parameters
    ----------
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
    """

    def __init__(
        self,
        cells: Cells,
        held_out: Mask,
        schedule: Schedule,
        generator: torch.Generator,
        watcher: Watcher | None = None,
    ) -> None:
        self.history = History()
        self._cells, self._training, others = cells, np.flatnonzero(~held_out), np.flatnonzero(held_out)
        self._watched = cells.kept(evenly(others, _WATCHED)) if len(others) else None
        self._schedule, self._rounds = schedule, rounds_of(schedule, len(self._training))
        self._generator, self._watcher = generator, watcher or Nobody()
        self._minibatches: Generator[Minibatch, None, None] = self._endlessly()
        self._rising, self._n_steps = kl_weights(self._rounds.n_steps), 0

    def run(self, model: LDVAE, engine: Engine, last: int | None = None) -> str:
        """Maximise the ELBO of the training cells; leave the model in the state that was best on the others.

        Parameters
        ----------
        model
            Changed in place; it ends in evaluation mode.
        engine
            What computes steps of this model.
        last
            Round after which to leave off in the midst of the schedule, with the model as it is then.

        Returns
        -------
        Why training stopped; empty if it was left off.

        Raises
        ------
        FloatingPointError
            If an ELBO stops being a finite number.
        """
        history, best_state, reason = self.history, None, ""
        while not reason and len(history.epoch) != last:
            model.train()
            self._train_a_round(engine)
            self._watcher.trained(model)
            model.eval()
            if self._watched is not None:
                history.elbo_held_out.append(mean_elbo(engine, self._watched, np.arange(self._watched.n_obs)))
                _check_finite("held-out ELBO", history.elbo_held_out[-1], history)
                if last is None and history.best() == len(history.epoch) - 1:
                    best_state = {key: value.clone() for key, value in model.state_dict().items()}
            reason = self._reason_to_stop(early=self._schedule.early_stopping and last is None)
            self._watcher.scored(model, history, reason)

        if best_state is not None:
            model.load_state_dict(best_state)
        return reason

    def close(self) -> None:
        """Let go of what is read ahead."""
        self._minibatches.close()

    def _train_a_round(self, engine: Engine) -> None:
        history, rounds, n_cells = self.history, self._rounds, 0
        elbo = torch.zeros((), dtype=torch.float32, device=self._generator.device)
        history.lr.append(self._lr())
        for _ in range(rounds.steps_after(len(history.epoch) + 1) - self._n_steps):
            minibatch = next(self._minibatches)
            kl_weight = self._rising[min(self._n_steps, len(self._rising) - 1)]
            terms = engine.step(minibatch, self._lr(), kl_weight, self._generator)
            elbo += terms.per_cell().detach().sum()
            n_cells += len(minibatch)
            self._n_steps += 1
        history.epoch.append(rounds.epoch_after(len(history.epoch) + 1))
        history.kl_weight.append(kl_weight)
        history.elbo.append(float(elbo) / n_cells)
        _check_finite("ELBO", history.elbo[-1], history)

    def _lr(self) -> float:
        return learning_rate(self._n_steps, self._rounds.n_steps, self._schedule.lr)

    def _endlessly(self) -> Generator[Minibatch, None, None]:
        """Epoch after epoch."""
        permutations = Permutations(self._generator)
        while True:
            yield from self._cells.shuffled(self._training, self._schedule.batch_size, permutations)

    def _reason_to_stop(self, *, early: bool) -> str:
        history = self.history
        best, n_rounds = history.best(), len(history.epoch)
        if early and n_rounds - 1 - best >= self._rounds.patience:
            since = history.epoch[-1] - history.epoch[best]
            return f"held-out ELBO best in epoch {history.epoch[best]:g}, not improved for {since:g} epochs"
        return f"max_epochs={self._rounds.n_epochs} reached" if n_rounds == self._rounds.n else ""


def _check_finite(what: str, elbo: float, history: History) -> None:
    if not math.isfinite(elbo):
        msg = f"The {what} became {elbo} in epoch {history.epoch[-1]:g}."
        raise FloatingPointError(msg)
