"""The layer of one modality, where a call may name one for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from sc_ldvae._typing import UNSET, Unset

Layer: TypeAlias = Mapping[str, Any] | str | Unset | None


def layer_of(layer: Layer, modality: str | None = None) -> str | Unset | None:
    """The layer of a modality of a joint fit: where none is named for it, that of the fit; or of the only object.

    Raises
    ------
    TypeError
        If layers are named by modality, and there is one object.
    """
    if not isinstance(layer, Mapping):
        return layer
    if modality is None:
        msg = "layer names modalities, which only a joint fit has. Pass one layer."
        raise TypeError(msg)
    own: str | Unset | None = layer.get(modality, UNSET)
    return own
