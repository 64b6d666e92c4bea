"""What users call."""

from __future__ import annotations

from sc_ldvae.tl._ldvae import ldvae

__all__ = ["ldvae"]
