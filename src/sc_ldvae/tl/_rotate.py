"""A fit's factors rotated towards simple structure, as a fit of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import record
from sc_ldvae._modality import obs_of, pick_modality
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Data, Floats, Unset
    from sc_ldvae.assess import Method


def rotate(
    data: Data,
    method: Method = "varimax",
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    layer: str | Unset | None = UNSET,
    copy: bool = False,
) -> Data | None:
    """Rotate the factors of a fit towards loadings of which few are large, most near zero.

    The model stays the same: latent and loadings turn together, so decoded means, scores, comparisons and draws are
    those of the fit, to rounding. What each factor stands for is another: what shows, drops or sets single factors
    works with the rotated ones. The posterior of a cell is independent over factors before the rotation only; its
    covariance is ``T.T @ diag(variance) @ T`` for the stored variance and the matrix T of the rotation.

    A rotation always starts from the factors as they were fitted, so to rotate a rotated fit gives what rotating the
    first gives.

    Parameters
    ----------
    data
        Fitted AnnData with raw counts, or MuData with such a `modality`. The counts are needed for the deviance that
        the rotated factors explain; without them, see :func:`sc_ldvae.get.loadings`.
    method
        ``'varimax'`` (orthogonal: factors stay independent under the prior) [Kaiser1958]_ or ``'promax'`` (oblique:
        factors may be correlated, each with prior variance 1) [HendricksonWhite1964]_. Genes are weighted by how well
        they are measured.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    key_added
        Name of the rotated fit. It must be given.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    copy
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the copy. `data` gets the entries that :func:`ldvae` describes, under `key_added`: latent and loadings of
    the rotated factors, ordered by explained deviance and signed; the posterior variance before the rotation; library,
    mark of held-out cells and record, which also holds the matrix: ``uns[key_added]['rotation']``, n_latent x n_latent.

    Raises
    ------
    ValueError
        If there is no such fit or method, if `key_added` is missing or that of the fit, if counts or genes are missing,
        or if factors are shares of one (``latent_distribution='ln'``). `data` is not changed.

    References
    ----------
    .. [Kaiser1958] Kaiser (1958). The varimax criterion for analytic rotation in factor analysis. Psychometrika 23:187.
    .. [HendricksonWhite1964] Hendrickson, White (1964). Promax: a quick method for rotation to oblique simple
       structure. British Journal of Statistical Psychology 17:65.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.rotate(adata, "promax", key_added="promax")
    >>> sc_ldvae.get.loadings(adata, key="promax").columns.tolist()
    ['promax1', 'promax2', 'promax3']
    """
    from sc_ldvae.get._loadings import rotation_of
    from sc_ldvae.tl import _arguments as door

    if key_added is None:
        msg = "key_added is missing: the rotated fit stands beside the first. Give a name, such as 'varimax'."
        raise ValueError(msg)
    door.check_key(key_added)
    adata = pick_modality(data, modality)
    fit, keys = record.read(adata, key), record.Keys.named(key_added)
    overwritten = set(fit.keys.to_dict().values()) & set(keys.to_dict().values())
    if overwritten:
        msg = f"key_added={key_added!r} would overwrite {min(overwritten)!r} of the fit itself. Give another name."
        raise ValueError(msg)
    values = _entries(adata, fit, rotation_of(adata, fit, method, "method"), keys, layer)
    result = data.copy() if copy else data
    record.write(pick_modality(result, modality), values)
    return result if copy else None


def _entries(
    adata: AnnData, fit: record.Record, matrix: Floats, keys: record.Keys, layer: str | Unset | None
) -> dict[str, dict[str, Any]]:
    """Values to set, by attribute of the AnnData and key."""
    from sc_ldvae.tl._project import loadings_entries, rotated_latent

    state = record.state_of(adata, fit)
    matrix, explained = _by_deviance(adata, fit, state, matrix, layer)
    content = fit.content_for(keys) | explained
    content |= {"rotation": matrix, "decoder": _rotated(fit, matrix).to_dict()}
    if fit.loadings_covariance is not None:
        turned = record.turned(fit.loadings_covariance, fit.turn_to(matrix))
        content["loadings_covariance"] = record.packed(turned)
    columns = {keys.library: fit.keys.library, keys.held_out: fit.keys.held_out}
    return {
        "obsm": {keys.latent: rotated_latent(state.latent, matrix), keys.variance: state.variance.copy()},
        "varm": loadings_entries(adata, record.Record(keys, content), keys),
        "obs": {new: obs_of(adata)[old].to_numpy() for new, old in columns.items() if old in adata.obs},
        "uns": {keys.uns: content},
    }


def _by_deviance(
    adata: AnnData, fit: record.Record, state: record.State, matrix: Floats, layer: str | Unset | None
) -> tuple[Floats, dict[str, Any]]:
    """The same rotation with the factors in the order of what they explain, and what they explain for the record."""
    from sc_ldvae.fit import Decoded, deviance_on_held_out
    from sc_ldvae.tl._stored import fitted_counts

    obs = obs_of(adata)
    decoded = Decoded(
        fitted_counts(adata, fit, layer),
        state.latent @ matrix,
        fit.design.matrix(obs),
        state.library.astype(np.float64),
        fit.theta_groups(adata),
    )
    held_out = np.asarray(obs.get(fit.keys.held_out, np.zeros(len(obs))), dtype=bool)
    total, shares = deviance_on_held_out(_rotated(fit, matrix), decoded, held_out)
    order = np.argsort(-shares, kind="stable")
    explained = {"explained_deviance": shares[order], "total_explained_deviance": total}
    return np.ascontiguousarray(matrix[:, order]), explained


def _rotated(fit: record.Record, matrix: Floats) -> record.Decoder:
    return fit.decoder.rotated(np.linalg.inv(matrix).T)
