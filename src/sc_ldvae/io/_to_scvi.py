"""From a fit to a LinearSCVI of scvi-tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sc_ldvae import record
from sc_ldvae._modality import obs_of, pick_modality
from sc_ldvae._typing import UNSET, Unset
from sc_ldvae.io._scvi import HISTORY, beside, linear_scvi_class, undisturbed

if TYPE_CHECKING:
    from sc_ldvae._typing import Data
    from sc_ldvae.nn import LDVAE
    from sc_ldvae.nn._decoder import LinearDecoder
    from sc_ldvae.tl._stored import Stored


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
        the model: further covariates, size factors, ``dispersion='gene-cell'``.
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
    from sc_ldvae.tl._stored import for_likelihood

    adata = pick_modality(data, modality)
    fit = record.read(adata, key)
    _check_computable(fit)
    stored = for_likelihood(adata, fit, layer)
    with undisturbed():
        model = _linear_scvi_of(fit, _adata_for_scvi(adata, fit, stored), linear_scvi_class("io.to_scvi"))
        _fill_scvi(model.module, stored.model)
    held_out = np.asarray(adata.obs.get(fit.keys.held_out, np.zeros(adata.n_obs)), dtype=bool)
    model.train_indices, model.validation_indices = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    model.history_ = _history_for_scvi(fit)
    model.is_trained_ = True
    model.module.eval()
    return model


def _check_computable(fit: record.Record) -> None:
    """Refuse what no LinearSCVI can compute."""
    covariates = [column.key for column in fit.design.categorical] + [column.key for column in fit.design.continuous]
    size_factor_key = fit.param("size_factor_key")
    if covariates:
        refused = f"covariates beside the batch ({', '.join(map(repr, covariates))})"
    elif size_factor_key is not None:
        refused = f"size factors (obs[{size_factor_key!r}])"
    elif isinstance(fit.decoder.log_theta, record.AffineMap):
        refused = "a dispersion per cell (dispersion='gene-cell')"
    else:
        return
    msg = f"The fit uns[{fit.keys.uns!r}] has {refused}, which LinearSCVI of scvi-tools can't compute. Fit without."
    raise ValueError(msg)


def _adata_for_scvi(adata: AnnData, fit: record.Record, stored: Stored) -> AnnData:
    """Counts of the fitted genes in X, and levels of batch and labels in the order of the fit."""
    from scipy.sparse import csr_matrix

    counts = stored.cells.counts
    values = counts.values  # noqa: PD011  a tensor
    parts = (values.numpy(), counts.indices.numpy(), counts.indptr.numpy())
    matrix = csr_matrix(parts, (adata.n_obs, counts.n_vars), copy=True)
    obs = obs_of(adata).copy()
    for column in (fit.design.batch, fit.labels):
        if column is not None:
            obs[column.key] = _in_order(obs[column.key], column.levels)
    theirs = AnnData(matrix, obs=obs)
    theirs.var = adata[:, fit.genes.tolist()].var.copy()
    for name, value in adata.obsm.items():
        theirs.obsm[name] = value.copy()
    return theirs


def _in_order(values: pd.Series[Any], levels: tuple[str, ...]) -> pd.Categorical[Any]:
    """The same values with categories in this order; as text where a level does not occur."""
    named = {str(value): value for value in values.unique()}
    if named.keys() == set(levels):
        return pd.Categorical(values, categories=[named[level] for level in levels])
    return pd.Categorical(values.astype(str), categories=list(levels))


def _linear_scvi_of(fit: record.Record, adata: AnnData, linear_scvi: Any) -> Any:  # noqa: ANN401  scvi-tools may be missing
    """A LinearSCVI of the shape of the fit."""
    encoder, options, labels = fit.content["encoder"]["z"], fit.options, fit.labels
    if options["gene_likelihood"] == "poisson":
        # A Poisson has none, but 'gene-cell' breaks scvi-tools all the same.
        options["dispersion"] = "gene"
    if options["dispersion"] == "gene-label":
        # LinearSCVI does not pass their number on.
        options["n_labels"] = len(labels.levels) if labels is not None else 0
    else:
        del options["n_labels"]
    for name in ("n_batch", "n_cats_per_cov", "n_continuous_cov"):
        del options[name]
    linear_scvi.setup_anndata(adata, batch_key=fit.param("batch_key"), labels_key=fit.param("labels_key"))
    dropout_rate = fit.param("dropout_rate")
    return linear_scvi(
        adata,
        n_hidden=len(encoder["bias_0"]),
        n_latent=fit.n_latent,
        n_layers=sum(name.startswith("weight_") for name in encoder),
        dropout_rate=0.1 if dropout_rate is None else dropout_rate,
        **options,
    )


def _fill_scvi(theirs: Any, ours: LDVAE) -> None:  # noqa: ANN401  scvi-tools may be missing
    """Give their module the parameters of ours, zero to what ours has not."""
    import torch

    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
        for their_encoder, encoder in ((theirs.z_encoder, ours.z_encoder), (theirs.l_encoder, ours.l_encoder)):
            if encoder is not None:
                for their, our in beside(their_encoder, encoder):
                    their.load_state_dict(our.state_dict())
        for regressor, decoder in (
            (theirs.decoder.factor_regressor, ours.decoder),
            (theirs.decoder.px_dropout_decoder, ours.zi_decoder),
        ):
            if decoder is not None:
                _fill_regressor(regressor, decoder)
        if ours.log_theta is not None:
            theirs.px_r.copy_(ours.log_theta.T.reshape(theirs.px_r.shape))
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


def _history_for_scvi(fit: record.Record) -> dict[str, pd.DataFrame]:
    """One frame per quantity, as scvi-tools keeps them."""
    history = fit.content["history"]
    epoch = pd.Index(range(len(history["epoch"])), name="epoch")
    return {
        their: pd.DataFrame({their: sign * np.asarray(history[our])}, index=epoch)
        for our, their, sign in HISTORY
        if our in history
    }
