"""What a fit is asked for, checked: one fit, or many of the same cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._modality import obs_of
from sc_ldvae.fit import Schedule, default_max_epochs, fit, trained
from sc_ldvae.tl import _arguments as door
from sc_ldvae.tl._stored import fitted_counts, size_factors_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Mask, Positions, Unset
    from sc_ldvae.fit import Fitted, Trained
    from sc_ldvae.record import Record

# Arguments of the model's constructor that a user gives, with the values of tl.ldvae, for records that lack them.
_OPTIONS: dict[str, Any] = {
    "n_hidden": 128,
    "n_layers_encoder": 1,
    "dropout_rate": 0.1,
    "dispersion": "gene",
    "log_variational": True,
    "gene_likelihood": "nb",
    "use_batch_norm": True,
    "bias": False,
    "latent_distribution": "normal",
}
_ANNOTATIONS = (
    "batch_key",
    "labels_key",
    "categorical_covariate_keys",
    "continuous_covariate_keys",
    "size_factor_key",
)
_SCHEDULE: dict[str, Any] = {"batch_size": 128, "lr": 0.06, "early_stopping": True}


@dataclass(frozen=True)
class Request:
    """Counts and all else that a fit needs but the number of factors."""

    counts: csr_matrix
    annotations: door.Annotations
    options: Mapping[str, Any]
    """Arguments of the model's constructor."""
    schedule_options: Mapping[str, Any]
    max_epochs: int | None
    device: torch.device

    @classmethod
    def of(cls, adata: AnnData, mask: Mask, asked: Mapping[str, Any]) -> Request:
        """What the arguments of `tl.ldvae` ask for, with `mask` for the genes to fit.

        Raises
        ------
        ValueError, TypeError
            If one of them does not fit the data.
        """
        door.check_whole(n_hidden=asked["n_hidden"], n_layers_encoder=asked["n_layers_encoder"])
        door.check_whole(max_epochs=asked["max_epochs"], batch_size=asked["batch_size"])
        door.check_lr(asked["lr"])
        annotations = door.annotations_of(adata, **{name: asked[name] for name in _ANNOTATIONS})
        counts = door.counts_of(adata, asked["layer"], np.flatnonzero(mask))
        observed = asked["use_observed_lib_size"] or asked["size_factor_key"] is not None
        return cls(
            counts,
            annotations.in_counts_of(counts),
            {name: asked[name] for name in _OPTIONS} | {"use_observed_lib_size": observed},
            {name: asked[name] for name in _SCHEDULE},
            asked["max_epochs"],
            door.device_of(asked["device"]),
        )

    @classmethod
    def of_record(
        cls, adata: AnnData, stored: Record, layer: str | Unset | None, device: str | torch.device
    ) -> Request:
        """What a stored fit was asked for, on the cells of `adata`."""
        counts = fitted_counts(adata, stored, layer)
        annotations = door.Annotations(obs_of(adata), stored.design, stored.labels, *size_factors_of(adata, stored))
        given = _OPTIONS | _SCHEDULE | {"max_epochs": None}
        given = {name: value if stored.param(name) is None else stored.param(name) for name, value in given.items()}
        return cls(
            counts,
            annotations,
            {name: given[name] for name in _OPTIONS}
            | {"use_observed_lib_size": stored.options["use_observed_lib_size"]},
            {name: given[name] for name in _SCHEDULE},
            given["max_epochs"],
            door.device_of(device),
        )

    def fit(self, n_latent: int, held_out: Mask, rng: np.random.Generator, *, progress: bool) -> Fitted:
        """Fit all cells but the `held_out` ones, n_obs; with a bar of the epochs."""
        return fit(
            self.counts,
            self.annotations.tensors(),
            held_out,
            self._options(n_latent),
            self._schedule(int((~held_out).sum()), progress=progress),
            device=self.device,
            rng=rng,
        )

    def trained(self, n_latent: int, training: Positions, others: Positions, rng: np.random.Generator) -> Trained:
        """Train on the cells at positions `training`, in which a cell may be repeated, with `others` held out.

        The result's cells are those of `training` and then those of `others`.
        """
        cells = np.concatenate([training, others])
        return trained(
            self.counts[cells],
            {name: tensor[cells] for name, tensor in self.annotations.tensors().items()},
            np.arange(len(cells)) >= len(training),
            self._options(n_latent),
            self._schedule(len(training), progress=False),
            device=self.device,
            rng=rng,
        )

    def _options(self, n_latent: int) -> dict[str, Any]:
        return {"n_latent": int(n_latent), **self.options, **self.annotations.sizes()}

    def _schedule(self, n_training: int, *, progress: bool) -> Schedule:
        max_epochs = self.max_epochs or default_max_epochs(n_training, self.schedule_options["batch_size"])
        return Schedule(max_epochs, **self.schedule_options, progress=progress)
