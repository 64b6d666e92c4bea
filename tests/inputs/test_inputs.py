from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sc_ldvae

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anndata import AnnData

    FitQuickly = Callable[..., AnnData]
    AssertSame = Callable[..., None]

ADDED = {
    "obs": ["ldvae_library", "ldvae_held_out", "ldvae_fit"],
    "obsm": ["X_ldvae", "X_ldvae_variance"],
    "varm": ["ldvae_loadings", "ldvae_loadings_se"],
    "uns": ["ldvae"],
}
ADDED_AS_FOO = {
    "obs": ["foo_library", "foo_held_out", "foo_fit"],
    "obsm": ["foo", "foo_variance"],
    "varm": ["foo", "foo_se"],
    "uns": ["foo"],
}


@pytest.fixture(scope="module")
def base() -> AnnData:
    adata = sc_ldvae.datasets.simulate(120, 40, 3, n_batches=2, n_continuous=1, mean_library=400)
    adata.var["highly"] = np.arange(40) % 3 > 0
    adata.obs["type"] = pd.Categorical(np.where(adata.obsm["true_latent"][:, 0] > 0, "T", "B"))
    adata.obs["size"] = adata.obs["true_library"] / adata.obs["true_library"].mean()
    adata.obs["train"] = np.arange(120) % 5 > 0
    adata.layers["counts"] = adata.X.copy()
    adata.obsp["near"] = sparse.csr_matrix(np.eye(120))
    adata.varp["near"] = np.eye(40)
    adata.uns["theirs"] = {"a": np.arange(3)}
    return adata


@pytest.fixture
def adata(base: AnnData) -> AnnData:
    return base.copy()


@pytest.fixture(scope="module")
def reference(base: AnnData, fit_quickly: FitQuickly) -> AnnData:
    return fit_quickly(base, batch_key="batch", copy=True)


@pytest.fixture(scope="module")
def masked_reference(base: AnnData, fit_quickly: FitQuickly) -> AnnData:
    return fit_quickly(base, batch_key="batch", mask_var="highly", copy=True)


def assert_same_fit(got: AnnData, expected: AnnData) -> None:
    for attribute in ("obsm", "varm"):
        for key in ADDED[attribute]:
            np.testing.assert_array_equal(getattr(got, attribute)[key], getattr(expected, attribute)[key], strict=True)
    for key in ADDED["obs"]:
        np.testing.assert_array_equal(got.obs[key], expected.obs[key])


def not_canonical(dense: np.ndarray) -> sparse.csr_matrix:
    """Columns from right to left, every count above one in two entries, an explicit zero at the end of each row."""
    rows = []
    for counts in dense:
        columns = np.flatnonzero(counts)[::-1]
        large = columns[counts[columns] > 1]
        absent = np.flatnonzero(counts == 0)[:1]
        values = [np.where(counts[columns] > 1, counts[columns] - 1, counts[columns]), np.ones(len(large)), absent * 0]
        rows.append((np.concatenate([columns, large, absent]), np.concatenate(values)))
    indices, data = (np.concatenate(part) for part in zip(*rows, strict=True))
    indptr = np.cumsum([0, *(len(row[0]) for row in rows)])
    return sparse.csr_matrix((data.astype(np.float32), indices, indptr), shape=dense.shape)


def read_only(matrix: np.ndarray | sparse.spmatrix) -> np.ndarray | sparse.spmatrix:
    for array in [matrix] if isinstance(matrix, np.ndarray) else [matrix.data, matrix.indices, matrix.indptr]:
        array.flags.writeable = False
    return matrix


