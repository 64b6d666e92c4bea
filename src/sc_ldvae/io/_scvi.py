"""Exchange of fits with scvi-tools' LinearSCVI, whose module has the same parameters under other names."""

from __future__ import annotations

import random
import warnings
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from sc_ldvae import record
from sc_ldvae._modality import obs_of, pick_modality
from sc_ldvae._typing import UNSET, Unset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import nn

    from sc_ldvae._typing import Data, Mask
    from sc_ldvae.fit import History
    from sc_ldvae.nn import LDVAE
    from sc_ldvae.nn._decoder import LinearDecoder
    from sc_ldvae.nn._encoder import Encoder
    from sc_ldvae.tl._stored import Stored

# Our history, that of scvi-tools (which minimises), and the sign between them.
_HISTORY = (("elbo", "elbo_train", -1), ("elbo_held_out", "elbo_validation", -1), ("kl_weight", "kl_weight", 1))
_EXAMPLES = 3


def to_scvi(
    data: Data,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: str | Unset | None = UNSET,
) -> Any:  # noqa: ANN401  scvi-tools may be missing
    """Hand a fit to scvi-tools, as a trained ``scvi.model.LinearSCVI``.

    The model is the same: latent, loadings and ELBO terms of each cell are those of the fit. The decoder's BatchNorm
    passes everything on and carries the intercept as its shift, which holds for evaluation only: to train further in
    scvi-tools means to start that BatchNorm anew.

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
    with _undisturbed():
        model = _linear_scvi_of(fit, _adata_for_scvi(adata, fit, stored), _linear_scvi("io.to_scvi"))
        _fill_scvi(model.module, stored.model)
    held_out = np.asarray(adata.obs.get(fit.keys.held_out, np.zeros(adata.n_obs)), dtype=bool)
    model.train_indices, model.validation_indices = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    model.history_ = _history_for_scvi(fit)
    model.is_trained_ = True
    model.module.eval()
    return model


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
    >>> import sc_ldvae, scvi  # doctest: +SKIP
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> scvi.model.LinearSCVI.setup_anndata(adata)  # doctest: +SKIP
    >>> model = scvi.model.LinearSCVI(adata, n_latent=3)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> sc_ldvae.io.from_scvi(model, adata)  # doctest: +SKIP
    >>> adata.varm["ldvae_loadings"].shape  # doctest: +SKIP
    (50, 3)
    """
    from sc_ldvae import fit
    from sc_ldvae.counts import Cells, Counts
    from sc_ldvae.tl import _arguments as door
    from sc_ldvae.tl._result import entries

    adata = pick_modality(data, modality)
    door.check_object(adata)
    door.check_key(key_added)
    trained = _Trained.of(model)
    columns = _columns(adata, trained.genes)
    annotations = door.Annotations(obs_of(adata), record.Design(trained.batch), trained.labels, None)
    layer = trained.layer if isinstance(layer, Unset) else layer
    counts = door.counts_of(adata, layer, np.flatnonzero(columns >= 0))

    cells = Cells(Counts.from_csr(counts), **annotations.tensors())
    held_out = trained.held_out(adata.obs_names)
    options = trained.options() | annotations.sizes()
    factors = fit.canonical(trained.module(columns[columns >= 0], options), counts, cells, held_out, options)
    fitted = fit.Fitted(factors, held_out, trained.history(), f"trained by scvi-tools {trained.version}")
    asked = trained.options() | trained.sizes() | trained.keys()
    asked |= {"layer": layer, "modality": modality, "key_added": key_added}

    result = data.copy() if copy else data
    adata = pick_modality(result, modality)
    keys = record.Keys.named(key_added)
    values = entries(fitted, keys, columns >= 0, adata.var_names, annotations, asked)
    values["uns"][keys.uns] |= _end(fitted.history)
    record.write(adata, values)
    return result if copy else None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keeps the warnings of scvi-tools in, and the global generators as they were.

    Importing scvi-tools, registering data and building a module draw from them.
    """
    import torch

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  it is the global one that is kept
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002  the same


def _linear_scvi(function: str) -> Any:  # noqa: ANN401  scvi-tools may be missing
    try:
        import scvi
    except ImportError as error:
        msg = f"{function} needs scvi-tools: pip install 'sc-ldvae[scvi]'."
        raise ImportError(msg) from error
    return scvi.model.LinearSCVI


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
                for their, our in _beside(their_encoder, encoder):
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


def _beside(theirs: Any, ours: Encoder) -> list[tuple[nn.Module, nn.Module]]:  # noqa: ANN401  scvi-tools may be missing
    """Parts of their encoder beside ours, which hold the same parameters under the same names."""
    hidden = zip(theirs.encoder.fc_layers, ours.hidden(), strict=True)
    pairs = [pair for their, our in hidden for pair in ((their[0], our.linear), (their[1], our.norm))]
    return [*pairs, (theirs.mean_encoder, ours.mean), (theirs.var_encoder, ours.log_variance)]


def _history_for_scvi(fit: record.Record) -> dict[str, pd.DataFrame]:
    """One frame per quantity, as scvi-tools keeps them."""
    history = fit.content["history"]
    epoch = pd.Index(range(len(history["epoch"])), name="epoch")
    return {
        their: pd.DataFrame({their: sign * np.asarray(history[our])}, index=epoch)
        for our, their, sign in _HISTORY
        if our in history
    }


@dataclass(frozen=True)
class _Trained:
    """A trained LinearSCVI and what it was told of its cells."""

    model: Any
    registry: Mapping[str, Any]
    obs_names: pd.Index | None
    """Of the cells that it was trained with; None where they are not known."""

    @classmethod
    def of(cls, model: object) -> _Trained:
        """The model itself, or the one in a folder.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            If there is no trained LinearSCVI that works.
        """
        with _undisturbed():
            linear_scvi = _linear_scvi("io.from_scvi")
            if isinstance(model, str | PathLike):
                trained = _load(Path(model), linear_scvi)
            elif isinstance(model, linear_scvi):
                trained = cls(model, model.registry, model.adata.obs_names)
            else:
                msg = f"model is a {type(model).__name__}, but must be a LinearSCVI of scvi-tools or a folder with one."
                raise TypeError(msg)
        trained._check()
        return trained

    @property
    def version(self) -> str:
        """Version of scvi-tools."""
        return str(self.registry["scvi_version"])

    @property
    def layer(self) -> str | None:
        """Layer of counts."""
        layer: str | None = self.registry["setup_args"]["layer"]
        return layer

    @property
    def genes(self) -> pd.Index:
        """Names of the genes, in their order."""
        return pd.Index(map(str, self._field("X")["state_registry"]["column_names"]))

    @property
    def batch(self) -> record.Categorical | None:
        """The batches, if it was told of some."""
        return self._categorical("batch")

    @property
    def labels(self) -> record.Categorical | None:
        """The labels, if it was told of some."""
        return self._categorical("labels")

    def options(self) -> dict[str, Any]:
        """Arguments of our model's constructor that its arrays do not tell."""
        module = self.model.module
        by = {"gene-batch": self.batch, "gene-label": self.labels}
        return {
            "gene_likelihood": module.gene_likelihood,
            # Without their column there is one batch and one label.
            "dispersion": "gene" if by.get(module.dispersion) is None else module.dispersion,
            "latent_distribution": module.latent_distribution,
            "log_variational": module.log_variational,
            "use_observed_lib_size": module.use_observed_lib_size,
        }

    def sizes(self) -> dict[str, Any]:
        """The other arguments that `tl.ldvae` has, too."""
        module = self.model.module
        return {
            "n_latent": module.n_latent,
            "n_hidden": module.n_hidden,
            "n_layers_encoder": module.n_layers,
            "dropout_rate": self.model.init_params_["non_kwargs"]["dropout_rate"],
            "use_batch_norm": module.use_batch_norm,
            "bias": module.decoder.factor_regressor.fc_layers[0][0].bias is not None,
        }

    def keys(self) -> dict[str, str]:
        """Columns of obs."""
        columns = {"batch_key": self.batch, "labels_key": self.labels}
        return {name: column.key for name, column in columns.items() if column is not None}

    def held_out(self, obs_names: pd.Index) -> Mask:
        """Which of these cells the model was not trained on; none, if they are others than the model's."""
        none = np.zeros(len(obs_names), dtype=bool)
        if self.model.train_indices is None or self._field("X")["summary_stats"]["n_cells"] != len(obs_names):
            return none
        held_out = ~none
        held_out[self.model.train_indices] = False
        own = self.obs_names
        if own is None or own.equals(obs_names):
            return held_out
        same = own.is_unique and obs_names.is_unique and obs_names.isin(own).all()
        return held_out[own.get_indexer(obs_names)] if same else none

    def history(self) -> History:
        """What scvi-tools has noted for each epoch."""
        from sc_ldvae.fit import History

        theirs: Mapping[str, pd.DataFrame] = self.model.history or {}
        values = {our: sign * theirs[name].to_numpy(float)[:, 0] for our, name, sign in _HISTORY if name in theirs}
        n_epochs = len(values.get("elbo", ()))
        whole = {name: v.tolist() for name, v in values.items() if len(v) == n_epochs and np.isfinite(v).all()}
        return History(epoch=list(range(1, n_epochs + 1)), **whole)

    def module(self, genes: NDArray[np.intp], options: Mapping[str, Any]) -> LDVAE:
        """The same model as a module of ours, in evaluation mode on the CPU, with the `genes` at these positions."""
        import torch

        from sc_ldvae.nn import LDVAE

        sizes = {name: self.sizes()[name] for name in ("n_latent", "n_hidden", "n_layers_encoder")}
        # A generator of its own, for the global one is the user's.
        generator = torch.Generator().manual_seed(0)
        ours = LDVAE(len(genes), **sizes, **options, use_batch_norm=False, bias=True, generator=generator).eval()
        _fill_ours(ours, self.model.module, genes)
        return ours

    def _check(self) -> None:
        from sc_ldvae.nn import Likelihood

        if not self.model.is_trained:
            msg = "model is not trained. Call model.train() first."
            raise ValueError(msg)
        module, likelihoods = self.model.module, get_args(Likelihood)
        if module.dispersion == "gene-cell":
            msg = "model has dispersion='gene-cell', which LinearSCVI can't compute. Fit it with sc_ldvae.tl.ldvae."
            raise ValueError(msg)
        if module.gene_likelihood not in likelihoods:
            known = ", ".join(map(repr, likelihoods))
            msg = f"model has gene_likelihood={module.gene_likelihood!r}, but must have one of {known}."
            raise ValueError(msg)

    def _field(self, name: str) -> Mapping[str, Any]:
        field: Mapping[str, Any] = self.registry["field_registries"][name]
        return field

    def _categorical(self, name: str) -> record.Categorical | None:
        key = self.registry["setup_args"][f"{name}_key"]
        if key is None:
            return None
        return record.Categorical(key, tuple(map(str, self._field(name)["state_registry"]["categorical_mapping"])))


