from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_ldvae
from sc_ldvae import record
from sc_ldvae.counts import Cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    Change = Callable[[AnnData], AnnData]

N_OBS, N_VARS = 30, 12


@pytest.fixture(scope="module")
def sound() -> AnnData:
    adata = sc_ldvae.datasets.simulate(N_OBS, N_VARS, 2, n_batches=2, n_continuous=1, mean_library=200)
    adata.layers["counts"] = adata.X.copy()
    adata.var["few"] = np.arange(N_VARS) < 4
    adata.uns["theirs"] = {"a": np.arange(3)}
    return adata


@pytest.fixture
def adata(sound: AnnData) -> AnnData:
    return sound.copy()


@pytest.fixture(params=[False, True], ids=["first-fit", "fitted-before"])
def maybe_fitted(request: pytest.FixtureRequest, adata: AnnData, fit_quickly: Callable[..., None]) -> AnnData:
    if request.param:
        fit_quickly(adata, 2, rng=7)
    return adata


def as_it_is(adata: AnnData) -> AnnData:
    return adata


def counts_with(value: float, *, n: int = 1, where: str | None = None, fmt: str = "dense") -> Change:
    """Puts `value` in the place of the first `n` counts of X or of a layer."""

    def change(adata: AnnData) -> AnnData:
        counts = adata.X.toarray()
        counts.flat[:n] = value
        matrix = counts if fmt == "dense" else sparse.csr_matrix(counts).asformat(fmt)
        if where is None:
            adata.X = matrix
        else:
            adata.layers[where] = matrix
        return adata

    return change


def log_normalised(adata: AnnData) -> AnnData:
    counts = adata.X.toarray()
    adata.X = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    return adata


def empty_cell(adata: AnnData) -> AnnData:
    counts = adata.X.toarray()
    counts[3] = 0
    adata.X = sparse.csr_matrix(counts)
    return adata


def cell_without_the_few(adata: AnnData) -> AnnData:
    counts = adata.X.toarray()
    counts[[3, 5], :4] = 0
    adata.X = sparse.csr_matrix(counts)
    return adata


def no_x(adata: AnnData) -> AnnData:
    adata.X = None
    return adata


def layer_of(dtype: type) -> Change:
    def change(adata: AnnData) -> AnnData:
        adata.layers["odd"] = adata.X.toarray().astype(dtype)
        return adata

    return change


def obs(**columns: Any) -> Change:
    def change(adata: AnnData) -> AnnData:
        for key, values in columns.items():
            adata.obs[key] = values
        return adata

    return change


def var(**columns: Any) -> Change:
    def change(adata: AnnData) -> AnnData:
        for key, values in columns.items():
            adata.var[key] = values
        return adata

    return change


def repeated_gene(adata: AnnData) -> AnnData:
    adata.var_names = ["twin", "twin", *adata.var_names[2:]]
    return adata


def first_cells(n: int) -> Change:
    return lambda adata: adata[:n].copy()


def first_genes(n: int) -> Change:
    return lambda adata: adata[:, :n].copy()


HALVES = np.arange(N_OBS) % 2
NUMBERS = np.linspace(1, 2, N_OBS)
GROUPS = np.where(HALVES, "a", "b").astype(object)
EACH_ITS_OWN = [f"level{i}" for i in range(N_OBS)]


def replaced(values: Any, value: object) -> np.ndarray:
    values = np.array(values)
    values[4] = value
    return values


WHOLE = ("n_latent", "max_epochs", "batch_size", "n_hidden", "n_layers_encoder")
# Of anndata 0.12.0, where an object without cells or genes is copied.
OF_EMPTY_OBJECTS = pytest.mark.filterwarnings("ignore:Transforming to str index")