FORMATS = [
    *(
        pytest.param(lambda x, dtype=dtype: sparse.csr_matrix(x.astype(dtype)), id=f"csr-{dtype}")
        for dtype in ("uint16", "int32", "int64", "float32", "float64")
    ),
    *(
        pytest.param(lambda x, dtype=dtype: x.astype(dtype), id=f"dense-{dtype}")
        for dtype in ("uint16", "int32", "int64", "float32", "float64")
    ),
    pytest.param(np.asfortranarray, id="dense-fortran"),
    pytest.param(sparse.csc_matrix, id="csc"),
    pytest.param(lambda x: sparse.csc_matrix(x.astype("int64")), id="csc-int64"),
    pytest.param(sparse.csr_array, id="csr-array"),
    pytest.param(sparse.csc_array, id="csc-array"),
    pytest.param(not_canonical, id="csr-not-canonical"),
    pytest.param(read_only, id="dense-read-only"),
    pytest.param(lambda x: read_only(sparse.csr_matrix(x)), id="csr-read-only"),
    pytest.param(lambda x: read_only(not_canonical(x)), id="csr-not-canonical-read-only"),
]


def test_not_canonical_is_what_it_says(base: AnnData) -> None:
    dense = base.X.toarray()
    matrix = not_canonical(dense)
    np.testing.assert_array_equal(matrix.toarray(), dense)
    assert not matrix.has_sorted_indices
    assert not matrix.has_canonical_format
    assert (matrix.data == 0).sum() == 120


@pytest.mark.parametrize("convert", FORMATS)
def test_any_array_type_gives_the_same_fit(
    convert: Callable[[np.ndarray], Any],
    adata: AnnData,
    reference: AnnData,
    fit_quickly: FitQuickly,
    assert_same: AssertSame,
) -> None:
    adata.X = convert(adata.X.toarray())
    counts = adata.X.copy()
    fit_quickly(adata, batch_key="batch")
    assert_same_fit(adata, reference)
    assert_same(adata.X, counts)


@pytest.mark.parametrize("convert", FORMATS)
def test_any_array_type_of_a_layer_and_its_masked_genes(
    convert: Callable[[np.ndarray], Any], adata: AnnData, masked_reference: AnnData, fit_quickly: FitQuickly
) -> None:
    adata.layers["raw"] = convert(adata.X.toarray())
    adata.X = np.log1p(adata.X.toarray())
    fit_quickly(adata, batch_key="batch", mask_var="highly", layer="raw")
    assert_same_fit(adata, masked_reference)
    assert adata.uns["ldvae"]["params"]["layer"] == "raw"


@pytest.mark.parametrize(
    ("cells", "genes"),
    [
        pytest.param(slice(None, None, 2), slice(None), id="cells"),
        pytest.param(slice(None), slice(5, 35), id="genes"),
        pytest.param(slice(None, None, -1), np.arange(40) % 2 == 0, id="both"),
    ],
)
@pytest.mark.parametrize("fmt", ["csr", "csc", "dense"])
def test_view_is_its_copy(
    cells: slice,
    genes: slice | np.ndarray,
    fmt: str,
    adata: AnnData,
    fit_quickly: FitQuickly,
    unchanged: Callable[..., Any],
) -> None:
    adata.X = adata.X.toarray() if fmt == "dense" else adata.X.asformat(fmt)
    view, copy = adata[cells, genes], adata[cells, genes].copy()
    fit_quickly(copy, batch_key="batch")
    with unchanged(adata):
        fit_quickly(view, batch_key="batch")
    assert_same_fit(view, copy)


def test_view_with_copy_stays_a_view(adata: AnnData, fit_quickly: FitQuickly, unchanged: Callable[..., Any]) -> None:
    view = adata[::2]
    with unchanged(view):
        result = fit_quickly(view, copy=True)
    assert not result.is_view
    assert_same_fit(result, fit_quickly(adata[::2].copy(), copy=True))


def test_cells_of_one_name_in_a_view_are_no_news(adata: AnnData, fit_quickly: FitQuickly) -> None:
    adata.obs_names = [adata.obs_names[0], *adata.obs_names[:-1]]
    view = adata[:60]
    fit_quickly(view)
    assert not view.is_view


