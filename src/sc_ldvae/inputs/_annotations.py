"""What is known of the cells beside their counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.inputs._modality import obs_of
from sc_ldvae.record import Asked, Categorical, Continuous, Design, ObsError, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from sc_ldvae._options import Levels
    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.counts import Source


@dataclass(frozen=True)
class Columns:
    """Names of columns of obs, as they were given to :func:`sc_ldvae.tl.ldvae`."""

    batch_key: str | None = None
    labels_key: str | None = None
    categorical_covariate_keys: Sequence[str] | None = None
    continuous_covariate_keys: Sequence[str] | None = None
    size_factor_key: str | None = None


@dataclass(frozen=True)
class Annotations:
    """What the model is told of each cell beside its counts."""

    obs: pd.DataFrame
    design: Design
    labels: Categorical | None
    size_factor: Floats | None
    size_factor_unit: float = 1.0
    """Counts that a size factor of one stands for."""
    has_library: bool = True
    """Else the library of every cell is 1."""

    def in_counts_of(self, source: Source) -> Annotations:
        """The same with size factors whose mean is the mean total of the counts."""
        if self.size_factor is None:
            return self
        return replace(self, size_factor_unit=float(source.totals.sum() / source.n_obs / self.size_factor.mean()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arguments of the model's forward."""
        design = self.design
        arrays: dict[str, Any] = {
            "batch_index": None if design.batch is None else design.batch.codes(self.obs),
            "labels": None if self.labels is None else self.labels.codes(self.obs),
        }
        if design.categorical:
            arrays["cat_covs"] = np.stack([column.codes(self.obs) for column in design.categorical], 1)
        if design.continuous:
            arrays["cont_covs"] = np.stack([column.values(self.obs) for column in design.continuous], 1)
            arrays["cont_covs"] = arrays["cont_covs"].astype(np.float32)
        if self.size_factor is not None:
            arrays["size_factor"] = (self.size_factor * self.size_factor_unit).astype(np.float32)
        elif not self.has_library:
            arrays["size_factor"] = np.ones(len(self.obs), np.float32)
        return {name: array for name, array in arrays.items() if array is not None}

    def asked(self, mask: Mask, params: Mapping[str, Any]) -> Asked:
        """What a fit to the genes of `mask` was asked, for the record."""
        unit = None if self.size_factor is None else self.size_factor_unit
        return Asked(params, mask, self.design, self.labels, unit)

    @property
    def levels(self) -> Levels:
        """How many levels the model is built for."""
        return self.design.levels(self.labels)


def annotations_of(adata: AnnData, columns: Columns) -> Annotations:
    """Checked columns of obs."""
    obs, batch_key, labels_key = obs_of(adata), columns.batch_key, columns.labels_key
    categorical = _keys(columns.categorical_covariate_keys, "categorical_covariate_keys")
    continuous = _keys(columns.continuous_covariate_keys, "continuous_covariate_keys")
    every = [*([batch_key] if batch_key else []), *categorical, *continuous]
    repeated = {key for key in every if every.count(key) > 1}
    if repeated:
        msg = f"Covariates may be named once only, but {', '.join(map(repr, sorted(repeated)))} stands twice."
        raise ValueError(msg)
    batch = None if batch_key is None else Categorical.fit(obs, batch_key, "batch_key")
    categories = tuple(Categorical.fit(obs, key, "categorical_covariate_keys") for key in categorical)
    for argument, columns_of_it in (
        ("batch_key", [batch] if batch else []),
        ("categorical_covariate_keys", categories),
    ):
        for column in columns_of_it:
            _check_sizes(obs, column, argument)
    design = Design(
        batch=batch,
        categorical=categories,
        continuous=tuple(Continuous.fit(obs, key, "continuous_covariate_keys") for key in continuous),
    )
    labels = None if labels_key is None else Categorical.fit(obs, labels_key, "labels_key")
    size_factor = None if columns.size_factor_key is None else size_factors(obs, columns.size_factor_key)
    return Annotations(obs, design, labels, size_factor)


def size_factors(obs: pd.DataFrame, key: str) -> Floats:
    """A column of positive numbers."""
    values = numbers(obs, key, "size_factor_key")
    if (values <= 0).any():
        msg = (
            f"size_factor_key: obs[{key!r}] is not above zero in {(values <= 0).sum()} cells, but size factors must be."
        )
        raise ObsError(msg)
    return values


def _keys(keys: Sequence[str] | None, argument: str) -> list[str]:
    if isinstance(keys, str):
        msg = f"{argument} must be a list of columns of obs: [{keys!r}]."
        raise TypeError(msg)
    return [] if keys is None else list(keys)


def _check_sizes(obs: pd.DataFrame, column: Categorical, argument: str) -> None:
    sizes = np.bincount(column.codes(obs), minlength=len(column.levels))
    if sizes.min() == 1 < len(sizes):
        level = column.levels[int(sizes.argmin())]
        msg = (
            f"{argument}: {level!r} of obs[{column.key!r}] has one cell, too few to fit its effect. "
            "Remove the cell, or merge the level with another."
        )
        raise ObsError(msg)
