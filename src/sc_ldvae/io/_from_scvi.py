"""From a LinearSCVI of scvi-tools to a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._said import said
from sc_ldvae._typing import UNSET, Unset
from sc_ldvae.io._trained_scvi import TrainedScvi

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from sc_ldvae._typing import Data

_EXAMPLES = 3
_NO_EPOCHS: dict[str, Sequence[float]] = {"epoch": (), "elbo": ()}


@door
def from_scvi(
    model: Any,  # noqa: ANN401  scvi-tools may be missing
    data: Data,
    *,
    modality: str | None = None,
    layer: str | Unset | None = UNSET,
    key_added: str | None = None,
    copy: bool = False,
) -> Data | None:
    """Bring a trained ``scvi.model.LinearSCVI`` of scvi-tools into an AnnData, as a fit of :func:`~sc_ldvae.tl.ldvae`.

    The model stays the same, its factors become canonical: loadings centred over genes, factors ordered by explained
    deviance and signed. Everything that works on a fit works on the result.

    Needs scvi-tools: ``pip install 'sc-ldvae[scvi]'``.

    Parameters
    ----------
    model
        The ``LinearSCVI``; or the folder that its `save` wrote. A folder holds pickled objects: open only those that
        you trust.
    data
        AnnData with raw counts of the model's genes, in any order and maybe among others, and the columns of `obs` that
        hold the model's batches and labels; or MuData with such a `modality`.
    modality
        Modality of a MuData.
    layer
        Layer of `data` with raw counts, X for None; the layer of the model by default.
    key_added
        Name of the results, as in :func:`~sc_ldvae.tl.ldvae`.
    copy
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the copy. `data` gets the entries that :func:`~sc_ldvae.tl.ldvae` describes. Cells that the model was not
    trained on are marked as held out if `data` has the cells of the model, by their names; for a folder, which does not
    keep names, if it has as many cells, by their order. Otherwise no cell is marked.

    Raises
    ------
    TypeError
        If `model` is neither a ``LinearSCVI`` nor a path.
    ValueError
        If the model is not trained or of another class, if it has a dispersion that no ``LinearSCVI`` can compute, or
        if `data` lacks counts, genes, batches or labels of the model. `data` is not changed.
    FileNotFoundError
        If there is no model in the folder.
    ImportError
        If scvi-tools is not installed.

    See Also
    --------
    to_scvi : The way back.

    Examples
    --------
    >>> import sc_ldvae
    >>> import scvi  # doctest: +SKIP
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> scvi.model.LinearSCVI.setup_anndata(adata)  # doctest: +SKIP
    >>> model = scvi.model.LinearSCVI(adata, n_latent=3)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> sc_ldvae.io.from_scvi(model, adata)  # doctest: +SKIP
    >>> adata.varm["ldvae_loadings"].shape  # doctest: +SKIP
    (50, 3)
    """
    from sc_ldvae import fit
    from sc_ldvae.counts import Cells

    adata = inputs.pick_modality(data, modality)
    inputs.check_object(adata)
    inputs.check_key(key_added)
    trained = TrainedScvi.of(model)
    columns = _columns(adata, trained.genes)
    annotations = inputs.Annotations(inputs.obs_of(adata), record.Design(trained.batch), trained.labels, None)
    layer = trained.layer if isinstance(layer, Unset) else layer
    cells = Cells(inputs.counts_of(adata, layer, np.flatnonzero(columns >= 0)), annotations.arrays())

    held_out, levels, options = trained.held_out(adata.obs_names), annotations.levels, trained.options()
    module = trained.module(columns[columns >= 0], options, levels)
    factors = fit.canonical(module, cells, held_out, options, levels)
    # scvi-tools keeps the state of the last epoch, and may have noted none.
    history = trained.history().columns() or _NO_EPOCHS
    reason = f"trained by scvi-tools {trained.version}"
    new = fit.new_fit(factors, held_out, history, len(history["epoch"]), reason)
    params = {**vars(options), **trained.keys(), "layer": layer, "modality": modality, "key_added": key_added}
    asked, keys = annotations.asked(columns >= 0, params), record.Keys.named(key_added)
    return inputs.changed(data, modality, lambda adata: record.write_fit(adata, keys, new.alone, asked), copy=copy)


def _columns(adata: AnnData, genes: pd.Index) -> NDArray[np.intp]:
    """Position among `genes` of each of var_names, -1 for others."""
    if not genes.is_unique:
        repeated = genes[genes.duplicated()][0]
        msg = f"model has several genes of the name {said(repeated)}, so they can't be found in data."
        raise ValueError(msg)
    missing = genes.difference(adata.var_names, sort=False).tolist()
    if missing:
        names = ", ".join(map(said, missing[:_EXAMPLES])) + (", ..." if len(missing) > _EXAMPLES else "")
        what = f"data lacks {len(missing)} of the {len(genes)} genes of the model ({names})"
        msg = f"{what}. Pass the data that it was trained on."
        raise ValueError(msg)
    return genes.get_indexer(adata.var_names)