BATCHES = {
    "unused-category": lambda batch: batch.cat.set_categories(["batch0", "empty", "batch1", "none"]),
    "strings": lambda batch: batch.astype(str),
    "objects": lambda batch: batch.astype(str).astype(object),
    "nullable-strings": lambda batch: batch.astype(str).astype("string"),
    "ordered": lambda batch: batch.cat.as_ordered(),
    "integers": lambda batch: batch.cat.codes.astype(int),
    "booleans": lambda batch: batch == "batch1",
    "nullable-integers": lambda batch: batch.cat.codes.astype("Int64"),
    "intervals": lambda batch: pd.cut(batch.cat.codes, [-1, 0, 1]),
    "dates": lambda batch: pd.to_datetime(np.where(batch == "batch0", "2020-01-01", "2021-05-05")),
}


@pytest.mark.parametrize("convert", BATCHES.values(), ids=BATCHES)
def test_any_type_of_batch_gives_the_same_fit(
    convert: Callable[[pd.Series], Any], adata: AnnData, reference: AnnData, fit_quickly: FitQuickly
) -> None:
    adata.obs["batch"] = convert(adata.obs["batch"])
    fit_quickly(adata, batch_key="batch")
    assert_same_fit(adata, reference)
    assert len(adata.uns["ldvae"]["batches"]) == 2


def test_unused_categories_stay(adata: AnnData, fit_quickly: FitQuickly) -> None:
    adata.obs["batch"] = adata.obs["batch"].cat.add_categories(["empty"])
    fit_quickly(adata, batch_key="batch", labels_key="type", dispersion="gene-batch")
    assert adata.obs["batch"].cat.categories.tolist() == ["batch0", "batch1", "empty"]
    assert adata.uns["ldvae"]["decoder"]["log_theta"].shape == (2, 40)


@pytest.mark.parametrize("n_latent", [3, np.int64(3), np.uint8(3)], ids=["int", "int64", "uint8"])
@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=["name", "device"])
def test_numbers_and_devices_by_any_type(
    n_latent: int, device: str | torch.device, adata: AnnData, reference: AnnData, fit_quickly: FitQuickly
) -> None:
    fit_quickly(adata, n_latent, batch_key="batch", device=device)
    assert_same_fit(adata, reference)
    assert np.ndim(adata.uns["ldvae"]["params"]["n_latent"]) == 0


@pytest.mark.parametrize("n_obs", [2, 3, 4, 5, 6])
def test_few_cells(n_obs: int, adata: AnnData, fit_quickly: FitQuickly) -> None:
    few = adata[:n_obs].copy()
    fit_quickly(few, 2)
    assert np.isfinite(few.obsm["X_ldvae"]).all()
    assert np.isfinite(few.varm["ldvae_loadings"]).all()


@pytest.mark.parametrize("n_latent", [1, 39], ids=["one", "genes-minus-one"])
def test_extreme_numbers_of_factors(n_latent: int, adata: AnnData, fit_quickly: FitQuickly) -> None:
    fit_quickly(adata, n_latent)
    assert adata.varm["ldvae_loadings"].shape == (40, n_latent)


@pytest.mark.parametrize(("key_added", "added"), [(None, ADDED), ("foo", ADDED_AS_FOO)], ids=["default", "foo"])
def test_only_the_documented_keys_are_added(
    key_added: str | None,
    added: dict[str, list[str]],
    adata: AnnData,
    fit_quickly: FitQuickly,
    assert_same: AssertSame,
) -> None:
    before, x, data = adata.copy(), adata.X, adata.X.data
    fit_quickly(adata, key_added=key_added)
    assert adata.X is x
    assert adata.X.data is data
    for attribute in ("obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers"):
        new = added.get(attribute, [])
        mapping = getattr(adata, attribute)
        assert list(mapping) == [*getattr(before, attribute), *new]
        for key in new:
            del mapping[key]
    assert_same(adata, before)


