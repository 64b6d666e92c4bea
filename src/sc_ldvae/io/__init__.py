"""Exchange with files."""

from __future__ import annotations

from sc_ldvae.io._read import read_counts

__all__ = ["read_counts"]
