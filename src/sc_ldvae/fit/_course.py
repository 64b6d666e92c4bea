"""The training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae._tables import joined, parted
from sc_ldvae.counts import Share, evenly
from sc_ldvae.engine import Ranks
from sc_ldvae.fit._hide import hidden
from sc_ldvae.fit._history import History
from sc_ldvae.fit._schedule import kl_weights, learning_rate, rounds_of
from sc_ldvae.fit._scores import mean_elbo
from sc_ldvae.fit._watcher import Nobody

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from numpy.typing import NDArray

    from sc_ldvae._options import Schedule
    from sc_ldvae._typing import Arrays, Mask, Positions
    from sc_ldvae.counts import Cells, Minibatch
    from sc_ldvae.engine import AdaptivePriors, Engine
    from sc_ldvae.fit._checkpoint import Checkpoint
    from sc_ldvae.fit._watcher import Watcher
    from sc_ldvae.nn import Model

# Held-out cells that are scored after a round: the same every time, and with the same draws.
_WATCHED = 5000
# Seconds after which the state is kept, also in the midst of a round.
_BETWEEN_CHECKPOINTS = 60
# Numbers that say where a training stands.
_POSITION = ("attempt", "n_in_epoch", "n_steps", "n_in_round")


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
    """A training on its way, which may go on with another model, and from where it was left.

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
    checkpoint
        What keeps the state, and may have found one.
    attempt
        Which one at this training it is; a state that was found belongs to one of them.
    ranks
        Processes that train together.
    hide_modality
        Share of the cells that show one of their modalities alone, others in every step.
    """

    def __init__(
        self,
        cells: Cells,
        held_out: Mask,
        schedule: Schedule,
        generator: torch.Generator,
        watcher: Watcher | None = None,
        checkpoint: Checkpoint | None = None,
        attempt: int = 0,
        ranks: Ranks | None = None,
        hide_modality: float = 0.0,
    ) -> None:
        self._ranks = ranks = ranks or Ranks()
        self._hide_modality = hide_modality
        self._cells, self._training, others = cells, np.flatnonzero(~held_out), np.flatnonzero(held_out)
        self._watched = cells.kept(evenly(others, _WATCHED)[ranks.rank :: ranks.n]) if len(others) else None
        self._schedule, self._rounds = schedule, rounds_of(schedule, len(self._training), ranks.n)
        self._generator, self._draws, self._watcher = generator, generator, watcher or Nobody()
        if ranks.n > 1:
            # All have the same orders of the cells, and draws of their own.
            self._draws = torch.Generator(generator.device).manual_seed(generator.initial_seed() ^ (ranks.rank + 1))
        self._rising = kl_weights(self._rounds.n_steps)
        self._checkpoint, self._attempt, self._last_written = checkpoint, attempt, perf_counter()
        # Minibatches of the epoch so far, and the generator as it was before the order of its cells was drawn.
        self._n_in_epoch, self._before_epoch = 0, generator.get_state()
        # Steps and cells of the round so far, and the sum of their ELBOs.
        self._n_steps = self._n_in_round = 0
        self._elbo = torch.zeros((), dtype=torch.float32, device=generator.device)
        self.history = History()
        self._best: dict[str, torch.Tensor] = {}
        self._selected: Arrays = {}
        # What a model and its engine are still to be given.
        self._found: dict[str, dict[str, NDArray[Any]]] | None = None
        if checkpoint is not None and checkpoint.found is not None and checkpoint.attempt == attempt:
            self._found = parted(checkpoint.found, "best", "engine", "prior", "selected")
            self._take_up(self._found)
        self._minibatches = self._endlessly()

    def select(self, model: Model, engine: Engine, prior: AdaptivePriors, last: int) -> None:
        """Train until round `last`, for `prior` to learn which factors the cells support."""
        if self._found is not None and self._found["selected"]:
            prior.load(self._found["selected"])
        else:
            self.run(model, engine, prior, last)
        self._selected, self.history.n_selecting = prior.state(), last

    def run(self, model: Model, engine: Engine, prior: AdaptivePriors | None = None, last: int | None = None) -> str:
        """Maximise the ELBO of the training cells; leave the model in the state that was best on the others.

        Parameters
        ----------
        model
            Changed in place; it ends in evaluation mode.
        engine
            What computes steps of this model.
        prior
            The adaptive prior that it learns with, if there is one.
        last
            Round after which to leave off in the midst of the schedule, with the model as it is then.

        Returns
        -------
        Why training stopped; empty if it was left off.

        Raises
        ------
        FloatingPointError
            If an ELBO stops being a finite number.
        OSError
            If a checkpoint can't be written.
        """
        history, final = self.history, last is None
        if self._found is not None:
            model.load_state_dict(_tensors(self._found["model"]))
            engine.load(self._found["engine"])
            if prior is not None:
                prior.load(self._found["prior"])
            self._found = None
        model.eval()
        reason = self._reason_to_stop(final=final)
        if not history.epoch:
            self._keep(model, engine, prior)
        while not reason and len(history.epoch) != last:
            model.train()
            self._train_a_round(model, engine, prior)
            self._watcher.trained(model)
            model.eval()
            if self._watched is not None:
                history.elbo_held_out.append(self._score(engine, self._watched))
                _check_finite("held-out ELBO", history.elbo_held_out[-1], history)
                if final and history.best() == len(history.epoch) - 1:
                    self._best = {key: value.clone() for key, value in model.state_dict().items()}
            reason = self._reason_to_stop(final=final)
            self._watcher.scored(model, history, reason)
            self._keep(model, engine, prior)

        if final and self._best:
            model.load_state_dict(self._best)
        return reason

    def _train_a_round(self, model: Model, engine: Engine, prior: AdaptivePriors | None) -> None:
        history, n_rounds = self.history, len(self.history.epoch) + 1
        end = self._rounds.steps_after(n_rounds)
        if self._n_in_round == 0:
            history.lr.append(self._lr())
        while self._n_steps < end:
            minibatch = hidden(next(self._minibatches), self._hide_modality, self._draws)
            kl_weight = self._rising[min(self._n_steps, len(self._rising) - 1)]
            terms = engine.step(minibatch, self._lr(), kl_weight, self._draws)
            self._elbo += terms.per_cell().detach().sum()
            self._n_in_round += len(minibatch)
            self._n_steps += 1
            if self._is_overdue():
                self._keep(model, engine, prior)
        history.epoch.append(self._rounds.epoch_after(n_rounds))
        history.kl_weight.append(self._rising[min(self._n_steps, len(self._rising)) - 1])
        history.elbo.append(self._ranks.mean(float(self._elbo) / self._n_in_round, self._n_in_round))
        self._elbo, self._n_in_round = torch.zeros_like(self._elbo), 0
        _check_finite("ELBO", history.elbo[-1], history)

    def _score(self, engine: Engine, cells: Cells) -> float:
        """Mean ELBO of the watched cells of all processes."""
        # Some may have none.
        own = mean_elbo(engine, cells, np.arange(cells.n_obs)) if cells.n_obs else 0.0
        return self._ranks.mean(own, cells.n_obs)

    def _lr(self) -> float:
        return learning_rate(self._n_steps, self._rounds.n_steps, self._schedule.lr)

    def _endlessly(self) -> Generator[Minibatch, None, None]:
        """Epoch after epoch, from the minibatch that is next."""
        permutations, share = Permutations(self._generator), Share(self._ranks.rank, self._ranks.n)
        batch_size = self._schedule.batch_size
        while True:
            skipped = self._n_in_epoch % self._rounds.steps_per_epoch
            now = self._generator.get_state()
            if skipped:
                self._generator.set_state(self._before_epoch)
            else:
                self._n_in_epoch, self._before_epoch = 0, now
            for minibatch in self._cells.shuffled(self._training, batch_size, permutations, skipped, share):
                if skipped:
                    # The order of the epoch has been drawn again; what was drawn in it since then, is not.
                    self._generator.set_state(now)
                    skipped = 0
                self._n_in_epoch += 1
                yield minibatch

    def _reason_to_stop(self, *, final: bool) -> str:
        history = self.history
        if not history.epoch:
            return ""
        best, n_rounds = history.best(), len(history.epoch)
        if final and self._schedule.early_stopping and n_rounds - 1 - best >= self._rounds.patience:
            since = history.epoch[-1] - history.epoch[best]
            return f"held-out ELBO best in epoch {history.epoch[best]:g}, not improved for {since:g} epochs"
        return f"max_epochs={self._rounds.n_epochs} reached" if n_rounds == self._rounds.n else ""

    def _is_overdue(self) -> bool:
        """Whether the state has not been kept for long."""
        # Clocks differ, and several processes have to do it together.
        if self._checkpoint is None or self._ranks.n > 1:
            return False
        return perf_counter() - self._last_written > _BETWEEN_CHECKPOINTS

    def _keep(self, model: Model, engine: Engine, prior: AdaptivePriors | None) -> None:
        """Write the state, from which the same steps follow as from here."""
        if self._checkpoint is None:
            return
        position = {name: np.array(getattr(self, f"_{name}")) for name in _POSITION}
        generator = {"now": self._generator.get_state(), "before_epoch": self._before_epoch}
        generator["draws"] = self._ranks.gathered(self._draws.get_state())
        history = self.history.columns() | {"n_selecting": self.history.n_selecting}
        tables: dict[str, Arrays] = {
            "position": position | {"elbo": self._elbo.cpu().numpy()},
            "generator": _arrays(generator),
            "history": {name: np.array(values) for name, values in history.items()},
            "model": _arrays(model.state_dict()),
            "best": _arrays(self._best),
            "engine": engine.state(),
            "prior": {} if prior is None else prior.state(),
            "selected": self._selected,
        }
        if self._ranks.rank == 0:
            self._checkpoint.write(joined(tables))
        self._last_written = perf_counter()

    def _take_up(self, found: Mapping[str, Arrays]) -> None:
        """Stand where the state was written; model and engine follow."""
        for name in _POSITION:
            setattr(self, f"_{name}", int(found["position"][name]))
        self._elbo = torch.from_numpy(found["position"]["elbo"]).to(self._elbo)
        self._before_epoch = torch.from_numpy(found["generator"]["before_epoch"])
        self._generator.set_state(torch.from_numpy(found["generator"]["now"]))
        self._draws.set_state(torch.from_numpy(found["generator"]["draws"][self._ranks.rank]))
        self.history = History(**{name: values.tolist() for name, values in found["history"].items()})
        self._best = _tensors(found["best"])


def _arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _check_finite(what: str, elbo: float, history: History) -> None:
    if not math.isfinite(elbo):
        msg = f"The {what} became {elbo} in epoch {history.epoch[-1]:g}."
        raise FloatingPointError(msg)
