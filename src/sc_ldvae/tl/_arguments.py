"""The door of `tl.ldvae`: what the user asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae._modality import obs_of
from sc_ldvae._typing import UNSET, Unset
from sc_ldvae.counts import check_counts, check_no_empty_cell
from sc_ldvae.record import Categorical, Continuous, Design, numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Mask, Seed

_DEFAULT_SEED = 0
_FEWEST_CELLS = 2


def check_object(adata: AnnData) -> None:
    """Refuse objects that can't be fitted whatever the other arguments are."""
    check_in_memory(adata)
    if adata.n_obs < _FEWEST_CELLS:
        msg = f"data has {adata.n_obs} cells, but a fit needs at least {_FEWEST_CELLS}."
        raise ValueError(msg)


def check_in_memory(adata: AnnData) -> None:
    """Refuse objects whose counts are on disk, or whose genes can't be told apart."""
    if adata.isbacked:
        msg = "data is backed by a file on disk. Load it first: data = data.to_memory()."
        raise ValueError(msg)
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()][0]
        msg = f"var_names are not unique (for example {repeated!r}). Call adata.var_names_make_unique() first."
        raise ValueError(msg)


def gene_mask(adata: AnnData, mask_var: Mask | Sequence[bool] | str | Unset | None) -> Mask:
    """Which genes to fit, n_vars."""
    if mask_var is UNSET:
        mask_var = "highly_variable" if "highly_variable" in adata.var else None
    if mask_var is None:
        return np.ones(adata.n_vars, dtype=bool)
    if isinstance(mask_var, str) and mask_var not in adata.var:
        msg = f"mask_var={mask_var!r} is not a column of var. Columns: {', '.join(map(repr, adata.var)) or 'none'}."
        raise ValueError(msg)
    mask = np.asarray(adata.var[mask_var] if isinstance(mask_var, str) else mask_var)
    if mask.dtype != bool or mask.shape != (adata.n_vars,):
        msg = f"mask_var must be boolean, one value for each of {adata.n_vars} genes, but is {mask.dtype} {mask.shape}."
        raise ValueError(msg)
    if not mask.any():
        msg = "mask_var leaves no gene to fit. Pass mask_var=None to fit all genes."
        raise ValueError(msg)
    return mask


def counts_of(adata: AnnData, layer: str | None, genes: NDArray[np.intp]) -> csr_matrix:
    """Checked counts of the genes at these positions, in their order."""
    if layer is not None and layer not in adata.layers:
        # From anndata 0.13 on, X is the layer None.
        known = ", ".join(repr(name) for name in list(adata.layers.keys()) if name is not None)
        msg = f"layer={layer!r} is not in layers. Layers: {known or 'none'}."
        raise ValueError(msg)
    name = "X" if layer is None else f"layers[{layer!r}]"
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        msg = "X is empty. Name the layer that holds the counts, e.g. layer='counts'."
        raise ValueError(msg)
    everything = np.array_equal(genes, np.arange(adata.n_vars))
    counts = check_counts(matrix if everything else matrix[:, genes], name)
    totals = np.asarray(counts.sum(1)).ravel()
    check_no_empty_cell(totals, adata.obs_names, counts.shape[1], name)
    return counts


def check_n_latent(n_latent: int, n_genes: int) -> None:
    """Refuse as many factors as genes."""
    if n_latent >= n_genes:
        msg = f"n_latent must be below the number of fitted genes ({n_genes}), but is {n_latent}."
        raise ValueError(msg)


@dataclass(frozen=True)
class Annotations:
    """What the model is told of each cell beside its counts."""

    obs: pd.DataFrame
    design: Design
    labels: Categorical | None
    size_factor: Floats | None
    size_factor_unit: float = 1.0
    """Counts that a size factor of one stands for."""

    def in_counts_of(self, counts: csr_matrix) -> Annotations:
        """The same with size factors whose mean is the mean total of `counts`."""
        if self.size_factor is None:
            return self
        mean_total = counts.sum(dtype=np.float64) / counts.shape[0]
        return replace(self, size_factor_unit=float(mean_total / self.size_factor.mean()))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Arguments of the model's forward."""
        design = self.design
        arrays: dict[str, Any] = {
            "batch_index": None if design.batch is None else design.batch.codes(self.obs),
            "labels": None if self.labels is None else self.labels.codes(self.obs),
        }
        if design.categorical:
            arrays["cat_covs"] = np.stack([column.codes(self.obs) for column in design.categorical], 1)
        if design.continuous:
            arrays["cont_covs"] = np.stack([column.values(self.obs) for column in design.continuous], 1)
            arrays["cont_covs"] = arrays["cont_covs"].astype(np.float32)
        if self.size_factor is not None:
            arrays["size_factor"] = (self.size_factor * self.size_factor_unit).astype(np.float32)
        return {name: torch.as_tensor(array) for name, array in arrays.items() if array is not None}

    def sizes(self) -> dict[str, Any]:
        """Arguments of the model's constructor."""
        return {
            "n_batch": 0 if self.design.batch is None else len(self.design.batch.levels),
            "n_labels": 0 if self.labels is None else len(self.labels.levels),
            "n_cats_per_cov": [len(column.levels) for column in self.design.categorical],
            "n_continuous_cov": len(self.design.continuous),
        }


