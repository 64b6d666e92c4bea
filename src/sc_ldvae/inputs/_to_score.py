"""The object of which a fit is to say how probable its counts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sc_ldvae.inputs._layer import Layer, layer_of
from sc_ldvae.inputs._modality import fitted_of, told_whose
from sc_ldvae.inputs._numbers import check_key, check_whole
from sc_ldvae.inputs._stored import for_likelihood
from sc_ldvae.inputs._stored_joint import for_joint_likelihood
from sc_ldvae.record import Record

if TYPE_CHECKING:
    from sc_ldvae._typing import Data
    from sc_ldvae.inputs._stored import Scorable


def to_score(
    data: Data,
    n_samples: int,
    key: str,
    modality: str | None,
    layer: Layer,
    key_added: str | None,
) -> tuple[Any, Scorable]:
    """That object, an AnnData or for a joint fit the MuData, and what says it.

    Raises
    ------
    ValueError, TypeError
        If there is no such fit, or something does not fit the data.
    """
    check_whole(n_samples=n_samples)
    check_key(key_added)
    found, stored = fitted_of(data, key, modality)
    if not isinstance(stored, Record):
        return found, for_joint_likelihood(found, stored, layer)
    with told_whose(data, found):
        return found, for_likelihood(found, stored, layer_of(layer))
