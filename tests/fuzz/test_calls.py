"""Random arguments to every public function after a fit: an answer that is finite, or a refusal in a sentence."""

from __future__ import annotations

import inspect
import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from scipy import sparse

from sc_ldvae import datasets, get, io, pl, record, tl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOMS = {"tl": tl, "get": get, "pl": pl, "io": io, "datasets": datasets}
FUNCTIONS = {
    f"{room}.{name}": getattr(module, name)
    for room, module in ROOMS.items()
    for name in module.__all__
    # The first takes no argument, the others a package that need not be installed.
    if name not in {"pbmc68k_counts", "from_scvi", "to_scvi"}
}
# Words for what a refusal may be about, beside arguments.
ENTRIES = {
    "obs",
    "var",
    "uns",
    "obsm",
    "varm",
    "layers",
    "X",
    "data",
    "fit",
    "MuData",
    "AnnData",
    "factors",
    "file",
    "suffix",
}


def _one_by_one(*values: Any) -> Iterator[Any]:
    yield from values


class Fresh(NamedTuple):
    """A value that can be used once only, by what makes it."""

    make: Any
    text: str

    def __repr__(self) -> str:
        return self.text


WRONG: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3,
    2.5,
    -0.5,
    float("nan"),
    float("inf"),
    10**400,
    1j,
    "",
    "nothing",
    "ldvae",
    "a/b",
    b"ldvae",
    np.str_("ldvae"),
    np.int64(1),
    np.float32(0.5),
    np.bool_(True),  # noqa: FBT003  a value
    np.array(1),
    np.array([1, 2]),
    np.array(["batch"]),
    np.array([0.5, np.nan]),
    [],
    [1],
    ["batch"],
    [None],
    [[1], [2]],
    [float("nan")],
    (1, 2),
    {1, 2},
    {},
    {"batch": "one"},
    {1: 2},
    range(2),
    pd.Index(["batch"]),
    pd.Series([1, 2]),
    pd.DataFrame({"a": [1]}),
    pd.NA,
    pd.Timestamp("2024-01-01"),
    slice(None),
    len,
    int,
    Fresh(lambda: _one_by_one(1, 2), "generator of 1 and 2"),
    Fresh(object, "object()"),
)
# Without a number of cases each argument meets only one of so many values.
_EVERY = 41
KEYS = ("ldvae", "turned", "gone", "theirs", "poisson", "shares")
CHOSEN = (1, [1], ["ldvae1"], [2, 1], [1, 1], ["Factor 1"], [0], [9], [], "ldvae2", ["all"], np.array([1, 2]), None)
GENES = ("gene1", ["gene1", "gene3"], ["gene1", "gene1"], [], ["gone"], "gone", pd.Index(["gene2"]), None, [5])
FITTING: dict[str, Any] = {"max_epochs": 1, "n_hidden": 4, "progress": False}
NET = pd.DataFrame({"source": np.repeat(["A", "B"], 6), "target": [f"gene{i}" for i in range(12)], "weight": 1.0})
RIGHT: dict[str, tuple[Any, ...]] = {
    "data": (
        "fitted",
        "view",
        "mudata",
        "genes twice",
        "renamed",
        "subset",
        "no counts",
        "no cells",
        "unfitted",
        None,
        5,
        NET,
    ),
    "key": KEYS,
    "modality": ("rna", "gone", None),
    "key_added": ("mine", "ldvae", "turned", "", "a/b", "ldvae_stability", None),
    "layer": (None, "counts", "gone"),
    "rng": (0, 5, 2**64, np.random.default_rng(1), -1, None),
    "factors": CHOSEN,
    "genes": GENES,
    "obs_columns": ("batch", ["age", "sex"], ["gone"], ["batch", "batch"], [], ["lists"]),
    "keys": (["batch"], ["age", "sex"], ["gone"], [], "batch", ["dates"], ["lists"], None),
    "groupby": ("batch", "sex", "age", "gone", "lists", "dates", "constant", "own", None),
    "groups": ("all", ["one"], ["f"], ["gone"], [], ["one", "one"], np.array(["one"]), [1]),
    "reference": ("rest", "one", "m", "gone", 1, ["one"]),
    "mode": ("change", "vanilla", "odd"),
    "delta": (0.25, 1e-5, 0, -1, 1e9),
    "fdr": (0.05, 0, 1, 2, -1),
    "pseudocount": (None, 0.1, 0, -1, 1e300, 1e-300),
    "batch": ("one", "two", "mean", "gone", 1, None),
    "batch_correction": (True, False),
    "covariates": (
        {"age": 50},
        {"age": "old"},
        {"batch": "one"},
        {"gone": 1},
        {},
        {"age": float("nan")},
        {"age": 1e300},
    ),
    "library": (1.0, "own", 1e4, 0, -1, 1e300, 1e-300, "rest"),
    "n_samples": (1, 2, 0, -1),
    "threshold": (0.0, 0.1, -1, 2, 1e300),
    "net": (
        NET,
        NET.drop(columns="weight"),
        NET.assign(target="gone"),
        NET.assign(weight=np.nan),
        NET[:0],
        NET.assign(source=1),
    ),
    "tmin": (1, 5, 0, -1, 100),
    "method": ("ulm", "mlm", "varimax", "promax", "odd"),
    "rotation": ("varimax", "promax", None, "odd"),
    "cells": ("held_out", "all", "odd"),
    "thinned": (0.2, 0.999, 1e-9, 0, 1, -1),
    "gene_symbols": ("symbol", "gone", None),
    "names": ({"gene1": "CD3E"}, {"gene1": "gene2"}, {"gone": "LYZ"}, {}, "symbol", "gone", {"gene1": 5}),
    "missing_genes": ("error", "zero", "odd"),
    "n_seeds": (2, 3, 0, -2),
    "subsample": ("halves", "bootstrap", None, "odd"),
    "device": ("cpu", "auto", "gpu", "cuda:99"),
    "n_latent": ((1, 2), [2], [], [0], [99], range(1, 3), 2, 1),
    "per": ("unit", "sd", "odd"),
    "by": ("bound", "loading", "odd"),
    "kind": ("bar", "dot", "violin", "matrix", "odd"),
    "order": ("factor", "clustered", "odd"),
    "cmap": ("viridis", "odd"),
    "n_genes": (1, 3, 0, -1, 1000),
    "n_sources": (1, 3, 0, -1, 1000),
    "ncols": (1, 5, 0, -1),
    "x": (1, "ldvae2", 9, 0),
    "y": (2, "ldvae1", 1, 9),
    "basis": ("X_umap", "umap", "ldvae", "gone", None),
    "covariate": ("batch", "age", "gone", None),
    "samples": ("posterior_predictive", "gone"),
    "group": ("one", "gone", None),
    "by_group": (True, False),
    "log2": (True, False),
    "copy": (True, False),
    "save": (None, "gone/picture.png", "picture.odd"),
    "path": ("gone.h5", "/", "gone"),
    "paths": ("gone.h5ad", [], ["gone.h5ad"], "/"),
    "genome": (None, "hg19"),
    "n_obs": (10, 0, -1),
    "n_vars": (6, 0, 1),
    "n_batches": (1, 2, 0, 99),
    "n_continuous": (0, 2, -1),
    "mean_library": (100.0, 0, -1, 1e-300, 1e300),
    "gene_likelihood": ("nb", "zinb", "poisson", "bernoulli", "odd"),
    "max_epochs": (1, 0),
    "mask_var": ("few", "gone", None),
    "batch_key": ("batch", "gone"),
    "lr": (0.01, -1),
    "early_stopping": (False,),
}


