"""Data sets that need no network."""

from __future__ import annotations

from sc_ldvae.datasets._pbmc68k import pbmc68k_counts
from sc_ldvae.datasets._simulate import simulate

__all__ = ["pbmc68k_counts", "simulate"]