def _load(folder: Path, linear_scvi: Any) -> _Trained:  # noqa: ANN401  scvi-tools may be missing
    """A saved model. It asks for cells, but needs none of those that it was trained with."""
    if not (folder / "model.pt").exists():
        msg = f"There is no model of scvi-tools in {folder}: it has no file model.pt."
        raise FileNotFoundError(msg)
    registry = linear_scvi.load_registry(folder)
    if registry["model_name"] != linear_scvi.__name__:
        msg = f"{folder} holds a {registry['model_name']} of scvi-tools, but model must be a {linear_scvi.__name__}."
        raise ValueError(msg)
    fields = registry["field_registries"]
    genes = fields["X"]["state_registry"]["column_names"]
    levels = (fields[name]["state_registry"] for name in ("batch", "labels"))
    # Two, for one is too few for its statistics of the library, which the saved ones replace.
    obs = {state["original_key"]: [state["categorical_mapping"][0]] * 2 for state in levels}
    cells = AnnData(
        np.ones((2, len(genes)), np.float32), obs=pd.DataFrame(obs, index=["0", "1"]), var=pd.DataFrame(index=genes)
    )
    if registry["setup_args"]["layer"] is not None:
        cells.layers[registry["setup_args"]["layer"]] = cells.X
    return _Trained(linear_scvi.load(folder, adata=cells, accelerator="cpu"), registry, obs_names=None)


