"""Types shared by the rooms."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    Data: TypeAlias = AnnData | MuData
    Floats: TypeAlias = NDArray[np.floating[Any]]
    Mask: TypeAlias = NDArray[np.bool_]
    Seed: TypeAlias = int | np.random.Generator | None


class Unset(Enum):
    """Tells an argument that was not given from one that is None."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "<default>"


UNSET = Unset.UNSET
