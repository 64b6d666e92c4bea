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


_TITLE = "LDVAE"


class Watcher(Protocol):
    """Is told twice in every round, and of what keeps it waiting."""

    def waits(self, what: str) -> None:
        """Something other than training is done now; nothing is any more if empty."""

    def trained(self, model: Model) -> None:
        """The steps of a round are done; held-out cells are not scored yet."""

    def scored(self, model: Model, history: History, reason: str) -> None:
        """The round is over; `reason` says why training stops, and is empty if it goes on."""


class Nobody:
    """Watches nothing."""

    def waits(self, what: str) -> None:
        """Nothing to do."""

    def trained(self, model: Model) -> None:
        """Nothing to do."""

    def scored(self, model: Model, history: History, reason: str) -> None:
        """Nothing to do."""


class Progress:
    """A bar of the rounds."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def waits(self, what: str) -> None:
        """It says so, and seconds of it are not counted as those of a round."""
        self._bar.set_description(f"{_TITLE} ({what})" if what else _TITLE)
        self._bar.unpause()

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
    with tqdm(total=rounds.n, desc=_TITLE, unit=unit, disable=not shown) as bar:
        yield Progress(bar)