def test_types_and_shapes_of_what_is_added(reference: AnnData) -> None:
    for values, shape in (
        (reference.obsm["X_ldvae"], (120, 3)),
        (reference.obsm["X_ldvae_variance"], (120, 3)),
        (reference.varm["ldvae_loadings"], (40, 3)),
        (reference.varm["ldvae_loadings_se"], (40, 3)),
    ):
        assert (type(values), values.dtype, values.shape) == (np.ndarray, np.float32, shape)
    assert reference.obs["ldvae_library"].dtype == np.float32
    assert reference.obs["ldvae_held_out"].dtype == bool
    assert reference.obs["ldvae_held_out"].sum() == 12
    assert reference.obs["ldvae_fit"].dtype == "category"
    assert len(reference.obs["ldvae_fit"].unique()) == 1


def test_a_second_fit_overwrites_the_first(adata: AnnData, fit_quickly: FitQuickly, assert_same: AssertSame) -> None:
    expected = fit_quickly(adata, 2, rng=1, copy=True)
    adata.obsm["X_ldvae"] = adata.obsm["true_latent"][:, :1].copy()
    fit_quickly(adata, 4, batch_key="batch", gene_likelihood="zinb", rng=5)
    fit_quickly(adata, 2, rng=1)
    for attribute, keys in ADDED.items():
        for key in keys:
            got, wanted = (getattr(data, attribute)[[key] if attribute == "obs" else key] for data in (adata, expected))
            assert_same(got, wanted)


def test_two_keys_live_side_by_side(adata: AnnData, fit_quickly: FitQuickly) -> None:
    fit_quickly(adata, 2, key_added="a", rng=1)
    first = adata.obsm["a"].copy()
    fit_quickly(adata, 3, key_added="b")
    np.testing.assert_array_equal(adata.obsm["a"], first)
    assert sc_ldvae.get.loadings(adata, key="a").columns.tolist() == ["a1", "a2"]
    assert sc_ldvae.get.loadings(adata, key="b").columns.tolist() == ["b1", "b2", "b3"]


def test_copy_is_the_fit_and_the_input_is_left(
    adata: AnnData, reference: AnnData, fit_quickly: FitQuickly, unchanged: Callable[..., Any]
) -> None:
    with unchanged(adata):
        result = fit_quickly(adata, batch_key="batch", copy=True)
    assert_same_fit(result, reference)
    assert not np.shares_memory(result.X.data, adata.X.data)


def test_in_place_returns_nothing(adata: AnnData, fit_quickly: FitQuickly) -> None:
    assert fit_quickly(adata) is None


HIGHLY = np.arange(40) % 3 > 0


@pytest.mark.parametrize(
    "mask_var",
    [
        pytest.param("highly", id="column"),
        pytest.param(HIGHLY, id="array"),
        pytest.param(HIGHLY.tolist(), id="list"),
        pytest.param(pd.Series(HIGHLY), id="series"),
    ],
)
def test_mask_var_fits_those_genes(mask_var: Any, adata: AnnData, fit_quickly: FitQuickly) -> None:
    expected = fit_quickly(adata[:, HIGHLY].copy(), copy=True)
    fit_quickly(adata, mask_var=mask_var)
    loadings = adata.varm["ldvae_loadings"]
    assert (loadings[~HIGHLY] == 0).all()
    assert (loadings[HIGHLY] != 0).all()
    np.testing.assert_array_equal(loadings[HIGHLY], expected.varm["ldvae_loadings"])
    np.testing.assert_array_equal(adata.obsm["X_ldvae"], expected.obsm["X_ldvae"])
    assert adata.uns["ldvae"]["genes"].tolist() == adata.var_names[HIGHLY].tolist()


def test_mask_var_by_default_is_highly_variable(adata: AnnData, reference: AnnData, fit_quickly: FitQuickly) -> None:
    adata.var["highly_variable"] = HIGHLY
    masked = fit_quickly(adata, batch_key="batch", copy=True)
    assert (masked.varm["ldvae_loadings"] != 0).any(1).tolist() == HIGHLY.tolist()
    fit_quickly(adata, batch_key="batch", mask_var=None)
    assert_same_fit(adata, reference)


