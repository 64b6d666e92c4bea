"""Association of factors with what is known of the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import rankdata

from sc_ldvae import record
from sc_ldvae._modality import obs_of, pick_modality
from sc_ldvae.tl._per_factor import with_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data, Floats, Mask

_MOST_LEVELS = 50


def associate(
    data: Data,
    keys: Sequence[str] | None = None,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> Data | None:
    """Association of each factor with columns of `obs`: which of them it follows, and how closely.

    For a categorical column the statistic is eta squared, the share of the factor's variance that lies between the
    levels [Fisher25]_. For a numeric one it is Spearman's rank correlation [Spearman04]_. Counts are not needed.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    keys
        Columns of `obs`. By default all that are not constant and either numeric or categorical, boolean or text with 2
        to 50 levels, fewer than cells. Marks of held-out cells are left out.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    key_added
        Name of the result in `uns`, by default ``'<key>_associations'``.
    copy
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the copy. ``uns[key_added]`` gets arrays with one entry for each column of `obs` and factor:

    `factor`, `key`, `kind`
        Name of the factor, column of `obs`, and how it was read: ``'categorical'`` or ``'continuous'``.
    `statistic`
        Eta squared (0 to 1), or Spearman's correlation (-1 to 1, ties by average rank); 0 for a constant factor.
    `highest`, `lowest`
        Levels with the largest and the smallest mean of the factor; empty for a continuous column.

    Cells in which a column is missing are left out for that column. Where levels do not matter at all, eta squared is
    about (levels - 1) / (cells - 1), not 0.

    Raises
    ------
    ValueError
        If there is no such fit, or a column is unknown, constant, neither categorical nor numeric, or has as many
        levels as cells. `data` is not changed.

    See Also
    --------
    sc_ldvae.get.associations : The result as a frame, strongest first.

    References
    ----------
    .. [Fisher25] Fisher (1925). Statistical Methods for Research Workers. Oliver and Boyd.
    .. [Spearman04] Spearman (1904). The proof and measurement of association between two things. American Journal of
       Psychology 15:72.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.associate(adata, ["batch", "ldvae_library"])
    >>> adata.uns["ldvae_associations"]["factor"].tolist()
    ['ldvae1', 'ldvae2', 'ldvae3', 'ldvae1', 'ldvae2', 'ldvae3']
    """
    from sc_ldvae.tl import _arguments as door

    door.check_key(key_added)
    adata = pick_modality(data, modality)
    fit = record.read(adata, key)
    # Refuses cells without a latent. What it gives is the model's: the object's own may have been rotated since.
    record.state_of(adata, fit)
    latent = np.asarray(adata.obsm[fit.keys.latent], dtype=np.float64)
    marks = {str(one["keys"]["held_out"]) for one in record.fits_in(adata).values()}
    columns = _columns(obs_of(adata), keys, marks)
    parts = [{"factor": fit.factor_names, **column.with_factors(latent)} for column in columns]
    table = {
        name: np.concatenate([np.broadcast_to(np.asarray(part[name]), fit.n_latent) for part in parts])
        for name in parts[0]
    }
    return with_table(data, modality, key_added or f"{key}_associations", table, fit=fit, copy=copy)


@dataclass(frozen=True)
class _Column:
    """A column of obs, without the cells in which it is missing."""

    key: str
    known: Mask
    """n_obs: where it is not missing."""
    values: np.ndarray
    """Numbers, or positions among `levels`, of the known cells."""
    levels: tuple[str, ...] | None
    """None for a continuous column."""

    @classmethod
    def of(cls, obs: pd.DataFrame, key: str) -> _Column:
        column = obs[key]
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
            known = ~np.isnan(numbers)
            return cls(key, known, numbers[known], None)
        groups = pd.Categorical(column).remove_unused_categories()
        known = groups.codes >= 0
        return cls(key, known, groups.codes[known].astype(np.intp), tuple(map(str, groups.categories)))

    def problem(self) -> str | None:
        """What keeps it from being associated with anything."""
        if self.levels is None:
            constant = not self.known.any() or self.values.min() == self.values.max()
            return "has one value" if constant else None
        if len(self.levels) <= 1:
            return f"has {len(self.levels)} levels"
        return "has as many levels as cells" if len(self.levels) == len(self.values) else None

    def with_factors(self, latent: Floats) -> dict[str, object]:
        """Its part of the result."""
        latent = latent[self.known]
        if self.levels is None:
            statistic = _spearman(latent, self.values)
            return {"key": self.key, "kind": "continuous", "statistic": statistic, "highest": "", "lowest": ""}
        means, names = _means(latent, self.values), np.array(self.levels)
        return {
            "key": self.key,
            "kind": "categorical",
            "statistic": _eta_squared(latent, means, self.values),
            "highest": names[means.argmax(axis=0)],
            "lowest": names[means.argmin(axis=0)],
        }


def _columns(obs: pd.DataFrame, keys: Sequence[str] | None, marks: set[str]) -> list[_Column]:
    if isinstance(keys, str):
        msg = f"keys must be a list of columns of obs: [{keys!r}]."
        raise TypeError(msg)
    if keys is not None:
        columns = [_asked(obs, key) for key in dict.fromkeys(keys)]
    else:
        every = [_Column.of(obs, str(key)) for key in obs if key not in marks and _has_kind(obs[key])]
        columns = [column for column in every if not (column.problem() or len(column.levels or ()) > _MOST_LEVELS)]
    if not columns:
        msg = f"keys={keys!r} leaves no column of obs to associate with. Columns: {', '.join(map(repr, obs))}."
        raise ValueError(msg)
    return columns


def _asked(obs: pd.DataFrame, key: str) -> _Column:
    if key not in obs:
        msg = f"keys holds {key!r}, which is not a column of obs. Columns: {', '.join(map(repr, obs)) or 'none'}."
        raise ValueError(msg)
    if not _has_kind(obs[key]):
        msg = f"keys: obs[{key!r}] is {obs[key].dtype}, neither categorical nor numeric. Convert it, or leave it out."
        raise ValueError(msg)
    column = _Column.of(obs, key)
    problem = column.problem()
    if problem:
        msg = f"keys: obs[{key!r}] {problem}: there is nothing to associate with. Leave it out."
        raise ValueError(msg)
    return column


def _has_kind(column: pd.Series) -> bool:
    kinds = pd.api.types
    return (
        isinstance(column.dtype, pd.CategoricalDtype)
        or kinds.is_numeric_dtype(column.dtype)
        or kinds.is_string_dtype(column.dtype)
    )


def _means(latent: Floats, codes: np.ndarray) -> Floats:
    """Levels x factors."""
    sizes = np.bincount(codes)
    membership = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    return membership @ latent / sizes[:, None]


def _eta_squared(latent: Floats, means: Floats, codes: np.ndarray) -> Floats:
    centre = latent.mean(axis=0)
    between = np.bincount(codes) @ (means - centre) ** 2
    return _ratio(between, ((latent - centre) ** 2).sum(axis=0))


def _spearman(latent: Floats, numbers: Floats) -> Floats:
    ranks, others = rankdata(latent, axis=0), rankdata(numbers)
    ranks, others = ranks - ranks.mean(axis=0), others - others.mean()
    return _ratio(others @ ranks, np.sqrt((ranks**2).sum(axis=0) * (others**2).sum()))


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Zero where there is no variance."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0).clip(-1, 1)
