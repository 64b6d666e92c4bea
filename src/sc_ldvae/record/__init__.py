"""What a fit leaves in an AnnData: keys, format, decoding; all that writes it and reads it. Knows no torch."""

from __future__ import annotations

from sc_ldvae.record._comparison import read_comparison, write_comparison
from sc_ldvae.record._covariance import turned, unpacked
from sc_ldvae.record._decoder import AffineMap, Decoder
from sc_ldvae.record._design import MEAN, Categorical, Continuous, Design, Setting
from sc_ldvae.record._extended import write_others
from sc_ldvae.record._file import check_view
from sc_ldvae.record._folded import Folded
from sc_ldvae.record._joint import JointRecord, joint_fits_in, read_joint
from sc_ldvae.record._keys import DEFAULT, Keys
from sc_ldvae.record._marks import columns_in, held_out
from sc_ldvae.record._moved import (
    write_joint_fit,
    write_joint_rotated,
    write_joint_state,
    write_projected,
    write_rotated,
)
from sc_ldvae.record._new_file import check_suffix, opened, write_matrix, write_object, written_whole
from sc_ldvae.record._new_fit import Asked, JointFit, NewFit, storable, write_fit
from sc_ldvae.record._obs import ObsError, column_of, levels_of, numbers
from sc_ldvae.record._read import fits_in, read
from sc_ldvae.record._record import ALONE, Record
from sc_ldvae.record._renamed import write_renamed
from sc_ldvae.record._results import plain_params, read_result, write_result
from sc_ldvae.record._scores import write_scores
from sc_ldvae.record._sealed import SCHEMA_VERSION
from sc_ldvae.record._state import State, check_cells, shown_latent, shown_variance, state_of
from sc_ldvae.record._store import write

__all__ = [
    "ALONE",
    "DEFAULT",
    "MEAN",
    "SCHEMA_VERSION",
    "AffineMap",
    "Asked",
    "Categorical",
    "Continuous",
    "Decoder",
    "Design",
    "Folded",
    "JointFit",
    "JointRecord",
    "Keys",
    "NewFit",
    "ObsError",
    "Record",
    "Setting",
    "State",
    "check_cells",
    "check_suffix",
    "check_view",
    "column_of",
    "columns_in",
    "fits_in",
    "held_out",
    "joint_fits_in",
    "levels_of",
    "numbers",
    "opened",
    "plain_params",
    "read",
    "read_comparison",
    "read_joint",
    "read_result",
    "shown_latent",
    "shown_variance",
    "state_of",
    "storable",
    "turned",
    "unpacked",
    "write",
    "write_comparison",
    "write_fit",
    "write_joint_fit",
    "write_joint_rotated",
    "write_joint_state",
    "write_matrix",
    "write_object",
    "write_others",
    "write_projected",
    "write_renamed",
    "write_result",
    "write_rotated",
    "write_scores",
    "written_whole",
]
