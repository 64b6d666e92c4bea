"""A stopwatch beside a fit: it stands still while a state of the model is put aside."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from sc_ldvae.fit import History
    from sc_ldvae.nn import LDVAE


class Round(NamedTuple):
    """An epoch, or where a fit's epochs are long a part of one."""

    epochs: float
    """Passes over the training cells until its end."""
    trained: float
    """Seconds until its last step."""
    done: float
    """Seconds until its held-out cells are scored, too."""


class Clock:
    """Seconds of a call, of its epochs, and the module's states on the way.

    Parameters
    ----------
    folder
        Where states go, so that they take no memory of the process; None to keep none.
    every
        Keep the state of every so many epochs, and of all epochs before the first of these.
    """

    def __init__(self, folder: Path | None = None, every: int = 1) -> None:
        self._folder, self._every = folder, every
        self._start, self._paused = time.perf_counter(), 0.0
        self.rounds: list[Round] = []
        self._begun = math.nan
        self.states: list[tuple[int, float, Path, torch.nn.Module]] = []
        self.module: torch.nn.Module | None = None
        self.seconds = 0.0

    def start(self) -> None:
        """Begin the call."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """End the call."""
        self.seconds = self.now()

    def now(self) -> float:
        """Seconds since the start, without pauses."""
        return time.perf_counter() - self._start - self._paused

    def begin_training(self) -> None:
        """Note that the first step comes now, where somebody sees it come."""
        self._begun = self.now()

    def round_done(self, epochs: float, trained: float, module: torch.nn.Module) -> None:
        """Note that a round ended: after so many epochs, its last step at `trained` seconds, all else now."""
        seconds, begin = self.now(), time.perf_counter()
        self.rounds.append(Round(epochs, trained, seconds))
        self.module = module
        if self._folder is not None and _is_whole(epochs) and (epochs % self._every == 0 or epochs < self._every):
            path = self._folder / f"{epochs:.0f}.pt"
            torch.save(module.state_dict(), path)
            self.states.append((int(epochs), seconds, path, module))
        self._paused += time.perf_counter() - begin

    @property
    def n_epochs(self) -> int:
        """How many epochs have begun."""
        return math.ceil(self.rounds[-1].epochs) if self.rounds else 0

    def epoch_seconds(self) -> list[float]:
        """Seconds of the steps of each whole epoch but the first one, whose beginning nobody saw."""
        seconds, epoch = [], 0.0
        for before, this in pairwise(self.rounds):
            if before.epochs >= 1:
                epoch += this.trained - before.done
                if _is_whole(this.epochs):
                    seconds.append(epoch)
                    epoch = 0.0
        return seconds

    def seconds_per_epoch(self) -> float:
        """Seconds of the steps of all rounds whose beginning was seen, over the epochs that they are."""
        seen = self.rounds if math.isnan(self._begun) else [Round(0, self._begun, self._begun), *self.rounds]
        if len(seen) == 1:
            return math.nan
        seconds = sum(this.trained - before.done for before, this in pairwise(seen))
        return seconds / (seen[-1].epochs - seen[0].epochs)


class ClockWatcher:
    """Tells a clock of the rounds of our loop, as the progress bar is told; see `sc_ldvae.fit.Watcher`."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._trained = clock, 0.0

    def waits(self, what: str) -> None:
        """Nothing to do."""

    def trained(self, model: LDVAE) -> None:  # noqa: ARG002  the clock wants the time alone
        """The steps of a round are done."""
        self._trained = self._clock.now()

    def scored(self, model: LDVAE, history: History, reason: str) -> None:  # noqa: ARG002  the clock asks for no reason
        """The held-out cells are scored, too."""
        self._clock.round_done(history.epoch[-1], self._trained, model)


def _is_whole(epochs: float) -> bool:
    return float(epochs).is_integer()
