"""What anndata has not read yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def frame_of(annotation: Any) -> pd.DataFrame:  # noqa: ANN401  a frame, or what anndata has in its place
    """An obs or a var, read into memory if it is not there."""
    return annotation if isinstance(annotation, pd.DataFrame) else annotation.to_memory()


def array_of(values: Any) -> Any:  # noqa: ANN401  any entry of obsm or varm
    """An entry of obsm or varm, computed if it is one that dask is to read; others as they are."""
    return np.asarray(values) if hasattr(values, "compute") else values
