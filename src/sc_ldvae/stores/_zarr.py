"""Dense counts in zarr; sparse ones come in anndata's classes. Imported when the first one comes."""

from __future__ import annotations

import zarr

from sc_ldvae.counts import source_of
from sc_ldvae.stores._backed import dense

source_of.register(zarr.Array, dense)
