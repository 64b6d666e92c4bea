"""What a fit writes where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._typing import Unset
from sc_ldvae.record import SCHEMA_VERSION, Keys, packed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from sc_ldvae._typing import Mask
    from sc_ldvae.fit import Fitted
    from sc_ldvae.tl._arguments import Annotations

# Neither changes the fit, or has no form in a file.
_NOT_STORED = ("data", "copy", "progress", "rng", "random_state", "device")


def entries(
    fitted: Fitted, keys: Keys, mask: Mask, var_names: pd.Index, annotations: Annotations, asked: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Values to set, by attribute of the AnnData and key."""
    factors = fitted.factors
    loadings, errors = (np.zeros((len(mask), factors.latent.shape[1]), dtype=np.float32) for _ in range(2))
    loadings[mask] = factors.decoder.log_proportion.loadings
    errors[mask] = np.sqrt(np.diagonal(factors.loadings_covariance, axis1=1, axis2=2))
    return {
        "obsm": {
            keys.latent: factors.latent,
            keys.variance: factors.variance,
        },
        "varm": {keys.loadings: loadings, keys.loadings_se: errors},
        "obs": {
            keys.library: factors.library,
            keys.held_out: fitted.held_out,
        },
        "uns": {keys.uns: _record(fitted, keys, var_names[mask], annotations, asked)},
    }


def _record(
    fitted: Fitted, keys: Keys, genes: pd.Index, annotations: Annotations, asked: Mapping[str, Any]
) -> dict[str, Any]:
    factors = fitted.factors
    history = {name: np.array(values) for name, values in vars(fitted.history).items() if values}
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "keys": keys.to_dict(),
        "params": storable(asked),
        "genes": genes.to_numpy().astype(str),
        "decoder": factors.decoder.to_dict(),
        "loadings_covariance": packed(factors.loadings_covariance),
        "encoder": factors.encoders,
        "history": history,
        "explained_deviance": factors.explained_deviance,
        "total_explained_deviance": factors.total_explained_deviance,
        "n_epochs": len(fitted.history.epoch),
        "best_epoch": fitted.history.best_epoch() + 1,
        "stop_reason": fitted.stop_reason,
    }
    if annotations.design.columns:
        record["covariates"] = annotations.design.table()
    for name, column in (("batches", annotations.design.batch), ("labels", annotations.labels)):
        if column is not None:
            record[name] = np.array(column.levels, dtype=str)
    if annotations.size_factor is not None:
        record["size_factor_unit"] = annotations.size_factor_unit
    if factors.library_prior is not None:
        record["library_prior"] = factors.library_prior
    if factors.elbo_held_out is not None:
        record["elbo_held_out"] = factors.elbo_held_out
    return record


def storable(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a file can hold: what was not given is left out, lists of keys become arrays."""
    given = {
        key: value
        for key, value in asked.items()
        if key not in _NOT_STORED and value is not None and not isinstance(value, Unset)
    }
    return {key: value if isinstance(value, str | int | float) else np.asarray(value) for key, value in given.items()}