def _columns(adata: AnnData, genes: pd.Index) -> NDArray[np.intp]:
    """Position among `genes` of each of var_names, -1 for others."""
    if not genes.is_unique:
        repeated = genes[genes.duplicated()][0]
        msg = f"model has several genes of the name {repeated!r}, so they can't be found in data."
        raise ValueError(msg)
    missing = genes.difference(adata.var_names, sort=False).tolist()
    if missing:
        names = ", ".join(map(repr, missing[:_EXAMPLES])) + (", ..." if len(missing) > _EXAMPLES else "")
        what = f"data lacks {len(missing)} of the {len(genes)} genes of the model ({names})"
        msg = f"{what}. Pass the data that it was trained on."
        raise ValueError(msg)
    return genes.get_indexer(adata.var_names)


def _fill_ours(ours: LDVAE, theirs: Any, genes: NDArray[np.intp]) -> None:  # noqa: ANN401  scvi-tools may be missing
    """Give our module the parameters of theirs, with the `genes` at these positions."""
    import torch

    with torch.no_grad():
        for encoder, their_encoder in ((ours.z_encoder, theirs.z_encoder), (ours.l_encoder, theirs.l_encoder)):
            if encoder is not None:
                _fill_encoder(encoder, their_encoder, genes)
        for decoder, regressor in (
            (ours.decoder, theirs.decoder.factor_regressor),
            (ours.zi_decoder, theirs.decoder.px_dropout_decoder),
        ):
            if decoder is not None:
                _fill_decoder(decoder, regressor.fc_layers[0][0], regressor.fc_layers[0][1], genes)
        if ours.log_theta is not None:
            # They may have room for more labels than there are.
            log_theta = theirs.px_r.reshape(theirs.n_input, -1).T[: len(ours.log_theta)]
            ours.log_theta.copy_(log_theta[:, genes])
        if ours.l_encoder is not None:
            ours.library_log_means.copy_(theirs.library_log_means[0])
            ours.library_log_vars.copy_(theirs.library_log_vars[0])


