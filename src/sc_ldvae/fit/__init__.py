"""From checked counts to canonical factors: start, schedule, loop, folding. Knows no AnnData."""

from __future__ import annotations

from sc_ldvae.fit._fit import Fitted, fit
from sc_ldvae.fit._loop import Schedule, default_max_epochs

__all__ = ["Fitted", "Schedule", "default_max_epochs", "fit"]
