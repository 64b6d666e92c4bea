"""From a fit to a LinearSCVI of scvi-tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from anndata import AnnData

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._typing import UNSET, Unset
from sc_ldvae.io._scvi import HISTORY, LIKELIHOODS, beside, linear_scvi_class, undisturbed

if TYPE_CHECKING:
    from sc_ldvae._typing import Data
    from sc_ldvae.counts import Source
    from sc_ldvae.nn import LDVAE, LinearDecoder


@door
def to_scvi(
    data: Data,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: str | Unset | None = UNSET,
) -> Any:  # noqa: ANN401  scvi-tools may be missing
    """Hand a fit to scvi-tools, as a trained ``scvi.model.LinearSCVI``.

    The model is the same: latent, loadings and ELBO terms of each cell are those of the fit (those before the rotation,
    if it is rotated). The decoder's BatchNorm passes everything on and carries the intercept as its shift, which holds
    for evaluation only: to train further in scvi-tools means to start that BatchNorm anew.

    Needs scvi-tools: ``pip install 'sc-ldvae[scvi]'``.

    Parameters
    ----------
    data
        Fitted or projected AnnData with raw counts, or MuData with such a `modality`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.

    Returns
    -------
    The ``LinearSCVI``, in evaluation mode on the CPU. Its `adata` is new: cells x fitted genes in the order of the fit,
    raw counts in `X`, with `obs`, `var` and `obsm` of `data`. Held-out cells are its validation cells.

    Raises
    ------
    ValueError
        If there is no such fit, if counts, genes, batches or labels are missing, or if ``LinearSCVI`` can't compute
        the model: further covariates, size factors, ``dispersion='gene-cell'``, likelihoods that it does not have.
    ImportError
        If scvi-tools is not installed.

    See Also
    --------
    from_scvi : The way back.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> model = sc_ldvae.io.to_scvi(adata)  # doctest: +SKIP
    >>> model.get_loadings().shape  # doctest: +SKIP
    (50, 3)
    >>> model.save("model")  # doctest: +SKIP
    """
    adata = inputs.pick_modality(data, modality)
    stored = record.read(adata, key)
    _check_computable(stored)
    with inputs.told_whose(data, adata):
        scorable = inputs.for_likelihood(adata, stored, layer)
    with undisturbed():
        theirs = _adata_for_scvi(adata, stored, scorable.cells.source)
        model = _linear_scvi_of(stored, theirs, linear_scvi_class("io.to_scvi"))
        _fill_scvi(model.module, scorable.model.views[0])
    held_out = record.held_out(adata, stored)
    model.train_indices, model.validation_indices = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    model.history_ = _history_for_scvi(stored)
    model.is_trained_ = True
    model.module.eval()
    return model


def _check_computable(stored: record.Record) -> None:
    """Refuse what no LinearSCVI can compute."""
    covariates = [column.key for column in stored.design.categorical] + [
        column.key for column in stored.design.continuous
    ]
    size_factor_key = stored.param("size_factor_key")
    if covariates:
        refused = f"covariates beside the batch ({', '.join(map(repr, covariates))})"
    elif stored.options.gene_likelihood not in LIKELIHOODS:
        refused = f"gene_likelihood={stored.options.gene_likelihood!r}"
    elif size_factor_key is not None:
        refused = f"size factors (obs[{size_factor_key!r}])"
    elif stored.expert:
        refused = "an encoder that is one of several (a joint fit of several modalities)"
    elif isinstance(stored.decoder.parts.get("log_theta"), record.AffineMap):
        refused = "a dispersion per cell (dispersion='gene-cell')"
    else:
        return
    msg = f"The fit uns[{stored.keys.uns!r}] has {refused}, which LinearSCVI of scvi-tools can't compute. Fit without."
    raise ValueError(msg)


def _adata_for_scvi(adata: AnnData, stored: record.Record, source: Source) -> AnnData:
    """Counts of the fitted genes in X, and levels of batch and labels in the order of the fit."""
    matrix, obs = source.rows(np.arange(source.n_obs)), inputs.obs_of(adata).copy()
    for column in (stored.design.batch, stored.labels):
        if column is not None:
            obs[column.key] = _in_order(obs[column.key], column.levels)
    theirs = AnnData(matrix, obs=obs)
    theirs.var = cast("pd.DataFrame", adata[:, stored.genes.tolist()].var).copy()
    for name, value in adata.obsm.items():
        theirs.obsm[name] = value.copy()
    return theirs


def _in_order(values: pd.Series[Any], levels: tuple[str, ...]) -> pd.Categorical[Any]:
    """The same values with categories in this order; as text where a level does not occur."""
    named = {str(value): value for value in values.unique()}
    if named.keys() == set(levels):
        return pd.Categorical(values, categories=[named[level] for level in levels])
    return pd.Categorical(values.astype(str), categories=list(levels))


def _linear_scvi_of(stored: record.Record, adata: AnnData, linear_scvi: Any) -> Any:  # noqa: ANN401  scvi-tools may be missing
    """A LinearSCVI of the shape of the fit."""
    options, labels = stored.options, stored.labels
    dispersion = options.dispersion
    if options.gene_likelihood == "poisson":
        # A Poisson has none, but 'gene-cell' breaks scvi-tools all the same.
        dispersion = "gene"
    # LinearSCVI does not pass their number on.
    of_labels = {"n_labels": 0 if labels is None else len(labels.levels)} if dispersion == "gene-label" else {}
    encoder = stored.folded.encoders["z"]
    linear_scvi.setup_anndata(adata, batch_key=stored.param("batch_key"), labels_key=stored.param("labels_key"))
    return linear_scvi(
        adata,
        n_hidden=len(encoder["bias_0"]),
        n_latent=stored.n_latent,
        n_layers=sum(name.startswith("weight_") for name in encoder),
        dropout_rate=options.dropout_rate,
        gene_likelihood=options.gene_likelihood,
        dispersion=dispersion,
        latent_distribution=options.latent_distribution,
        log_variational=options.log_variational,
        use_observed_lib_size=options.use_observed_lib_size,
        **of_labels,
    )


def _fill_scvi(theirs: Any, ours: LDVAE) -> None:  # noqa: ANN401  scvi-tools may be missing
    """Give their module the parameters of ours, zero to what ours has not."""
    import torch

    from sc_ldvae.nn import Grouped

    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
        for their_encoder, encoder in ((theirs.z_encoder, ours.z_encoder), (theirs.l_encoder, ours.l_encoder)):
            if encoder is not None:
                for their, our in beside(their_encoder, encoder):
                    their.load_state_dict(our.state_dict())
        _fill_regressor(theirs.decoder.factor_regressor, ours.decoder)
        for _, part in ours.named_parts():
            if isinstance(part, Grouped):
                theirs.px_r.copy_(part.table.T.reshape(theirs.px_r.shape))
            else:
                _fill_regressor(theirs.decoder.px_dropout_decoder, part)
        if ours.l_encoder is not None:
            theirs.library_log_means.copy_(ours.library_log_means[None])
            theirs.library_log_vars.copy_(ours.library_log_vars[None])


def _fill_regressor(regressor: Any, decoder: LinearDecoder) -> None:  # noqa: ANN401  scvi-tools may be missing
    linear, norm = regressor.fc_layers[0][0], regressor.fc_layers[0][1]
    weight, bias = decoder.folded()
    linear.weight.copy_(weight)
    # The linear map has no bias, so BatchNorm's own shift is the intercept.
    norm.reset_parameters()
    norm.running_var.fill_(1 - norm.eps)
    norm.bias.copy_(bias)


def _history_for_scvi(stored: record.Record) -> dict[str, pd.DataFrame]:
    """One frame per quantity, as scvi-tools keeps them."""
    history = stored.history
    epoch = pd.Index(range(len(history["epoch"])), name="epoch")
    return {
        their: pd.DataFrame({their: sign * np.asarray(history[our])}, index=epoch)
        for our, their, sign in HISTORY
        if our in history
    }