def annotations_of(
    adata: AnnData,
    *,
    batch_key: str | None,
    labels_key: str | None,
    categorical_covariate_keys: Sequence[str] | None,
    continuous_covariate_keys: Sequence[str] | None,
    size_factor_key: str | None,
) -> Annotations:
    """Checked columns of obs."""
    obs = obs_of(adata)
    categorical = _keys(categorical_covariate_keys, "categorical_covariate_keys")
    continuous = _keys(continuous_covariate_keys, "continuous_covariate_keys")
    every = [*([batch_key] if batch_key else []), *categorical, *continuous]
    repeated = {key for key in every if every.count(key) > 1}
    if repeated:
        msg = f"Covariates may be named once only, but {', '.join(map(repr, sorted(repeated)))} stands twice."
        raise ValueError(msg)
    batch = None if batch_key is None else Categorical.fit(obs, batch_key, "batch_key")
    if batch is not None:
        _check_batches(obs, batch)
    design = Design(
        batch=batch,
        categorical=tuple(Categorical.fit(obs, key, "categorical_covariate_keys") for key in categorical),
        continuous=tuple(Continuous.fit(obs, key, "continuous_covariate_keys") for key in continuous),
    )
    labels = None if labels_key is None else Categorical.fit(obs, labels_key, "labels_key")
    return Annotations(obs, design, labels, None if size_factor_key is None else size_factors(obs, size_factor_key))


def split(adata: AnnData, train_size: float | str, rng: np.random.Generator) -> Mask:
    """Which cells are held out, n_obs: a random share, or those that a column of obs says are not for training."""
    if isinstance(train_size, str):
        if train_size not in adata.obs or adata.obs[train_size].dtype != bool:
            msg = f"train_size={train_size!r} must name a boolean column of obs (True: train) or be a number up to 1."
            raise ValueError(msg)
        held_out = ~adata.obs[train_size].to_numpy()
    else:
        if not 0 < train_size <= 1:
            msg = f"train_size must be above 0 and at most 1, but is {train_size}."
            raise ValueError(msg)
        held_out = np.zeros(adata.n_obs, dtype=bool)
        held_out[rng.permutation(adata.n_obs)[: round((1 - train_size) * adata.n_obs)]] = True
    n_training = int((~held_out).sum())
    if n_training < _FEWEST_CELLS:
        msg = f"train_size={train_size!r} leaves {n_training} of {adata.n_obs} cells for training; raise it."
        raise ValueError(msg)
    return held_out


def generator_of(rng: Seed | Unset, random_state: int | Unset | None) -> np.random.Generator:
    """The source of randomness: `rng`, or its alias; a fixed seed if neither is given."""
    if rng is not UNSET and random_state is not UNSET:
        msg = "rng and random_state were both given, but mean the same. Pass one of them."
        raise TypeError(msg)
    seed = random_state if rng is UNSET else rng
    return np.random.default_rng(_DEFAULT_SEED if seed is UNSET else seed)


def device_of(device: str | torch.device) -> torch.device:
    """The device: for 'auto' a CUDA GPU if there is one, otherwise the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    # torch raises RuntimeError for unknown and absent devices, AssertionError where it was built without CUDA.
    except (RuntimeError, AssertionError) as error:
        msg = f"device={str(device)!r} can't be used here ({str(error).splitlines()[0]}). Pass 'auto' or 'cpu'."
        raise ValueError(msg) from error
    return chosen


def check_whole(**numbers: int | None) -> None:
    """Refuse numbers that are given and not whole or below one."""
    for name, number in numbers.items():
        if number is None:
            continue
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            msg = f"{name} must be an integer, but is {number!r}."
            raise TypeError(msg)
        if number < 1:
            msg = f"{name} must be at least 1, but is {number}."
            raise ValueError(msg)


def check_lr(lr: float) -> None:
    """Refuse learning rates that are not above zero."""
    if not lr > 0:
        msg = f"lr must be above 0, but is {lr}."
        raise ValueError(msg)


def check_key(key_added: str | None) -> None:
    """Refuse names that files can't hold."""
    if key_added is not None and (not key_added or "/" in key_added):
        msg = f"key_added={key_added!r} can't name an entry of a file. Give a name without '/'."
        raise ValueError(msg)


def size_factors(obs: pd.DataFrame, key: str) -> Floats:
    """A column of positive numbers."""
    values = numbers(obs, key, "size_factor_key")
    if (values <= 0).any():
        msg = (
            f"size_factor_key: obs[{key!r}] is not above zero in {(values <= 0).sum()} cells, but size factors must be."
        )
        raise ValueError(msg)
    return values


def _keys(keys: Sequence[str] | None, argument: str) -> list[str]:
    if isinstance(keys, str):
        msg = f"{argument} must be a list of columns of obs: [{keys!r}]."
        raise TypeError(msg)
    return list(keys or [])


def _check_batches(obs: pd.DataFrame, batch: Categorical) -> None:
    sizes = np.bincount(batch.codes(obs), minlength=len(batch.levels))
    if sizes.min() == 1:
        level = batch.levels[int(sizes.argmin())]
        msg = (
            f"batch_key: batch {level!r} of obs[{batch.key!r}] has one cell, too few to fit its effect. "
            "Remove the cell or merge the batch."
        )
        raise ValueError(msg)
