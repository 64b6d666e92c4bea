"""What a fit leaves, and where it is put."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.likelihoods import Block
from sc_ldvae.record._blocks import table_of
from sc_ldvae.record._covariance import packed
from sc_ldvae.record._marks import fit_column, library_column
from sc_ldvae.record._record import Record
from sc_ldvae.record._sealed import SCHEMA_VERSION, sealed
from sc_ldvae.record._store import write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.record._design import Categorical, Design
    from sc_ldvae.record._folded import Folded
    from sc_ldvae.record._keys import Keys


@dataclass(frozen=True)
class NewFit:
    """A fit that no object holds yet."""

    folded: Folded
    latent: Floats
    """n_obs x n_latent, as `variance`."""
    variance: Floats
    library: Floats
    """n_obs, as `held_out`."""
    held_out: Mask
    loadings_covariance: Floats
    """n_genes x n_latent x n_latent."""
    covariate_effects_se: Floats
    """n_genes x columns of the design."""
    explained_deviance: Floats
    """n_latent."""
    total_explained_deviance: float
    elbo_held_out: float | None
    history: Mapping[str, Sequence[float]]
    """One value per round of the training."""
    best_epoch: float
    """Epochs until the state that was kept; 0 where nobody has counted."""
    stop_reason: str
    prior_scale: Floats | None = None
    """n_latent; None where the loadings had no prior."""


@dataclass(frozen=True)
class JointFit:
    """A fit of several modalities, or of one, that no object holds yet."""

    of_views: tuple[NewFit, ...]
    """What it says of each modality, and of the cells that have it."""
    latent: Floats
    """n_obs x n_latent, as `variance`, of all cells."""
    variance: Floats
    library: Floats
    """n_obs, or where there are several n_obs x modalities."""
    held_out: Mask
    """n_obs."""
    explained_deviance: Floats
    """n_latent, of all modalities together."""
    total_explained_deviance: float

    @property
    def alone(self) -> NewFit:
        """What it says of its only modality."""
        (alone,) = self.of_views
        return alone


@dataclass(frozen=True)
class Asked:
    """What a fit was asked, as the record keeps it."""

    params: Mapping[str, Any]
    """Arguments as they were given."""
    mask: Mask
    """Genes that were fitted, n_vars."""
    design: Design
    labels: Categorical | None
    size_factor_unit: float | None


def write_fit(adata: AnnData, keys: Keys, new: NewFit, asked: Asked) -> None:
    """Put a fit into `adata`, all of it or nothing."""
    content = content_of(new, keys, adata.var_names[asked.mask], asked)
    written = Record(keys, content)
    entries: dict[str, dict[str, Any]] = {
        "obsm": {keys.latent: new.latent, keys.variance: new.variance},
        "varm": written.varm_for(adata.var_names),
        "obs": library_column(written, new.library)
        | {keys.held_out: new.held_out, keys.fit: fit_column(written, len(new.library))},
        "uns": {keys.uns: content},
    }
    write(adata, entries)


def storable(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a file can hold: what was not given is left out, lists of keys become arrays."""
    given = {name: value for name, value in asked.items() if value is not None}
    return {name: value if isinstance(value, str | int | float) else np.asarray(value) for name, value in given.items()}


def content_of(
    new: NewFit, keys: Keys, genes: pd.Index, asked: Asked, modality: str = "", together: Sequence[str] = ()
) -> dict[str, Any]:
    """The record; of a `modality` that was fitted `together` with others."""
    options = new.folded.options
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "keys": keys.to_dict(),
        "params": storable(asked.params),
        "genes": genes.to_numpy().astype(str),
        "blocks": table_of([Block(modality, 0, len(genes), options.gene_likelihood, options.dispersion)]),
        "decoder": new.folded.decoder.to_dict(),
        "loadings_covariance": packed(new.loadings_covariance),
        "encoder": new.folded.encoders,
        "history": {name: np.array(values) for name, values in new.history.items()},
        "explained_deviance": new.explained_deviance,
        "total_explained_deviance": new.total_explained_deviance,
        "n_epochs": math.ceil(max(new.history["epoch"], default=0)),
        "best_epoch": new.best_epoch,
        "stop_reason": new.stop_reason,
    }
    optional: dict[str, Any] = {
        "covariates": asked.design.table() if asked.design.columns else None,
        "batches": _levels(asked.design.batch),
        "labels": _levels(asked.labels),
        "size_factor_unit": asked.size_factor_unit,
        "library_prior": new.folded.library_prior,
        "elbo_held_out": new.elbo_held_out,
        "prior_scale": new.prior_scale,
        "covariate_effects_se": new.covariate_effects_se.astype(np.float32) if asked.design.columns else None,
        "modalities": np.array(together, dtype=str) if new.folded.expert else None,
    }
    return sealed(content | {name: value for name, value in optional.items() if value is not None})


def _levels(column: Categorical | None) -> Any:  # noqa: ANN401  an array or None
    return None if column is None else np.array(column.levels, dtype=str)