REFUSALS = [
    pytest.param(counts_with(-1), {}, ValueError, r"^X holds 1 values that are negative .*-1.*raw counts", id="neg"),
    pytest.param(
        counts_with(-1, n=2, where="counts", fmt="csc"),
        {"layer": "counts"},
        ValueError,
        r"^layers\['counts'\] holds 2 values that are negative",
        id="negative-layer",
    ),
    pytest.param(
        counts_with(300.5, n=3, fmt="csr"),
        {},
        ValueError,
        r"^X holds 3 values that are not integers .*300\.5.*raw counts\. They look normalised: name the layer",
        id="not-integer",
    ),
    pytest.param(
        log_normalised, {}, ValueError, r"^X holds \d+ .*not integers.* log-normalised.*layer='counts'", id="log"
    ),
    pytest.param(counts_with(np.nan), {}, ValueError, "^X holds 1 values that are missing or infinite .*nan", id="nan"),
    pytest.param(
        counts_with(np.nan, n=2, fmt="csr"), {}, ValueError, "^X holds 2 .*missing or infinite", id="nan-sparse"
    ),
    pytest.param(
        counts_with(np.inf, where="counts"),
        {"layer": "counts"},
        ValueError,
        r"^layers\['counts'\] holds 1 .*missing or infinite .*inf",
        id="infinite",
    ),
    pytest.param(counts_with(-np.inf), {}, ValueError, "^X holds 1 .*missing or infinite", id="minus-infinite"),
    pytest.param(
        empty_cell, {}, ValueError, "^1 of 30 cells have no counts in X over the 12 genes .*'cell3'", id="empty-cell"
    ),
    pytest.param(
        cell_without_the_few,
        {"mask_var": "few"},
        ValueError,
        r"^2 of 30 cells have no counts in X over the 4 genes .*'cell3'.*mask_var",
        id="cell-empty-in-mask",
    ),
    pytest.param(no_x, {}, ValueError, "^X is empty.*layer=", id="no-x"),
    pytest.param(layer_of(object), {"layer": "odd"}, TypeError, r"layers\['odd'\] has the type object", id="objects"),
    pytest.param(layer_of(complex), {"layer": "odd"}, TypeError, r"layers\['odd'\] .* complex128", id="complex"),
    pytest.param(as_it_is, {"layer": "raw"}, ValueError, "^layer='raw' is not in layers. Layers: 'counts'", id="layer"),
    pytest.param(
        as_it_is, {"mask_var": "hvg"}, ValueError, "^mask_var='hvg' is not a column of var.*'few'", id="mask-unknown"
    ),
    pytest.param(
        as_it_is,
        {"mask_var": "true_intercept"},
        ValueError,
        r"^mask_var: var\['true_intercept'\] must be boolean.*float",
        id="mask-not-boolean",
    ),
    pytest.param(
        as_it_is,
        {"mask_var": [True] * 5},
        ValueError,
        r"^mask_var .* 12 genes, but has the shape \(5,\)\.$",
        id="mask-too-short",
    ),
    pytest.param(
        as_it_is, {"mask_var": [0, 1, 2]}, ValueError, r"^mask_var must be boolean.*\(3,\)\.$", id="mask-of-positions"
    ),
    pytest.param(as_it_is, {"mask_var": [False] * N_VARS}, ValueError, "^mask_var leaves no gene", id="mask-empty"),
    pytest.param(var(none=False), {"mask_var": "none"}, ValueError, "^mask_var leaves no gene", id="mask-empty-column"),
    pytest.param(var(highly_variable=False), {}, ValueError, "mask_var leaves no gene", id="mask-empty-default"),
    pytest.param(
        var(highly_variable=[1.0] * N_VARS),
        {},
        ValueError,
        r"^mask_var: var\['highly_variable'\] must be boolean",
        id="mask-default-not-boolean",
    ),
    pytest.param(as_it_is, {"n_latent": N_VARS}, ValueError, r"^n_latent .*\(12\), but is 12", id="n_latent-genes"),
    pytest.param(
        as_it_is,
        {"n_latent": 4, "mask_var": "few"},
        ValueError,
        r"^n_latent .*\(4\), but is 4",
        id="n_latent-masked-genes",
    ),
    pytest.param(first_genes(0), {}, ValueError, r"^n_latent .*\(0\), but is 2", marks=OF_EMPTY_OBJECTS, id="no-gene"),
    pytest.param(
        as_it_is, {"n_latent": "2"}, TypeError, "^n_latent must be a whole number, but is '2'", id="n_latent-text"
    ),
    pytest.param(first_cells(1), {}, ValueError, "has 1 cells, but a fit needs at least 2", id="1-cell"),
    pytest.param(
        first_cells(0),
        {},
        ValueError,
        "has 0 cells, but a fit needs at least 2",
        marks=OF_EMPTY_OBJECTS,
        id="0-cells",
    ),
    pytest.param(
        repeated_gene,
        {},
        ValueError,
        "^var_names are not unique .*'twin'.*var_names_make_unique",
        marks=pytest.mark.filterwarnings("ignore:Variable names are not unique"),
        id="var-names",
    ),
    pytest.param(as_it_is, {"modality": "rna"}, ValueError, "^modality='rna' .*AnnData", id="modality-of-anndata"),
    *(
        pytest.param(
            as_it_is, {argument: value}, ValueError, f"^{argument}='lab' .*obs.*'batch'", id=f"unknown-{argument}"
        )
        for argument, value in {
            "batch_key": "lab",
            "labels_key": "lab",
            "categorical_covariate_keys": ["lab"],
            "continuous_covariate_keys": ["lab"],
            "size_factor_key": "lab",
        }.items()
    ),
    *(
        pytest.param(
            obs(lab=replaced(GROUPS, None)),
            {argument: value},
            ValueError,
            rf"^{argument}: obs\['lab'\] is missing in 1 cells",
            id=f"missing-{argument}",
        )
        for argument, value in {
            "batch_key": "lab",
            "labels_key": "lab",
            "categorical_covariate_keys": ["batch", "lab"],
        }.items()
    ),
    *(
        pytest.param(
            obs(age=replaced(NUMBERS, np.nan)),
            {argument: value},
            ValueError,
            rf"^{argument}: obs\['age'\] is missing in 1 cells",
            id=f"missing-{argument}",
        )
        for argument, value in {"continuous_covariate_keys": ["age"], "size_factor_key": "age"}.items()
    ),
    *(
        pytest.param(
            obs(own=EACH_ITS_OWN),
            {argument: value},
            ValueError,
            rf"^{argument}: obs\['own'\] has 30 levels, as many as there are cells",
            id=f"as-many-levels-as-cells-{argument}",
        )
        for argument, value in {
            "batch_key": "own",
            "labels_key": "own",
            "categorical_covariate_keys": ["own"],
        }.items()
    ),
    pytest.param(
        obs(lab=replaced(GROUPS, "alone")),
        {"batch_key": "lab"},
        ValueError,
        r"^batch_key: 'alone' of obs\['lab'\] has one cell",
        id="batch-of-one-cell",
    ),
    pytest.param(
        obs(lab=pd.Categorical([1, "1"] * (N_OBS // 2), categories=[1, "1"])),
        {"batch_key": "lab"},
        ValueError,
        r"^batch_key: obs\['lab'\] has different levels that read '1' as text",
        id="same-name-as-text",
    ),
    *(
        pytest.param(
            as_it_is,
            {argument: "batch"},
            TypeError,
            rf"^{argument} must be a list .*\['batch'\]",
            id=f"text-{argument}",
        )
        for argument in ("categorical_covariate_keys", "continuous_covariate_keys")
    ),
    pytest.param(
        as_it_is,
        {"batch_key": "batch", "categorical_covariate_keys": ["batch"]},
        ValueError,
        "named once only, but 'batch'",
        id="covariate-twice",
    ),
    *(
        pytest.param(
            obs(odd=values),
            {argument: key},
            ValueError,
            rf"^{argument}: obs\['odd'\] has the type {dtype}",
            id=f"{dtype}-{argument}",
        )
        for argument, key in {"continuous_covariate_keys": ["odd"], "size_factor_key": "odd"}.items()
        for dtype, values in {"category": pd.Categorical(GROUPS), "bool": HALVES == 0}.items()
    ),
    pytest.param(
        obs(age=5.5),
        {"continuous_covariate_keys": ["age"]},
        ValueError,
        r"^continuous_covariate_keys: obs\['age'\] is 5.5 in every cell",
        id="constant-covariate",
    ),
    *(
        pytest.param(
            obs(age=replaced(NUMBERS, np.inf)),
            {argument: key},
            ValueError,
            rf"^{argument}: obs\['age'\] is infinite in 1 cells",
            id=f"infinite-{argument}",
        )
        for argument, key in {"continuous_covariate_keys": ["age"], "size_factor_key": "age"}.items()
    ),
    *(
        pytest.param(
            obs(size=replaced(NUMBERS, value)),
            {"size_factor_key": "size"},
            ValueError,
            r"^size_factor_key: obs\['size'\] is not above zero in 1 cells",
            id=f"size-factor-{value}",
        )
        for value in (0, -1)
    ),
    *(
        pytest.param(
            as_it_is,
            {"train_size": value},
            ValueError,
            f"^train_size must be above 0 .* {value}",
            id=f"train_size-{value}",
        )
        for value in (0, -0.1, 1.1, np.nan)
    ),
    pytest.param(
        as_it_is,
        {"train_size": "split"},
        ValueError,
        "^train_size='split' must name a boolean column",
        id="train_size-unknown",
    ),
    pytest.param(
        as_it_is,
        {"train_size": "batch"},
        ValueError,
        r"^train_size: obs\['batch'\] must be boolean, but holds 'batch0' \(category\)",
        id="train_size-not-boolean",
    ),
    pytest.param(
        as_it_is, {"train_size": 0.01}, ValueError, "^train_size=0.01 leaves 0 of 30 cells", id="train_size-tiny"
    ),
    pytest.param(
        obs(train=np.arange(N_OBS) == 0),
        {"train_size": "train"},
        ValueError,
        "^train_size='train' leaves 1 of 30 cells",
        id="train_size-one-cell",
    ),
    pytest.param(
        as_it_is, {"rng": 1, "random_state": 1}, TypeError, "^rng and random_state were both given", id="two-seeds"
    ),
    pytest.param(as_it_is, {"device": "quantum"}, ValueError, "^device='quantum' can't be used here", id="device"),
    pytest.param(
        as_it_is, {"device": "cuda:99"}, ValueError, "^device='cuda:99' can't be used here", id="device-absent"
    ),
    *(
        pytest.param(
            as_it_is,
            {"lr": lr},
            ValueError,
            f"^{re.escape(f'lr must be above 0 and at most 1e+30, but is {lr}.')}",
            id=f"lr-{lr}",
        )
        for lr in (0, -0.1, np.nan, 1e300)
    ),
    *(
        pytest.param(
            as_it_is,
            {argument: number},
            TypeError,
            f"^{argument} must be a whole number( or None)?, but is {number}",
            id=f"{argument}-{number}",
        )
        for argument in WHOLE
        for number in (1.5, 2.0, True)
    ),
    *(
        pytest.param(
            as_it_is,
            {argument: number},
            ValueError,
            f"^{argument} must be at least 1, but is {number}",
            id=f"{argument}-{number}",
        )
        for argument in WHOLE
        for number in (0, -1)
    ),
    *(
        pytest.param(
            as_it_is,
            {"dropout_rate": rate},
            ValueError,
            f"^dropout_rate .* below 1, but is {rate}",
            id=f"dropout-{rate}",
        )
        for rate in (1, -0.1)
    ),
    pytest.param(
        as_it_is,
        {"gene_likelihood": "gaussian"},
        ValueError,
        "^gene_likelihood='gaussian' is unknown.*'nb', 'zinb', 'poisson', 'bernoulli', 'nb_background'",
        id="likelihood",
    ),
    pytest.param(
        as_it_is,
        {"dispersion": "cell"},
        ValueError,
        "^dispersion='cell' is unknown.*'gene', 'gene-batch', 'gene-label', 'gene-cell'",
        id="dispersion",
    ),
    pytest.param(
        as_it_is,
        {"latent_distribution": "ln2"},
        ValueError,
        "^latent_distribution='ln2' is unknown.*'normal', 'ln'",
        id="latent-distribution",
    ),
    pytest.param(
        as_it_is,
        {"dispersion": "gene-label"},
        ValueError,
        "^dispersion='gene-label' needs labels.*labels_key",
        id="no-labels",
    ),
    *(
        pytest.param(as_it_is, {"key_added": key}, ValueError, f"^key_added.*'{key}'.*'/'", id=f"key_added-{key!r}")
        for key in ("a/b", "")
    ),
    pytest.param(as_it_is, {"lr": 1e30, "max_epochs": 5}, FloatingPointError, "ELBO .* smaller lr", id="diverges"),
]


@pytest.mark.parametrize(("change", "kwargs", "error", "sentence"), REFUSALS)
def test_refused_with_a_sentence_and_nothing_changed(
    change: Change,
    kwargs: dict[str, Any],
    error: type[Exception],
    sentence: str,
    adata: AnnData,
    fit_quickly: Callable[..., None],
    unchanged: Callable[..., Any],
) -> None:
    adata = change(adata)
    with unchanged(adata), pytest.raises(error, match=sentence):
        fit_quickly(adata, **{"n_latent": 2} | kwargs)


@pytest.mark.parametrize(
    "data", [None, np.ones((3, 3)), pd.DataFrame({"gene": [1, 2]})], ids=["None", "array", "frame"]
)
def test_other_objects_are_refused(data: object) -> None:
    with pytest.raises(TypeError, match=f"^data is a {type(data).__name__}, but must be an AnnData or a MuData"):
        sc_ldvae.tl.ldvae(data)


@pytest.mark.parametrize(
    ("modality", "sentence"),
    [
        (None, "^data is a MuData, .* one of its modalities. Pass modality, one of 'rna', 'atac'"),
        ("protein", "^modality='protein' is not in the MuData. Name one of 'rna', 'atac'"),
    ],
    ids=["none", "another"],
)
def test_mudata_needs_a_modality_that_it_has(
    modality: str | None, sentence: str, adata: AnnData, unchanged: Callable[..., Any]
) -> None:
    other = adata.copy()
    other.var_names = [f"peak{i}" for i in range(N_VARS)]
    mdata = mudata.MuData({"rna": adata, "atac": other})
    with unchanged(mdata["rna"]), unchanged(mdata["atac"]), pytest.raises(ValueError, match=sentence):
        sc_ldvae.tl.ldvae(mdata, 2, modality=modality)
    assert list(mdata.obsm) == list(mdata.mod)


def test_refused_copy_leaves_the_input(
    adata: AnnData, fit_quickly: Callable[..., None], unchanged: Callable[..., Any]
) -> None:
    with unchanged(adata), pytest.raises(ValueError, match=r"^lr"):
        fit_quickly(adata, 2, lr=0, copy=True)


def test_refused_view_stays_a_usable_view(
    adata: AnnData, fit_quickly: Callable[..., None], unchanged: Callable[..., Any]
) -> None:
    view = adata[::2, :8]
    with unchanged(adata), unchanged(view):
        with pytest.raises(ValueError, match=r"^lr"):
            fit_quickly(view, 2, lr=0)
        with pytest.raises(FloatingPointError):
            fit_quickly(view, 2, lr=1e30, max_epochs=5)
    with unchanged(adata):
        fit_quickly(view, 2)
    assert view.obsm["X_ldvae"].shape == (N_OBS // 2, 2)


def test_refusal_keeps_an_earlier_fit(
    adata: AnnData, fit_quickly: Callable[..., None], unchanged: Callable[..., Any]
) -> None:
    fit_quickly(adata, 2)
    with unchanged(adata):
        with pytest.raises(ValueError, match=r"^batch_key"):
            fit_quickly(adata, 2, batch_key="lab")
        with pytest.raises(FloatingPointError):
            fit_quickly(adata, 2, lr=1e30, max_epochs=5)


def test_ctrl_c_in_the_middle_leaves_the_object(
    maybe_fitted: AnnData,
    fit_quickly: Callable[..., None],
    unchanged: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shuffled, n_minibatches = Cells.shuffled, []

    def interrupted(*args: Any) -> Iterator[Any]:
        for minibatch in shuffled(*args):
            n_minibatches.append(len(minibatch))
            if len(n_minibatches) == 5:
                raise KeyboardInterrupt
            yield minibatch

    monkeypatch.setattr(Cells, "shuffled", interrupted)
    with unchanged(maybe_fitted), pytest.raises(KeyboardInterrupt):
        fit_quickly(maybe_fitted, 2, batch_size=10)
    assert len(n_minibatches) == 5


@pytest.mark.parametrize("is_view", [False, True], ids=["actual", "view"])
@pytest.mark.parametrize(("attribute", "key"), [("varm", "ldvae_loadings"), ("obs", "ldvae_held_out")])
def test_failed_writing_is_undone(
    attribute: str,
    key: str,
    is_view: bool,
    maybe_fitted: AnnData,
    fit_quickly: Callable[..., None],
    assert_same: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adata = maybe_fitted

    def spoilt(adata: AnnData, entries: dict[str, dict[str, Any]]) -> None:
        entries[attribute][key] = entries[attribute][key][:-1]
        record.write(adata, entries)

    monkeypatch.setattr("sc_ldvae.record._new_fit.write", spoilt)
    target = adata[::2] if is_view else adata
    before, parent_before = target.copy(), adata.copy()
    with pytest.raises(ValueError, match=r"length|shape"):
        fit_quickly(target, 2)
    assert_same(target, before)
    assert_same(adata, parent_before)


def test_ctrl_c_while_writing_is_undone(
    maybe_fitted: AnnData,
    fit_quickly: Callable[..., None],
    assert_same: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(dict[str, Any]):
        def __setitem__(self, key: str, value: object) -> None:
            monkeypatch.delattr(Interrupted, "__setitem__")
            assert "X_ldvae" in maybe_fitted.obsm
            raise KeyboardInterrupt

    before = maybe_fitted.copy()
    maybe_fitted._uns = Interrupted(maybe_fitted.uns)
    with pytest.raises(KeyboardInterrupt):
        fit_quickly(maybe_fitted, 2, rng=8)
    assert_same(maybe_fitted, before)


@pytest.mark.parametrize(
    ("gone", "options"),
    [
        pytest.param(True, {}, id="no-X"),
        pytest.param(False, {}, id="logs-in-X"),
        pytest.param(False, {"layer": "raw"}, id="raw-as-layer"),
    ],
)
def test_counts_in_raw_are_named(
    gone: bool,
    options: dict[str, Any],
    adata: AnnData,
    fit_quickly: Callable[..., None],
    unchanged: Callable[..., Any],
) -> None:
    adata.raw = adata.copy()
    adata.X = None if gone else np.log1p(adata.X)
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"adata\.raw holds counts: pass adata\.raw\.to_adata\(\)\.$"),
    ):
        fit_quickly(adata, 2, mask_var=None, **options)
    fit_quickly(adata.raw.to_adata(), 2, mask_var=None)


def test_raw_without_counts_is_not_named(adata: AnnData, fit_quickly: Callable[..., None]) -> None:
    adata.X = np.log1p(adata.X)
    adata.raw = adata.copy()
    with pytest.raises(ValueError, match="log-normalised: name the layer"):
        fit_quickly(adata, 2, mask_var=None)
