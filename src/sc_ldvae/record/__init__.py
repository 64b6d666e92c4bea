"""What a fit leaves in an AnnData: keys, format, decoding, writing, reading. Knows no torch."""

from __future__ import annotations

from sc_ldvae.record._covariance import packed, turned
from sc_ldvae.record._decoder import AffineMap, Decoder
from sc_ldvae.record._design import Categorical, Continuous, Design, numbers
from sc_ldvae.record._keys import DEFAULT, Keys
from sc_ldvae.record._record import SCHEMA_VERSION, Record, fits_in, read, strings
from sc_ldvae.record._state import State, state_of
from sc_ldvae.record._store import write

__all__ = [
    "DEFAULT",
    "SCHEMA_VERSION",
    "AffineMap",
    "Categorical",
    "Continuous",
    "Decoder",
    "Design",
    "Keys",
    "Record",
    "State",
    "fits_in",
    "numbers",
    "packed",
    "read",
    "state_of",
    "strings",
    "turned",
    "write",
]
