"""Types shared by the rooms."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray
    from tqdm import tqdm

    Arrays: TypeAlias = Mapping[str, NDArray[Any]]
    Ax: TypeAlias = Axes | Sequence[Axes] | NDArray[np.object_]
    Bar: TypeAlias = "tqdm[Any]"
    Data: TypeAlias = AnnData | MuData
    Floats: TypeAlias = NDArray[np.floating[Any]]
    Mask: TypeAlias = NDArray[np.bool_]
    Positions: TypeAlias = NDArray[np.intp]
    Seed: TypeAlias = int | np.random.Generator | None


class Unset(Enum):
    """Tells an argument that was not given from one that is None."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "<default>"


UNSET = Unset.UNSET
