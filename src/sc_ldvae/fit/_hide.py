"""Cells of a minibatch that show one of their modalities alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.counts import PRESENT

if TYPE_CHECKING:
    from sc_ldvae.counts import Minibatch

# BatchNorm has no variance of one.
_FEWEST = 2


def hidden(minibatch: Minibatch, share: float, generator: torch.Generator) -> Minibatch:
    """The minibatch as one step sees it: a random `share` of the cells have but one, random, of their modalities.

    Else the encoders learn to rely on each other, and one alone, as in cells that lack a modality, tells little. A
    modality that all but one of the cells lack is taken out.
    """
    present = minibatch.annotations.get(PRESENT)
    if present is None:
        return minibatch
    shape, device = (len(present), present.shape[1] + 1), generator.device
    random = torch.rand(shape, generator=generator, dtype=torch.float32, device=device).cpu().numpy()
    alone = random[:, 0] < share
    chosen = np.where(present, random[:, 1:], -1).argmax(1)
    shown = present & (~alone[:, None] | (np.arange(present.shape[1]) == chosen[:, None]))
    shown &= shown.sum(0) >= _FEWEST
    return replace(minibatch, annotations={**minibatch.annotations, PRESENT: shown})
