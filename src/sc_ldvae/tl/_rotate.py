"""A fit's factors rotated, as a fit of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._products import product
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae import assess
    from sc_ldvae._typing import Data, Floats
    from sc_ldvae.assess import Method


@door
def rotate(
    data: Data,
    method: Method = "varimax",
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    layer: inputs.Layer = UNSET,
    copy: bool = False,
) -> Data | None:
    """Rotate the factors of a fit towards loadings of which few are large, or to axes for distances between cells.

    The model stays the same: latent and loadings turn together, so decoded means, scores, comparisons and draws are
    those of the fit, to rounding. What each factor stands for is another: what shows, drops or sets single factors
    works with the rotated ones. The posterior of a cell is independent over factors before the rotation only; its
    covariance is ``T.T @ diag(variance) @ T`` for the stored variance and the matrix T of the rotation.

    A rotation always starts from the factors as they were fitted, so to rotate a rotated fit gives what rotating the
    first gives.

    Parameters
    ----------
    data
        Fitted AnnData with raw counts, or MuData with such a `modality` or a joint fit. The counts are needed for the
        deviance that the rotated factors explain; without them, see :func:`sc_ldvae.get.loadings`.
    method
        ``'varimax'`` (orthogonal: factors stay independent under the prior) [Kaiser1958]_ or ``'promax'`` (oblique:
        factors may be correlated, each with prior variance 1) [HendricksonWhite1964]_: few large loadings, most near
        zero, genes weighted by how well they are measured. ``'principal'``: orthogonal loadings with a mean square of 1
        over the genes; the latent has the scale, so that distances between cells are root mean square differences of
        their centred log proportions (``'nb_background'``: of log foregrounds). For neighbours, clusters and
        embeddings, in which a factor is to weigh as much as it changes the genes. ``'modality'`` (orthogonal, of joint
        fits): as many factors as can be are private to a modality. It makes the sum over factors of the logs of their
        shares of each modality's information small.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them, whose factors turn together.
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
    >>> sc_ldvae.tl.rotate(adata, "principal", key_added="principal")  # sc.pp.neighbors(adata, use_rep="principal")
    >>> float((sc_ldvae.get.loadings(adata, key="principal") ** 2).mean().round(3).iloc[0])
    1.0
    """
    from sc_ldvae import assess

    if key_added is None:
        msg = "key_added is missing: the rotated fit stands beside the first. Give a name, such as 'varimax'."
        raise ValueError(msg)
    inputs.check_key(key_added)
    adata, stored = inputs.fitted_of(data, key, modality)
    keys = record.Keys.named(key_added)
    overwritten = set(stored.keys.to_dict().values()) & set(keys.to_dict().values())
    if overwritten:
        msg = f"key_added={key_added!r} would overwrite {min(overwritten)!r} of the fit itself. Give another name."
        raise ValueError(msg)
    if isinstance(stored, record.JointRecord):
        inputs.check_free(adata, keys.uns, [name for name in stored.modalities if name in adata.mod])
    matrix, state = inputs.rotation_of(adata, stored, method, "method"), record.state_of(adata, stored)
    turn = np.linalg.inv(matrix).T
    decoders = [view.decoder.rotated(turn) for view in stored.views.values()]
    with inputs.told_whose(data, adata):
        explained = _explained(adata, stored, state, matrix, decoders, layer)
    vanished = np.all([decoder.log_proportion.vanished for decoder in decoders], axis=0)
    together = assess.together(*explained)
    order = np.lexsort((-together.shares, vanished))
    matrix = np.ascontiguousarray(matrix[:, order])
    of_views = [(one.total, one.shares[order]) for one in explained[0]]

    def write(adata: Any) -> None:  # noqa: ANN401  either of two
        if isinstance(stored, record.JointRecord):
            whole = together.total, together.shares[order]
            record.write_joint_rotated(adata, stored, keys, state, matrix, of_views, whole)
        else:
            record.write_rotated(adata, stored, keys, state, matrix, of_views[0])

    return inputs.changed(data, modality, write, copy=copy)


def _explained(
    data: Any,  # noqa: ANN401  either of two
    stored: record.Record | record.JointRecord,
    state: record.State,
    matrix: Floats,
    decoders: list[record.Decoder],
    layer: inputs.Layer,
) -> tuple[list[assess.Explained], list[float]]:
    """What the rotated factors explain of each modality, and which share of the cells has it."""
    if isinstance(stored, record.Record):
        return [_explained_of(data, stored, state, matrix, decoders[0], inputs.layer_of(layer))], [1.0]
    found, shares = [], []
    for place, (name, view) in enumerate(stored.views.items()):
        adata, _ = inputs.modality_of(data, name)
        own = state.of_view(data.obs_names.get_indexer(adata.obs_names), place)
        with inputs.told_whose(data, adata):
            found.append(_explained_of(adata, view, own, matrix, decoders[place], inputs.layer_of(layer, name)))
        shares.append(adata.n_obs / data.n_obs)
    return found, shares


def _explained_of(
    adata: AnnData,
    stored: record.Record,
    state: record.State,
    matrix: Floats,
    rotated: record.Decoder,
    layer: Any,  # noqa: ANN401
) -> assess.Explained:
    from sc_ldvae import assess

    obs = inputs.obs_of(adata)
    decoded = assess.Decoded(
        inputs.fitted_counts(adata, stored, layer),
        product(state.latent, matrix),
        stored.design.matrix(obs),
        state.library.astype(np.float64),
        stored.groups(obs),
    )
    return assess.deviance_on_held_out(rotated, decoded.source, decoded.rows, record.held_out(adata, stored))