def arguments(function: str) -> list[str]:
    found = list(inspect.signature(FUNCTIONS[function]).parameters)
    # Options of the fits, and one that nobody has.
    return [*found[:-1], "max_epochs", "lr", "batch_key", "odd"] if found[-1] == "options" else found


def needed_by(function: str) -> list[str]:
    parameters = inspect.signature(FUNCTIONS[function]).parameters
    return [name for name in arguments(function) if name in parameters and parameters[name].default is inspect._empty]


def objects_of(function: str) -> set[str]:
    return {"data", "query"} | ({"reference"} if function == "tl.project" else set())


def pool(function: str, name: str) -> st.SearchStrategy[Any]:
    if name in objects_of(function):
        return st.one_of(st.just("fitted"), st.sampled_from(RIGHT["data"]))
    if name == "progress":
        return st.sampled_from((False, "no", 0))
    if name == "show":
        return st.sampled_from((False, "no", 1))
    right = st.sampled_from(RIGHT.get(name, (None,)))
    return st.one_of(right, right, st.sampled_from(WRONG))


def calls_of(function: str) -> st.SearchStrategy[dict[str, Any]]:
    names, needed = arguments(function), needed_by(function)
    others = [name for name in names if name not in needed and name not in {"progress", "show"}]
    chosen = st.lists(st.sampled_from(others), max_size=3, unique=True) if others else st.just([])
    return chosen.flatmap(
        lambda some: st.fixed_dictionaries(
            {
                "function": st.just(function),
                "arguments": st.fixed_dictionaries({n: pool(function, n) for n in [*needed, *some]}),
            }
        )
    )


