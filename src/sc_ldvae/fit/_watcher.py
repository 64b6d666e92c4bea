"""Who is told how the training goes: the progress bar, a stopwatch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sc_ldvae._typing import Bar
    from sc_ldvae.fit._history import History
    from sc_ldvae.fit._schedule import Rounds
    from sc_ldvae.nn import Model


class Watcher(Protocol):
    """Is told twice in every round."""

    def trained(self, model: Model) -> None:
        """The steps of a round are done; held-out cells are not scored yet."""

    def scored(self, model: Model, history: History, reason: str) -> None:
        """The round is over; `reason` says why training stops, and is empty if it goes on."""


class Nobody:
    """Watches nothing."""

    def trained(self, model: Model) -> None:
        """Nothing to do."""

    def scored(self, model: Model, history: History, reason: str) -> None:
        """Nothing to do."""


class Progress:
    """A bar of the rounds."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def trained(self, model: Model) -> None:
        """The bar waits for the score."""

    def scored(self, model: Model, history: History, reason: str) -> None:  # noqa: ARG002  a bar shows no model
        """One round more."""
        held_out = f", held-out {history.elbo_held_out[-1]:.1f}" if history.elbo_held_out else ""
        stopped = f", stopped: {reason}" if reason else ""
        self._bar.update()
        self._bar.set_postfix_str(f"ELBO {history.elbo[-1]:.1f}{held_out}{stopped}")


@contextmanager
def progress_bar(rounds: Rounds, *, shown: bool) -> Iterator[Progress]:
    """A bar for so many rounds."""
    unit = "epoch" if rounds.per_epoch == 1 else "round"
    with tqdm(total=rounds.n, desc="LDVAE", unit=unit, disable=not shown) as bar:
        yield Progress(bar)
