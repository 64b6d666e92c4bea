"""A trained LinearSCVI of scvi-tools, read."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sc_ldvae import record
from sc_ldvae._options import ModelOptions
from sc_ldvae._said import said
from sc_ldvae.io._scvi import HISTORY, LIKELIHOODS, beside, linear_scvi_class, undisturbed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae._options import Levels
    from sc_ldvae._typing import Mask
    from sc_ldvae.fit import History
    from sc_ldvae.nn import LDVAE, Encoder, LinearDecoder


@dataclass(frozen=True)
class TrainedScvi:
    """A trained LinearSCVI and what it was told of its cells."""

    model: Any
    registry: Mapping[str, Any]
    obs_names: pd.Index | None
    """Of the cells that it was trained with; None where they are not known."""

    @classmethod
    def of(cls, model: object) -> TrainedScvi:
        """The model itself, or the one in a folder.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            If there is no trained LinearSCVI that works.
        """
        with undisturbed():
            linear_scvi = linear_scvi_class("io.from_scvi")
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

    def options(self) -> ModelOptions:
        """What it was asked for."""
        module = self.model.module
        by = {"gene-batch": self.batch, "gene-label": self.labels}
        return ModelOptions(
            n_latent=module.n_latent,
            gene_likelihood=module.gene_likelihood,
            # Without their column there is one batch and one label.
            dispersion="gene" if by.get(module.dispersion) is None else module.dispersion,
            latent_distribution=module.latent_distribution,
            use_observed_lib_size=module.use_observed_lib_size,
            log_variational=module.log_variational,
            use_batch_norm=module.use_batch_norm,
            bias=module.decoder.factor_regressor.fc_layers[0][0].bias is not None,
            n_hidden=module.n_hidden,
            n_layers_encoder=module.n_layers,
            dropout_rate=self.model.init_params_["non_kwargs"]["dropout_rate"],
        )

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
        values = {our: sign * theirs[name].to_numpy(float)[:, 0] for our, name, sign in HISTORY if name in theirs}
        n_epochs = len(values.get("elbo", ()))
        whole = {name: v.tolist() for name, v in values.items() if len(v) == n_epochs and np.isfinite(v).all()}
        return History(epoch=list(range(1, n_epochs + 1)), **whole)

    def module(self, genes: NDArray[np.intp], options: ModelOptions, levels: Levels) -> LDVAE:
        """The same model as a module of ours, in evaluation mode on the CPU, with the `genes` at these positions."""
        import torch

        from sc_ldvae.nn import LDVAE

        asked = asdict(replace(options, use_batch_norm=False, bias=True)) | asdict(levels)
        # A generator of its own, for the global one is the user's.
        ours = LDVAE(len(genes), **asked, generator=torch.Generator("cpu").manual_seed(0)).eval()
        _fill_ours(ours, self.model.module, genes)
        return ours

    def _check(self) -> None:
        if not self.model.is_trained:
            msg = "model is not trained. Call model.train() first."
            raise ValueError(msg)
        module = self.model.module
        if module.dispersion == "gene-cell":
            msg = "model has dispersion='gene-cell', which LinearSCVI can't compute. Fit it with sc_ldvae.tl.ldvae."
            raise ValueError(msg)
        if module.gene_likelihood not in LIKELIHOODS:
            known = ", ".join(map(repr, LIKELIHOODS))
            msg = f"model has gene_likelihood={said(module.gene_likelihood)}, but must have one of {known}."
            raise ValueError(msg)

    def _field(self, name: str) -> Mapping[str, Any]:
        field: Mapping[str, Any] = self.registry["field_registries"][name]
        return field

    def _categorical(self, name: str) -> record.Categorical | None:
        key = self.registry["setup_args"][f"{name}_key"]
        if key is None:
            return None
        return record.Categorical(key, tuple(map(str, self._field(name)["state_registry"]["categorical_mapping"])))


def _load(folder: Path, linear_scvi: Any) -> TrainedScvi:  # noqa: ANN401  scvi-tools may be missing
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
    return TrainedScvi(linear_scvi.load(folder, adata=cells, accelerator="cpu"), registry, obs_names=None)


def _fill_ours(ours: LDVAE, theirs: Any, genes: NDArray[np.intp]) -> None:  # noqa: ANN401  scvi-tools may be missing
    """Give our module the parameters of theirs, with the `genes` at these positions."""
    import torch

    from sc_ldvae.nn import Grouped

    with torch.no_grad():
        for encoder, their_encoder in ((ours.z_encoder, theirs.z_encoder), (ours.l_encoder, theirs.l_encoder)):
            if encoder is not None:
                _fill_encoder(encoder, their_encoder, genes)
        _fill_decoder(ours.decoder, theirs.decoder.factor_regressor, genes)
        for _, part in ours.named_parts():
            if isinstance(part, Grouped):
                # They may have room for more labels than there are.
                log_theta = theirs.px_r.reshape(theirs.n_input, -1).T[: len(part.table)]
                part.table.copy_(log_theta[:, genes])
            else:
                _fill_decoder(part, theirs.decoder.px_dropout_decoder, genes)
        if ours.l_encoder is not None:
            ours.library_log_means.copy_(theirs.library_log_means[0])
            ours.library_log_vars.copy_(theirs.library_log_vars[0])


def _fill_encoder(ours: Encoder, theirs: Any, genes: NDArray[np.intp]) -> None:  # noqa: ANN401  scvi-tools may be missing
    first = theirs.encoder.fc_layers[0][0].weight[:, genes]
    for their, our in beside(theirs, ours):
        state = their.state_dict()
        our.load_state_dict(state | {"weight": first} if our is ours.hidden()[0].linear else state)


def _fill_decoder(ours: LinearDecoder, regressor: Any, genes: NDArray[np.intp]) -> None:  # noqa: ANN401  scvi-tools may be missing
    from torch.nn.utils import fuse_linear_bn_eval

    linear, norm = regressor.fc_layers[0][0], regressor.fc_layers[0][1]
    exact = deepcopy(linear).double().eval()
    if norm is not None:
        exact = fuse_linear_bn_eval(exact, deepcopy(norm).double().eval())
    ours.weight.copy_(exact.weight[genes])
    if ours.bias is not None:
        ours.bias.zero_() if exact.bias is None else ours.bias.copy_(exact.bias[genes])