recipes = st.sampled_from(list(FUNCTIONS)).flatmap(calls_of)


def make_stage() -> dict[str, Any]:
    """The objects that are called upon, by name."""
    rng = np.random.default_rng(0)
    adata = datasets.simulate(n_obs=24, n_vars=12, n_latent=2, n_batches=2, mean_library=150, rng=3)
    adata.var_names = [f"gene{i}" for i in range(12)]
    adata.var["few"] = np.arange(12) > 3
    adata.obs["batch"] = pd.Categorical(rng.choice(["one", "two"], 24))
    adata.obs["sex"] = rng.choice(["f", "m"], 24)
    adata.obs["age"] = rng.normal(50, 10, 24)
    adata.obs["dates"] = pd.date_range("2024-01-01", periods=24)
    adata.obs["lists"] = [[i] for i in range(24)]
    adata.obs["constant"] = 1
    adata.obs["own"] = adata.obs_names.to_numpy()
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["X_umap"] = rng.normal(size=(24, 2))
    adata.uns["theirs"] = {"params": {"a": 1}}
    unfitted = adata.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tl.ldvae(adata, 2, batch_key="batch", continuous_covariate_keys=["age"], **FITTING)
        tl.ldvae(adata, 2, gene_likelihood="poisson", key_added="poisson", **FITTING)
        tl.ldvae(
            adata,
            2,
            latent_distribution="ln",
            dispersion="gene-batch",
            batch_key="batch",
            key_added="shares",
            **FITTING,
        )
        tl.rotate(adata, key_added="turned")
        tl.explained_deviance(adata, "batch", cells="all", progress=False)
        tl.stability(adata, 2, progress=False)
        tl.associate(adata, ["batch", "age"])
        tl.enrichment(adata, NET, tmin=1)
        tl.select_n_latent(adata, [1, 2], 1, **FITTING)
        tl.differential_expression(adata, "batch", progress=False)
        tl.posterior_predictive(adata, key_added="posterior_predictive", progress=False)
    renamed, twice, bare = adata.copy(), adata.copy(), adata.copy()
    renamed.var_names = [f"other{i}" for i in range(12)]
    twice.var_names = ["gene0", *twice.var_names[:-1]]
    bare.X, bare.layers = None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nobody = adata[:0].copy()
        both = mudata.MuData({"rna": adata.copy(), "other": AnnData(np.ones((24, 2)), obs=adata.obs[[]])})
    return {
        "fitted": adata,
        "view": adata[4:],
        "mudata": both,
        "genes twice": twice,
        "renamed": renamed,
        "subset": adata[:, 2:9],
        "no counts": bare,
        "no cells": nobody,
        "unfitted": unfitted,
    }


@pytest.fixture(scope="module")
def stage() -> dict[str, Any]:
    return make_stage()


@pytest.fixture(autouse=True, scope="module")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pictures are left where nobody looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        yield


