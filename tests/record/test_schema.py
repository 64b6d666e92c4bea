"""Every entry of every kind of fit has its type, and gets it back from what files and other languages make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr

import sc_ldvae
from sc_ldvae import get, record, tl

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

KEY = "ldvae"
QUIET: dict[str, Any] = {"progress": False}
COVARIATES: dict[str, Any] = {
    "batch_key": "batch",
    "labels_key": "label",
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["covariate1"],
}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "zinb-gene-batch": {"gene_likelihood": "zinb", "dispersion": "gene-batch", **COVARIATES},
    "nb-gene-label": {"dispersion": "gene-label", **COVARIATES},
    "zinb-gene-cell": {
        "gene_likelihood": "zinb",
        "dispersion": "gene-cell",
        "continuous_covariate_keys": ["covariate1"],
    },
    "poisson-observed-library": {"gene_likelihood": "poisson", "use_observed_lib_size": True},
    "nb_background-gene-batch": {"gene_likelihood": "nb_background", "dispersion": "gene-batch", **COVARIATES},
    "size-factor": {"size_factor_key": "size_factor", "batch_key": "batch"},
    "two-layers": {"n_layers_encoder": 2, "categorical_covariate_keys": ["sex"]},
    "one-factor": {"n_latent": 1, "train_size": 1.0, "lr": 1e-2},
    "rotated": {"labels_key": "label", "dispersion": "gene-label"},
    "projected": COVARIATES,
}


@cache
def fit_of(kind: str) -> AnnData:
    """Change a copy."""
    adata = sc_ldvae.datasets.simulate(30, 12, 2, n_batches=2, n_continuous=1, mean_library=300, rng=0)
    adata.obs["sex"] = np.array(["female", "male"])[np.arange(30) % 2]
    adata.obs["label"] = np.array(["a", "b"])[np.arange(30) % 4 // 2]
    adata.obs["size_factor"] = np.random.default_rng(0).gamma(20, 0.05, 30)
    moved = kind in {"rotated", "projected"}
    usual = {"n_latent": 2, "n_hidden": 4, "max_epochs": 2, "key_added": "first" if moved else None}
    tl.ldvae(adata, **usual | KINDS[kind], **QUIET)
    if kind == "rotated":
        tl.rotate(adata, key="first", key_added=KEY)
    elif kind == "projected":
        tl.project(adata, adata, key="first", key_added=KEY, **QUIET)
    return adata


def answers(adata: AnnData) -> dict[str, Any]:
    query = tl.project(fit_of("default")[::4].copy(), adata, copy=True, **QUIET)
    latent = record.read(adata, KEY).keys.latent
    return {
        "loadings": get.loadings(adata).to_numpy(),
        "errors": get.loadings_se(adata).to_numpy(),
        "history": get.history(adata).to_numpy(),
        "effects": get.covariate_effects(adata).to_numpy(),
        "means": tl.normalized_expression(adata, **QUIET).to_numpy(),
        "elbo": tl.elbo(adata, n_samples=1, **QUIET),
        "projection": query.obsm[latent],
    }


@cache
def expected(kind: str) -> dict[str, Any]:
    return answers(fit_of(kind).copy())


def assert_the_same(adata: AnnData, kind: str) -> None:
    for name, values in answers(adata).items():
        np.testing.assert_array_equal(values, expected(kind)[name], err_msg=name, strict=True)


each_kind = pytest.mark.parametrize("kind", KINDS)


# A .zarr takes seconds to write.
@pytest.mark.parametrize(
    ("kind", "suffix"), [*((kind, "h5ad") for kind in KINDS), ("zinb-gene-batch", "zarr"), ("size-factor", "zarr")]
)
def test_from_files(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"fit.{suffix}"
    getattr(fit_of(kind), f"write_{suffix}")(path)
    assert_the_same(getattr(ad, f"read_{suffix}")(path), kind)


def everywhere(change: Callable[[Any], Any], content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: everywhere(change, value) for name, value in content.items()}
    return change(content)


def to_vector(value: Any) -> Any:
    return np.atleast_1d(value)


def to_scalar(value: Any) -> Any:
    return np.asarray(value).item() if np.size(value) == 1 else value


def is_text(value: Any) -> bool:
    return np.asarray(value).dtype.kind == "U"


def to_bytes(value: Any) -> Any:
    if not is_text(value):
        return value
    encoded = np.char.encode(np.asarray(value), "utf-8")
    return encoded if encoded.ndim else encoded.item()


def to_doubles(value: Any) -> Any:
    return np.asarray(value, dtype=float) if np.asarray(value).dtype.kind in "biuf" else value


def to_fortran(value: Any) -> Any:
    return np.asfortranarray(value) if np.ndim(value) > 1 else value


def read_only(value: Any) -> Any:
    array = np.array(value)
    array.flags.writeable = False
    return array


def of_text(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: change(value) if np.ndim(value) == 1 and is_text(value) else value


def to_zarr(value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind == "U" or not array.ndim:
        return value
    stored = zarr.create_array(store={}, shape=array.shape, dtype=array.dtype)
    stored[:] = array
    return stored


FORMS: dict[str, Callable[[Any], Any]] = {
    "vectors of length one": to_vector,
    "scalars": to_scalar,
    "bytes": to_bytes,
    "doubles": to_doubles,
    "as R": lambda value: to_fortran(to_doubles(to_vector(value))),
    "Fortran order": to_fortran,
    "read-only": read_only,
    "lists": lambda value: np.asarray(value).tolist(),
    "the other order of bytes": lambda value: (
        np.asarray(value).astype(np.asarray(value).dtype.newbyteorder(">")) if np.ndim(value) else value
    ),
    "objects": of_text(lambda value: np.asarray(value, dtype=object)),
    "text of pandas": of_text(lambda value: pd.array(np.asarray(value).tolist(), dtype="string")),
    "categories": of_text(lambda value: pd.Categorical(np.asarray(value).tolist())),
    "zarr": to_zarr,
}
if hasattr(np.dtypes, "StringDType"):
    # From NumPy 2 on.
    FORMS["text of NumPy"] = of_text(lambda value: np.asarray(value).astype(np.dtypes.StringDType()))


@pytest.mark.parametrize("form", FORMS)
@each_kind
def test_in_other_forms(kind: str, form: str) -> None:
    adata = fit_of(kind).copy()
    adata.uns[KEY] = everywhere(FORMS[form], adata.uns[KEY])
    before = record.read(fit_of(kind), KEY).content
    assert_typed_alike(record.read(adata, KEY).content, before)
    if kind in {"zinb-gene-batch", "rotated"} or form == "as R":
        assert_the_same(adata, kind)


def assert_typed_alike(got: Any, wanted: Any, where: str = "") -> None:
    assert isinstance(got, Mapping) == isinstance(wanted, Mapping), where
    if isinstance(wanted, Mapping):
        assert got.keys() == wanted.keys(), where
        for name, value in wanted.items():
            assert_typed_alike(got[name], value, f"{where}/{name}")
        return
    assert type(got) is type(wanted), where
    np.testing.assert_array_equal(got, wanted, err_msg=where, strict=True)