def test_train_size_names_the_training_cells(adata: AnnData, fit_quickly: FitQuickly) -> None:
    fit_quickly(adata, train_size="train")
    assert (adata.obs["ldvae_held_out"] == ~adata.obs["train"]).all()
    assert adata.uns["ldvae"]["params"]["train_size"] == "train"


@pytest.mark.parametrize(("share", "n_held_out"), [(0.9, 12), (0.5, 60), (1, 0), (1.0, 0)])
def test_train_size_is_the_share_of_training_cells(
    share: float, n_held_out: int, adata: AnnData, fit_quickly: FitQuickly
) -> None:
    fit_quickly(adata, train_size=share)
    assert adata.obs["ldvae_held_out"].sum() == n_held_out
    assert ("elbo_held_out" in adata.uns["ldvae"]["history"]) == (n_held_out > 0)


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**12], ids=["small", "large"])
def test_size_factors_at_any_power_of_two_give_the_same_fit(
    scale: float, adata: AnnData, fit_quickly: FitQuickly
) -> None:
    expected = fit_quickly(adata, size_factor_key="size", copy=True)
    adata.obs["size"] *= scale
    fit_quickly(adata, size_factor_key="size")
    assert_same_fit(adata, expected)


def test_size_factors_are_the_library(adata: AnnData, fit_quickly: FitQuickly) -> None:
    adata.obs["size"] *= 1234.5
    fit_quickly(adata, size_factor_key="size")
    mean_total = adata.X.sum() / adata.n_obs
    expected = adata.obs["size"] / adata.obs["size"].mean() * mean_total
    np.testing.assert_allclose(adata.obs["ldvae_library"], expected, rtol=1e-6)


def test_observed_library_is_the_total_of_the_fitted_genes(adata: AnnData, fit_quickly: FitQuickly) -> None:
    fit_quickly(adata, use_observed_lib_size=True, mask_var="highly")
    np.testing.assert_array_equal(adata.obs["ldvae_library"], adata.X.toarray()[:, HIGHLY].sum(1))


def two_modalities(adata: AnnData) -> mudata.MuData:
    other = adata[20:].copy()
    other.var_names = [f"peak{i}" for i in range(other.n_vars)]
    return mudata.MuData({"rna": adata, "atac": other})


def test_modality_is_fitted_in_place(
    adata: AnnData, reference: AnnData, fit_quickly: FitQuickly, assert_same: AssertSame, unchanged: Callable[..., Any]
) -> None:
    mdata = two_modalities(adata)
    rna, before = mdata["rna"], mdata.copy()
    with unchanged(mdata["atac"]):
        assert fit_quickly(mdata, modality="rna", batch_key="batch") is None
    assert mdata["rna"] is rna
    assert_same_fit(rna, reference)
    for attribute in ("obs", "var", "uns", "obsm", "varm", "obsp", "varp"):
        got, wanted = getattr(mdata, attribute), getattr(before, attribute)
        assert list(got) == list(wanted)
    assert_same(mdata.obs, before.obs)
    assert_same(mdata.var, before.var)


def test_copy_of_mudata(
    adata: AnnData, reference: AnnData, fit_quickly: FitQuickly, unchanged: Callable[..., Any]
) -> None:
    mdata = two_modalities(adata)
    with unchanged(mdata["rna"]), unchanged(mdata["atac"]):
        result = fit_quickly(mdata, modality="rna", batch_key="batch", copy=True)
    assert isinstance(result, mudata.MuData)
    assert_same_fit(result["rna"], reference)
    assert "ldvae" not in result["atac"].uns


