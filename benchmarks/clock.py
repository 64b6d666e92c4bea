"""A stopwatch beside a fit: it stands still while a state of the model is put aside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from sc_ldvae.fit import History
    from sc_ldvae.nn import LDVAE


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
        self.epochs: list[tuple[float, float]] = []
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

    def epoch_done(self, trained: float, module: torch.nn.Module) -> None:
        """Note that an epoch ended: its last step at `trained` seconds, everything that belongs to it now."""
        seconds, begin = self.now(), time.perf_counter()
        self.epochs.append((trained, seconds))
        self.module, epoch = module, len(self.epochs)
        if self._folder is not None and (epoch % self._every == 0 or epoch < self._every):
            path = self._folder / f"{epoch}.pt"
            torch.save(module.state_dict(), path)
            self.states.append((epoch, seconds, path, module))
        self._paused += time.perf_counter() - begin

    def epoch_seconds(self) -> list[float]:
        """Seconds of each epoch's steps but the first one's, whose beginning nobody saw."""
        return [trained - before for (_, before), (trained, _) in zip(self.epochs, self.epochs[1:], strict=False)]


class ClockWatcher:
    """Tells a clock of the epochs of our loop, as the progress bar is told; see `sc_ldvae.fit.Watcher`."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._trained = clock, 0.0

    def trained(self, model: LDVAE) -> None:  # noqa: ARG002  the clock wants the time alone
        """The steps of an epoch are done."""
        self._trained = self._clock.now()

    def scored(self, model: LDVAE, history: History, reason: str) -> None:  # noqa: ARG002  the clock wants the model alone
        """The held-out cells are scored, too."""
        self._clock.epoch_done(self._trained, model)
