"""What a fit leaves in an AnnData: keys, format, decoding; all that writes it and reads it. Knows no torch."""

from __future__ import annotations

from sc_ldvae.record._comparison import read_comparison, write_comparison
from sc_ldvae.record._covariance import turned
from sc_ldvae.record._decoder import AffineMap, Decoder
from sc_ldvae.record._design import Categorical, Continuous, Design, numbers
from sc_ldvae.record._folded import Folded
from sc_ldvae.record._keys import DEFAULT, Keys
from sc_ldvae.record._moved import write_projected, write_rotated
from sc_ldvae.record._new_fit import Asked, NewFit, storable, write_fit
from sc_ldvae.record._record import SCHEMA_VERSION, Record, fits_in, marks_in, read
from sc_ldvae.record._results import plain_column, plain_params, read_result, write_result
from sc_ldvae.record._state import State, state_of
from sc_ldvae.record._store import write, write_scores
from sc_ldvae.record._strings import strings

__all__ = [
    "DEFAULT",
    "SCHEMA_VERSION",
    "AffineMap",
    "Asked",
    "Categorical",
    "Continuous",
    "Decoder",
    "Design",
    "Folded",
    "Keys",
    "NewFit",
    "Record",
    "State",
    "fits_in",
    "marks_in",
    "numbers",
    "plain_column",
    "plain_params",
    "read",
    "read_comparison",
    "read_result",
    "state_of",
    "storable",
    "strings",
    "turned",
    "write",
    "write_comparison",
    "write_fit",
    "write_projected",
    "write_result",
    "write_rotated",
    "write_scores",
]