def _fill_encoder(ours: Encoder, theirs: Any, genes: NDArray[np.intp]) -> None:  # noqa: ANN401  scvi-tools may be missing
    first = theirs.encoder.fc_layers[0][0].weight[:, genes]
    for their, our in _beside(theirs, ours):
        state = their.state_dict()
        our.load_state_dict(state | {"weight": first} if our is ours.hidden()[0].linear else state)


def _fill_decoder(ours: LinearDecoder, linear: nn.Linear, norm: nn.BatchNorm1d | None, genes: NDArray[np.intp]) -> None:
    from torch.nn.utils import fuse_linear_bn_eval

    exact = deepcopy(linear).double().eval()
    if norm is not None:
        exact = fuse_linear_bn_eval(exact, deepcopy(norm).double().eval())
    ours.weight.copy_(exact.weight[genes])
    if ours.bias is not None:
        ours.bias.zero_() if exact.bias is None else ours.bias.copy_(exact.bias[genes])


def _end(history: History) -> dict[str, Any]:
    """What the record says of the epochs: scvi-tools keeps the state of the last one, and may have noted none."""
    if history.epoch:
        return {"best_epoch": len(history.epoch)}
    return {"history": {"epoch": np.zeros(0, dtype=int), "elbo": np.zeros(0)}, "best_epoch": 0}