FITS = {
    "default": {},
    "everything-named": {
        "mask_var": "highly",
        "layer": "counts",
        "batch_key": "batch",
        "labels_key": "type",
        "categorical_covariate_keys": ["type"],
        "continuous_covariate_keys": ["covariate1"],
        "size_factor_key": "size",
        "train_size": "train",
        "dispersion": "gene-label",
        "key_added": "foo",
    },
    "mask-array": {"mask_var": HIGHLY},
    "all-genes": {"mask_var": None},
    "poisson": {"gene_likelihood": "poisson", "train_size": 1.0},
    "zinb-gene-cell": {"gene_likelihood": "zinb", "dispersion": "gene-cell", "batch_key": "batch"},
    "ln-gene-batch": {"latent_distribution": "ln", "dispersion": "gene-batch", "batch_key": "batch"},
    "no-norm": {"use_batch_norm": False, "bias": True, "n_layers_encoder": 2, "n_latent": np.int64(3)},
    "generator": {"rng": np.random.default_rng(3), "max_epochs": None, "device": torch.device("cpu")},
}


def walk(value: object, path: str = "uns") -> list[tuple[str, Any]]:
    if hasattr(value, "items"):
        return [leaf for key, part in value.items() for leaf in walk(part, f"{path}/{key}")]
    return [(path, value)]


@pytest.mark.parametrize("kwargs", FITS.values(), ids=FITS)
def test_the_record_holds_plain_values_only(kwargs: dict[str, Any], adata: AnnData, fit_quickly: FitQuickly) -> None:
    fit_quickly(adata, **{"n_latent": 3} | kwargs)
    leaves = walk(adata.uns[kwargs.get("key_added", "ldvae")])
    assert len(leaves) > 20
    for path, value in leaves:
        assert isinstance(value, str | bool | int | float | np.ndarray), f"{path}: {type(value)}"
        if isinstance(value, np.ndarray):
            assert value.dtype.kind in "fiubU", f"{path}: {value.dtype}"
            assert value.dtype.kind != "f" or np.isfinite(value).all(), path
        if isinstance(value, float):
            assert np.isfinite(value), path


def assert_read_back(got: Any, expected: Any, path: str = "") -> None:
    if hasattr(expected, "items"):
        assert sorted(got) == sorted(expected), path
        for key in expected:
            assert_read_back(got[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, np.ndarray) and expected.dtype.kind == "U":
        assert list(map(str, got)) == expected.tolist(), path
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(np.asarray(got), expected, strict=True, err_msg=path)
    else:
        assert got == expected, path


def files(data: AnnData, folder: Path, suffix: str) -> AnnData:
    path = folder / f"fitted{suffix}"
    if suffix == ".zarr":
        data.write_zarr(path)
        return ad.read_zarr(path)
    data.write_h5ad(path)
    return ad.read_h5ad(path)


@pytest.mark.parametrize(
    ("kwargs", "suffix"),
    [
        *(pytest.param(kwargs, ".h5ad", id=f"{name}-h5ad") for name, kwargs in FITS.items()),
        *(pytest.param(FITS[name], ".zarr", id=f"{name}-zarr") for name in ("everything-named", "zinb-gene-cell")),
    ],
)
def test_results_come_back_from_a_file(
    kwargs: Mapping[str, Any], suffix: str, adata: AnnData, fit_quickly: FitQuickly, tmp_path: Path
) -> None:
    key = kwargs.get("key_added", "ldvae")
    fit_quickly(adata, **{"n_latent": 3} | kwargs)
    back = files(adata, tmp_path, suffix)
    for attribute, keys in (ADDED_AS_FOO if key == "foo" else ADDED).items():
        for name in keys:
            got, expected = getattr(back, attribute)[name], getattr(adata, attribute)[name]
            assert_read_back(*(v.to_numpy() if attribute == "obs" else v for v in (got, expected)), path=name)
    for getter in (sc_ldvae.get.loadings, sc_ldvae.get.factors, sc_ldvae.get.history, sc_ldvae.get.covariate_effects):
        pd.testing.assert_frame_equal(getter(back, key=key), getter(adata, key=key), rtol=1e-12, atol=0)


def test_a_fit_of_what_was_read_back_is_the_same(
    adata: AnnData, reference: AnnData, fit_quickly: FitQuickly, tmp_path: Path
) -> None:
    back = files(adata, tmp_path, ".h5ad")
    fit_quickly(back, batch_key="batch")
    assert_same_fit(back, reference)
