"""What a fit is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sc_ldvae._options import Levels, ModelOptions, Schedule
    from sc_ldvae.counts import Cells
    from sc_ldvae.likelihoods import Block


@dataclass(frozen=True)
class Request:
    """Cells, and all else that a fit needs but which of them it trains on."""

    cells: Cells
    options: ModelOptions
    levels: Levels
    schedule: Schedule
    device: torch.device
    selects: bool = True
    """Whether factors with an adaptive prior may vanish; else all stay, and their prior stays with them."""
    blocks: tuple[Block, ...] = ()
    """Modalities of a joint fit, in the order of their genes; none: there is one, of which `options` tell."""
    weights: tuple[float, ...] | None = None
    """What the log-likelihood of each is multiplied by in training."""
    hide_modality: float = 0.0
    """Share of the cells that show and explain one of their modalities only, others in every step."""
