"""Explained deviance of factors as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.get._per_modality import shares_by_modality
from sc_ldvae.inputs import fitted_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sc_ldvae._typing import Data

_TOOL = "explained_deviance"


@door
def explained_deviance(
    data: Data,
    *,
    by_group: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    """What :func:`sc_ldvae.tl.explained_deviance` measured, of all cells or by group.

    Parameters
    ----------
    data
        AnnData with such a result, or MuData with such a `modality` or a joint fit.
    by_group
        Give the groups of cells that were measured apart, in one modality.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    key_added
        The `key_added` of the result, by default ``'<key>_explained_deviance'``.

    Returns
    -------
    One row per factor, with `share` (of the null's deviance; the shares add up to the total less the base), `marginal`
    (what returns without the factor) and `cumulative` (the base and the shares up to this factor). With `by_group` one
    row per group, with `n_cells`, `total` (share that the whole model explains) and a column for the share of each
    factor.

    ``attrs`` holds `total` and `base` (share that is explained without any factor, as by covariates), `n_cells`, and
    the arguments `cells`, `thinned` (0: not) and `groupby`.

    Of all modalities of a joint fit: factors that have not vanished x modalities, with the share in each. ``attrs``
    holds `total`, `base` and `n_cells` by modality, and the arguments.

    Results of versions that measured no `share` have no such column, and no `base` by modality. Marginal shares stand
    in its place for groups and modalities, and `base` is that of a cell whose factors are at their mean, below zero.

    Raises
    ------
    ValueError
        If there is no such fit or result, if the result is of another fit, or if groups were not
        measured.

    See Also
    --------
    sc_ldvae.pl.explained_deviance : Plot the result.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.explained_deviance(adata, "batch", cells="all", progress=False)
    >>> sc_ldvae.get.explained_deviance(adata).columns.tolist()
    ['share', 'marginal', 'cumulative']
    >>> sc_ldvae.get.explained_deviance(adata, by_group=True).columns.tolist()
    ['n_cells', 'total', 'ldvae1', 'ldvae2', 'ldvae3']
    """
    shown, stored = fitted_of(data, key, modality)
    name = key_added or f"{key}_{_TOOL}"
    if isinstance(stored, record.JointRecord):
        return _of_modalities(shown, stored, name, by_group=by_group)
    parts = ("marginal", "cumulative", "total", "base", "n_cells", "params")
    result = record.read_result(shown, name, _TOOL, parts, stored)
    columns = {part: np.atleast_1d(result[part]) for part in ("share", "marginal", "cumulative") if part in result}
    frame = pd.DataFrame(columns, index=pd.Index(stored.factor_names, name="factor")).iloc[stored.left]
    if by_group:
        frame = _by_group(result, stored, name)
    frame.attrs.update({name: result[name].item() for name in ("total", "base", "n_cells")})
    frame.attrs.update(record.plain_params(result["params"]))
    return frame


def _of_modalities(data: Data, stored: record.JointRecord, name: str, *, by_group: bool) -> pd.DataFrame:
    if by_group:
        msg = "by_group=True was given, but groups of cells are measured in one modality. Name it with modality=."
        raise ValueError(msg)
    parts = ("modalities", "marginal", "total", "n_cells", "params")
    result = record.read_result(data, name, _TOOL, parts, stored)
    modalities = result["modalities"].tolist()
    frame = shares_by_modality(stored, modalities, result[_shares_in(result)], result["total"])
    frame.attrs["n_cells"] = dict(zip(modalities, map(int, result["n_cells"]), strict=True))
    if "share" in result:
        frame.attrs["base"] = dict(zip(modalities, map(float, result["base"]), strict=True))
    frame.attrs.update(record.plain_params(result["params"]))
    return frame


def _by_group(result: Mapping[str, Any], stored: record.Record, name: str) -> pd.DataFrame:
    if "groups" not in result:
        msg = f"by_group=True, but uns[{name!r}] has no groups. Call sc_ldvae.tl.{_TOOL} with groupby."
        raise ValueError(msg)
    groups = result["groups"]
    frame = pd.DataFrame(
        {name: np.atleast_1d(groups[name]) for name in ("n_cells", "total")},
        index=pd.Index(np.atleast_1d(groups["name"]), name="group"),
    )
    frame[stored.names_left] = groups[_shares_in(groups)][:, stored.left]
    return frame


def _shares_in(result: Mapping[str, Any]) -> str:
    """What a result calls the shares of its factors: those of older versions are marginal."""
    return "share" if "share" in result else "marginal"
