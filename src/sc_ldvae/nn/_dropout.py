"""Dropout masks from a counter: the same bits for every device and for the fused kernels."""

from __future__ import annotations

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood 2014), as signed numbers.
_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def seed(generator: torch.Generator | None, device: torch.device) -> Tensor:
    """A random integer."""
    return torch.empty((), dtype=torch.int64, device=device).random_(generator=generator)


def kept(like: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """One over the share kept where a value of `like` is kept, else 0."""
    state = (
        seed(generator, like.device) + torch.arange(1, like.numel() + 1, dtype=torch.int64, device=like.device) * _STEP
    )
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    uniform = _shifted(state ^ _shifted(state, 31), 40).to(like.dtype) * 2.0**-24
    return ((uniform >= rate).to(like.dtype) / (1 - rate)).view_as(like)


def _shifted(state: Tensor, n: int) -> Tensor:
    """Shift right without the sign."""
    return (state >> n) & ((1 << (64 - n)) - 1)