def prepared(function: str, given_: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments: objects for their names, single use for what can be read once, and no bars and windows."""
    made: dict[str, Any] = {}
    for name, value in given_.items():
        if isinstance(value, Fresh):
            made[name] = value.make()
        elif isinstance(value, np.random.Generator):
            made[name] = np.random.default_rng(1)
        elif name in objects_of(function):
            made[name] = copied(stage[value]) if isinstance(value, str) else value
        else:
            made[name] = value
    parameters = inspect.signature(FUNCTIONS[function]).parameters
    quick = {"progress": False, "show": False}
    if function in {"tl.ldvae", "tl.select_n_latent"}:
        quick |= FITTING
    if function == "tl.ldvae":
        quick["n_latent"] = 2
    if function == "tl.select_n_latent":
        quick |= {"n_latent": [1, 2], "n_seeds": 1}
    if function == "tl.stability":
        quick["n_seeds"] = 2
    if isinstance(made.get("data"), mudata.MuData):
        quick["modality"] = "rna"
    return {n: v for n, v in quick.items() if n in parameters or ("options" in parameters and n in FITTING)} | made


def copied(data: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if data.is_view:
            parent = data._adata_ref.copy()
            return parent[data.obs_names.to_list(), data.var_names.to_list()]
        return data.copy()


@pytest.fixture(scope="module")
def call(stage: dict[str, Any], watched: Any, contents: Any, differ: Any) -> Callable[[str, dict[str, Any]], None]:
    """Call a function, and look at what comes of it."""
    return partial(_call, stage=stage, watched=watched, contents=contents, differ=differ)


def _call(
    function: str, given_: dict[str, Any], *, stage: dict[str, Any], watched: Any, contents: Any, differ: Any
) -> None:
    keywords = prepared(function, given_, stage)
    objects = [value for value in keywords.values() if isinstance(value, AnnData | mudata.MuData)]
    before = [contents(one) for one in objects]
    answer = None
    with watched({*arguments(function), *ENTRIES}, *objects) as refused:
        answer = FUNCTIONS[function](**keywords)
        plt.close("all")
    if not refused:
        touched = {
            path for one, content in zip(objects, before, strict=True) for path in differ(contents(one), content)
        }
        assert not (bad := foreign(function, keywords, touched)), f"changed: {bad}"
        # Of no cell nothing is known; what is stored of the factors is.
        if not (function == "get.factors" and given_["data"] == "no cells"):
            check_finite(answer, function)


@given(recipe=recipes)
def test_an_answer_or_a_refusal(recipe: dict[str, Any], call: Callable[[str, dict[str, Any]], None]) -> None:
    call(recipe["function"], recipe["arguments"])


@pytest.mark.parametrize("function", list(FUNCTIONS))
def test_each_argument_alone(function: str, call: Callable[[str, dict[str, Any]], None], n_cases: int | None) -> None:
    needed = {name: "fitted" if name in objects_of(function) else RIGHT[name][0] for name in needed_by(function)}
    cases: list[tuple[str, Any]] = []
    for name in arguments(function):
        # Text for an object is the name of one.
        one = name in objects_of(function)
        wrong = (value for value in WRONG if not (one and isinstance(value, str)))
        cases += [(name, value) for value in (*RIGHT.get("data" if one else name, ()), *wrong)]
    for name, value in cases if n_cases else cases[list(FUNCTIONS).index(function) % _EVERY :: _EVERY]:
        try:
            call(function, needed | {name: value})
        except Exception as error:
            error.add_note(f"{function} with {name}={value!r}")
            raise


def foreign(function: str, keywords: Mapping[str, Any], touched: set[str]) -> set[str]:
    """Entries that this call has no business with."""
    if not function.startswith("tl.") or keywords.get("copy"):
        return touched
    if function == "tl.rename_genes":
        # Names of genes stand in every fit and comparison.
        return {path for path in touched if not path.startswith(("var.index", "uns["))}
    default = inspect.signature(FUNCTIONS[function]).parameters.get("key_added")
    named = keywords.get("key_added") or (default.default if default is not None else None)
    keys = record.Keys.named(named if isinstance(named, str) else keywords.get("key", "ldvae"))
    own = {*keys.to_dict().values(), str(named), f"{keywords.get('key', 'ldvae')}_"}
    kept = {path for path in touched if not re.search(r"(keys|columns|is_view)$", path)}
    return {path for path in kept if not any(name in path for name in own)}


def check_finite(answer: Any, function: str) -> None:
    if isinstance(answer, pd.DataFrame):
        numbers = answer.select_dtypes("number")
        # No held-out cell, no ELBO of it; genes without a group have no bound.
        bad = [name for name in numbers if not np.isfinite(numbers[name].to_numpy(np.float64)).all()]
        assert not bad, f"not finite in the frame of {function}: {bad}"
    elif isinstance(answer, float):
        assert np.isfinite(answer), function
    elif isinstance(answer, list):
        for one in answer:
            check_finite(one, function)
    elif sparse.issparse(answer):
        assert np.isfinite(answer.data).all(), function
