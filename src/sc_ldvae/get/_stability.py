"""Stability of factors over refits as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.get._per_modality import stacked
from sc_ldvae.inputs import fitted_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sc_ldvae._typing import Data

_TOOL = "stability"


@door
def stability(
    data: Data, *, key: str = record.DEFAULT, modality: str | None = None, key_added: str | None = None
) -> pd.DataFrame:
    """What :func:`sc_ldvae.tl.stability` found for each factor.

    Parameters
    ----------
    data
        AnnData with such a result, or MuData with such a `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    key_added
        The `key_added` of the result, by default ``'<key>_stability'``.

    Returns
    -------
    One row per factor, with `score` (expected cosine with its match in a fit to as many other cells), `replication`
    (mean over the pairs of refits of the cosine of its matches), `cosine` (mean over the refits of that with its
    match), `span` (mean cosine of its match in one refit with all factors of the other), `splits` and `merges` (whether
    most refits share it among several factors, or join it to another). ``attrs`` holds the `n_seeds`, `subsample`
    and `rotation` (empty: none) that it was called with.

    Raises
    ------
    ValueError
        If there is no such fit or result, or if the result is of another fit.

    See Also
    --------
    sc_ldvae.pl.stability : Plot the result.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.stability(adata, n_seeds=2, progress=False)
    >>> sc_ldvae.get.stability(adata).columns.tolist()
    ['score', 'replication', 'cosine', 'span', 'splits', 'merges']
    """
    names = ("score", "replication", "cosine", "span", "splits", "merges")
    parts, params, stored = _parts(data, names, key, modality, key_added)
    frame = pd.DataFrame(
        {
            "score": parts["score"],
            "replication": parts["replication"].mean(axis=0),
            "cosine": parts["cosine"].mean(axis=0),
            "span": parts["span"],
            "splits": parts["splits"].astype(bool),
            "merges": parts["merges"].astype(bool),
        },
        index=pd.Index(stored.factor_names, name="factor"),
    ).iloc[stored.left]
    frame.attrs.update(params)
    return frame


@door
def consensus_loadings(
    data: Data, *, key: str = record.DEFAULT, modality: str | None = None, key_added: str | None = None
) -> pd.DataFrame:
    """Mean of the loadings over the refits of :func:`sc_ldvae.tl.stability`.

    Loadings of factors that come back are about those of the fit; of others, little is left.

    Parameters
    ----------
    data
        AnnData with such a result, or MuData with such a `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    key_added
        The `key_added` of the result, by default ``'<key>_stability'``.

    Returns
    -------
    Fitted genes (of a joint fit (modality, gene)) x factors, in the unit of the loadings. ``attrs`` holds the
    `n_seeds`, `subsample` and `rotation` (empty: none; else of the rotated factors) that the tool was called with.

    Raises
    ------
    ValueError
        As :func:`stability`.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.stability(adata, n_seeds=2, progress=False)
    >>> sc_ldvae.get.consensus_loadings(adata).shape
    (50, 3)
    """
    parts, params, stored = _parts(data, ("consensus",), key, modality, key_added)
    views = stored.views
    starts = np.cumsum([len(view.genes) for view in views.values()])[:-1]
    frames = {
        name: pd.DataFrame(rows.copy(), index=pd.Index(view.genes), columns=stored.factor_names)
        for (name, view), rows in zip(views.items(), np.split(parts["consensus"], starts), strict=True)
    }
    frame = stacked(frames).iloc[:, stored.left]
    frame.attrs.update(params)
    return frame


def replication(data: Data, key: str, modality: str | None, key_added: str | None) -> np.ndarray:
    """Cosines of the factors' matches in each pair of refits, n_pairs x factors that have not vanished."""
    parts, _, stored = _parts(data, ("replication",), key, modality, key_added)
    return parts["replication"][:, stored.left]


def _parts(
    data: Data, names: Sequence[str], key: str, modality: str | None, key_added: str | None
) -> tuple[dict[str, np.ndarray], dict[str, Any], record.Record | record.JointRecord]:
    """Arrays of the result, its parameters, and the fit."""
    shown, stored = fitted_of(data, key, modality)
    result = record.read_result(shown, key_added or f"{key}_{_TOOL}", _TOOL, (*names, "params"), stored)
    parts = {part: result[part] for part in names}
    return parts, record.plain_params(result["params"]), stored
