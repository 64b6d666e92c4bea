"""Exchange with files and with other packages' models."""

from __future__ import annotations

from sc_ldvae.io._from_scvi import from_scvi
from sc_ldvae.io._open import open  # noqa: A004  the name of what it does
from sc_ldvae.io._read import read_counts
from sc_ldvae.io._to_scvi import to_scvi
from sc_ldvae.io._write_result import write_result

__all__ = ["from_scvi", "open", "read_counts", "to_scvi", "write_result"]
