"""Random objects at the door of a fit: each gives a finite, right answer or is refused in a sentence."""

from __future__ import annotations

import inspect
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sc_ldvae import record, tl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Rng = np.random.Generator
    Change = Callable[[AnnData, Rng], Any]

QUICK = {"n_latent": 2, "max_epochs": 1, "n_hidden": 4, "progress": False}
WORDS = {*inspect.signature(tl.ldvae).parameters, "obs", "var", "uns", "X", "layer", "cell", "gene", "count", "query"}


def values(change: Callable[[np.ndarray, Rng], Any]) -> Change:
    """A change of the dense counts."""

    def put(adata: AnnData, rng: Rng) -> None:
        adata.X = change(_dense(adata), rng)

    return put


def one(value: float, dtype: type = np.float64) -> Change:
    def put(counts: np.ndarray, rng: Rng) -> np.ndarray:
        counts = counts.astype(dtype)
        if counts.size:
            counts.flat[rng.integers(counts.size)] = value
        return counts

    return values(put)


def cast(dtype: Any) -> Change:
    return values(lambda counts, _: counts.astype(dtype))


def as_sparse(make: Callable[[np.ndarray], Any]) -> Change:
    return values(lambda counts, _: make(counts))


def odd(make: Callable[[int, Rng], Any], name: Any = "odd") -> Change:
    """A column of obs, of so many cells."""

    def put(adata: AnnData, rng: Rng) -> None:
        adata.obs[name] = make(adata.n_obs, rng)

    return put


def levels(*names: Any) -> Change:
    return odd(lambda n, rng: pd.Categorical(_some(names, n, rng), categories=list(names)))


def objects(*some: Any) -> Change:
    return odd(lambda n, rng: _some(some, n, rng))


def numbers(change: Callable[[np.ndarray], Any]) -> Change:
    return odd(lambda n, rng: change(rng.normal(50, 10, n)))


def of_type(dtype: str, *some: Any) -> Change:
    return odd(lambda n, rng: pd.array(_some(some, n, rng).tolist(), dtype=dtype))


def names_of(axis: str, change: Callable[[pd.Index], Any]) -> Change:
    def put(adata: AnnData, _: Rng) -> None:
        setattr(adata, f"{axis}_names", change(getattr(adata, f"{axis}_names")))

    return put


def entry(attribute: str, key: str, make: Callable[[AnnData], Any]) -> Change:
    def put(adata: AnnData, _: Rng) -> None:
        getattr(adata, attribute)[key] = make(adata)

    return put


def _some(of: tuple[Any, ...], n: int, rng: Rng) -> np.ndarray:
    chosen = np.empty(n, dtype=object)
    chosen[:] = [of[i] for i in rng.integers(len(of), size=n)]
    return chosen


def _dense(adata: AnnData) -> np.ndarray:
    X = adata.X
    return np.array(X.toarray() if sparse.issparse(X) else np.ma.getdata(X))


def _unsorted(counts: np.ndarray) -> sparse.csr_matrix:
    X = sparse.csr_matrix(counts)
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        for part in (X.indices, X.data):
            part[start:stop] = part[start:stop][::-1].copy()
    X.has_sorted_indices = False
    return X


def _twice(counts: np.ndarray) -> sparse.csr_matrix:
    """Every entry in two parts, at the same place."""
    half = sparse.csr_matrix(counts)
    rest = np.floor(half.data / 2)
    data, indices = np.stack([half.data - rest, rest], 1).ravel(), np.repeat(half.indices, 2)
    return sparse.csr_matrix((data, indices, 2 * half.indptr), shape=half.shape)


def _long(counts: np.ndarray) -> sparse.csr_matrix:
    X = sparse.csr_matrix(counts)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def _zeros_kept(counts: np.ndarray) -> sparse.csr_matrix:
    X = sparse.csr_matrix(counts + 1)
    X.data -= 1
    return X


def _read_only(counts: np.ndarray) -> np.ndarray:
    counts.setflags(write=False)
    return counts


def _rows(of: Callable[[np.ndarray], np.ndarray]) -> Change:
    return values(lambda counts, _: of(counts))


def _repeated_column(adata: AnnData, _: Rng) -> None:
    adata.obs = pd.concat([adata.obs, adata.obs[["batch", "age"]]], axis=1)


def _integer_columns(adata: AnnData, _: Rng) -> None:
    adata.obs = adata.obs.rename(columns={"sex": 0, "age": 1})


def _damaged_indices(adata: AnnData, _: Rng) -> None:
    X = sparse.csr_matrix(_dense(adata))
    X.indices[-1:] = adata.n_vars + 3
    adata.X = X


def _one_level_alone(n: int, rng: Rng) -> np.ndarray:
    return np.where(np.arange(n) == rng.integers(max(n, 1)), "alone", "others")


SAME_COUNTS: dict[str, Change] = {
    "dense": values(lambda counts, _: counts),
    "csc_matrix": as_sparse(sparse.csc_matrix),
    "csr_array": as_sparse(sparse.csr_array),
    "csc_array": as_sparse(sparse.csc_array),
    "fortran": values(lambda counts, _: np.asfortranarray(counts)),
    "read-only": values(lambda counts, _: _read_only(counts)),
    "unsorted": as_sparse(_unsorted),
    "in two parts": as_sparse(_twice),
    "long indices": as_sparse(_long),
    "zeros kept": as_sparse(_zeros_kept),
    "matrix": values(lambda counts, _: np.asmatrix(counts)),
    **{dtype: cast(dtype) for dtype in ("float16", "float32", "int8", "int64", "uint8", "uint64", ">f4", ">i4")},
    "sparse float16": as_sparse(lambda counts: sparse.csr_matrix(counts.astype(np.float32)).astype(np.float32)),
    "sparse uint16": as_sparse(lambda counts: sparse.csr_matrix(counts.astype(np.uint16))),
    "sparse >f8": as_sparse(lambda counts: sparse.csr_matrix(counts.astype(">f8"))),
}
DEADLY = "indices outside"
OTHER_COUNTS: dict[str, Change] = {
    "bool": cast(bool),
    "complex": cast(complex),
    "objects": cast(object),
    "text": cast(str),
    "masked": values(lambda counts, _: np.ma.masked_array(counts, counts == counts.max(initial=0))),
    "negative": one(-1),
    "NaN": one(np.nan),
    "inf": one(np.inf),
    "half a count": one(0.5),
    "nearly a count": one(1 + 1e-9),
    "30 million": one(3e7),
    "2^31": one(2.0**31),
    "2^53 + 1": one(2**53 + 1, np.int64),
    "2^63": one(2**63, np.uint64),
    "1e30": one(1e30),
    "minus zero": one(-0.0),
    "divided": values(lambda counts, _: counts / 3),
    "logarithms": values(lambda counts, _: np.log1p(counts)),
    "all zero": values(lambda counts, _: 0 * counts),
    "all one": values(lambda counts, _: 0 * counts + 1),
    "equal cells": values(lambda counts, _: np.repeat(counts[:1], len(counts), 0)),
    "empty cells": values(lambda counts, _: counts * (np.arange(len(counts)) % 3 > 0)[:, None]),
    "empty genes": values(lambda counts, _: counts * (np.arange(counts.shape[1]) % 3 > 0)),
    "one deep cell": values(lambda counts, _: counts * np.where(np.arange(len(counts)) == 0, 1e5, 1)[:, None]),
    DEADLY: _damaged_indices,
    "none": lambda adata, _: setattr(adata, "X", None),
}
SHAPES: dict[str, Change] = {
    "one cell": lambda adata, _: adata[:1].copy(),
    "two cells": lambda adata, _: adata[:2].copy(),
    "no cells": lambda adata, _: adata[:0].copy(),
    "one gene": lambda adata, _: adata[:, :1].copy(),
    "two genes": lambda adata, _: adata[:, :2].copy(),
    "no genes": lambda adata, _: adata[:, :0].copy(),
    "cells twice": lambda adata, _: ad.concat([adata, adata], merge="same"),
}
NAMES: dict[str, Change] = {
    "genes twice": names_of("var", lambda names: [names[0], *names[:-1]] if len(names) else names),
    "cells twice by name": names_of("obs", lambda names: [names[0], *names[:-1]] if len(names) else names),
    "genes of no name": names_of("var", lambda names: ["", *names[1:]] if len(names) else names),
    "genes of numbers": names_of("var", lambda names: [str(i) for i in range(len(names))]),
    "slashes": names_of("var", lambda names: names + "/a"),
    "categorical names": names_of("var", pd.CategoricalIndex),
    "repeated columns": _repeated_column,
    "integer columns": _integer_columns,
}
COLUMNS: dict[str, Change] = {
    "levels": levels("a", "b"),
    "no name for a level": levels("", "a"),
    "rest and mean": levels("rest", "mean", "own", "all"),
    "levels missing": objects("a", "b", None, np.nan),
    "text": objects("x", "y", "z"),
    "text that is NaN": objects("nan", "None", "NA"),
    "one and '1'": objects(1, "1"),
    "one and True": objects(1, True, 1.0),  # noqa: FBT003  a value
    "whole levels": levels(1, 2, 3),
    "broken levels": levels(0.1, 0.2),
    "true levels": levels(True, False),  # noqa: FBT003  a value
    "unused levels": odd(lambda n, _: pd.Categorical(["a"] * n, categories=["a", "b", "c"])),
    "ordered": odd(lambda n, rng: pd.Categorical(_some(("lo", "hi"), n, rng), ["lo", "hi"], ordered=True)),
    "missing alone": odd(lambda n, _: [None] * n),
    "NaN alone": odd(lambda n, _: np.full(n, np.nan)),
    "each its own": odd(lambda n, _: [f"cell{i}" for i in range(n)]),
    "one cell's level": odd(_one_level_alone),
    "constant": odd(lambda n, _: [0.1] * n),
    "nearly constant": odd(lambda n, _: 0.1 + 1e-17 * np.arange(n)),
    "Int64": of_type("Int64", 1, 2, 3),
    "Int64 missing": of_type("Int64", 1, None),
    "Float32": of_type("Float32", 0.5, 1.5),
    "boolean": of_type("boolean", True, False),  # noqa: FBT003  a value
    "boolean missing": of_type("boolean", True, None),  # noqa: FBT003  a value
    "string": of_type("string", "a", "b"),
    "string missing": of_type("string", "a", None),
    "string[pyarrow]": of_type("string[pyarrow]", "a", "b"),
    "int64[pyarrow]": of_type("int64[pyarrow]", 1, 2),
    "double[pyarrow]": of_type("double[pyarrow]", 1.5, 2.5),
    "truth": objects(True, False),  # noqa: FBT003  a value
    "train and test": objects("train", "test"),
    "dates": odd(lambda n, _: pd.date_range("2024-01-01", periods=n)),
    "dates with zones": odd(lambda n, _: pd.date_range("2024-01-01", periods=n, tz="UTC")),
    "durations": odd(lambda n, _: pd.to_timedelta(np.arange(n), unit="D")),
    "periods": odd(lambda n, _: pd.period_range("2024-01", periods=n, freq="M")),
    "intervals": odd(lambda n, _: pd.cut(np.arange(n), 2) if n > 1 else ["a"] * n),
    "lists": objects([1], [2, 3]),
    "sets and dicts": objects({1}, {"a": 1}),
    "tuples": objects((1, 2), (3, 4)),
    "bytes": objects(b"a", b"b"),
    "mixed": objects("a", 1, 2.5, None),
    "complex column": numbers(lambda x: x + 1j),
    "half": numbers(lambda x: x.astype(np.float16)),
    "big-endian": numbers(lambda x: x.astype(">f8")),
    "bytes of numbers": numbers(lambda x: x.astype(np.uint8)),
    "infinite": numbers(lambda x: np.where(np.arange(len(x)) == 0, np.inf, x)),
    "enormous": numbers(lambda x: 1e300 * x),
    "largest": numbers(lambda x: np.where(x > 50, 1.7e308, -1.7e308)),
    "tiny": numbers(lambda x: 1e-300 * x),
    "negative numbers": numbers(lambda x: -x),
    "zeros": numbers(lambda x: 0 * x),
    "pandas' sparse": numbers(lambda x: pd.arrays.SparseArray(x.round(-1))),
    "numbers as text": numbers(lambda x: x.astype(str)),
}
ENTRIES: dict[str, Change] = {
    "foreign uns": entry("uns", "ldvae", lambda _: {"schema_version": 1, "params": {}}),
    "newer uns": entry("uns", "ldvae", lambda _: {"schema_version": 99}),
    "text in uns": entry("uns", "ldvae", lambda _: "theirs"),
    "frame in obsm": entry("obsm", "X_ldvae", lambda a: pd.DataFrame(np.ones((a.n_obs, 3)), index=a.obs_names)),
    "library of others": entry("obs", "ldvae_library", lambda _: "theirs"),
    "dates in var": entry("var", "ldvae_loadings", lambda a: pd.date_range("2024-01-01", periods=a.n_vars)),
    "marks of others": entry("obs", "ldvae_held_out", lambda _: [None]),
    "raw": lambda adata, _: setattr(adata, "raw", adata),
    "fitted before": lambda adata, _: tl.ldvae(adata, **QUICK) if min(adata.shape) > 2 else None,
}
VIEWS: dict[str, Callable[[AnnData], AnnData]] = {
    "view of cells": lambda adata: adata[: max(1, adata.n_obs - 2)],
    "view of genes": lambda adata: adata[:, : max(1, adata.n_vars - 1)],
    "backwards": lambda adata: adata[::-1, ::-1],
    "mask": lambda adata: adata[np.arange(adata.n_obs) % 5 > 0],
}
FORMS = ("AnnData", *VIEWS, "backed", "MuData", "MuData's view", "layer")
CHANGES = {**SAME_COUNTS, **OTHER_COUNTS, **SHAPES, **NAMES, **COLUMNS, **ENTRIES}
COLUMN = ("batch", "sex", "age", "odd", "gone", "n", 0, None, ["batch"], ("a",), np.str_("batch"), "")
LISTS = (
    ["batch"],
    ["sex"],
    ["odd"],
    ["age"],
    ["age", "n"],
    ["sex", "batch"],
    [],
    ["age", "age"],
    "age",
    {"age"},
    ("odd",),
    pd.Index(["odd"]),
    [0],
    [["age"]],
    None,
)
OPTIONS: dict[str, tuple[Any, ...]] = {
    "n_latent": (1, 2, 3, 7, 0, -1, 100, 2.0, "2", np.int64(2), True, None),
    "layer": ("counts", "gone", None, 1, ["counts"]),
    "mask_var": ("few", "gone", None, "odd mask", [True, False], np.arange(3), 5, "none"),
    "batch_key": COLUMN,
    "labels_key": COLUMN,
    "size_factor_key": ("age", "odd", "n", "batch", None, 5),
    "categorical_covariate_keys": LISTS,
    "continuous_covariate_keys": LISTS,
    "gene_likelihood": ("zinb", "poisson", "nb", "bernoulli", "normal", None, 1),
    "dispersion": ("gene-batch", "gene-label", "gene-cell", "gene", "cell", None),
    "latent_distribution": ("ln", "normal", "gamma", 1),
    "use_observed_lib_size": (True, False, "yes", 1, None),
    "log_variational": (False, True, 0),
    "use_batch_norm": (False, True, "both"),
    "bias": (True, None),
    "n_hidden": (1, 3, 0, -4, 2.5, 10**12, "4"),
    "n_layers_encoder": (1, 2, 3, 0, -1, 1.0),
    "dropout_rate": (0.0, 0.5, 1.0, -0.1, 2, float("nan"), "0.1", None, np.array([0.1])),
    "max_epochs": (1, 2, 3, 0, -1, 1.5, "1"),
    "batch_size": (1, 2, 3, 16, 10**9, 0, -1, 3.0, None),
    "lr": (1e-9, 0.6, 6.0, 1e4, 1e300, 10**400, 0, -1, float("nan"), float("inf"), "fast", None),
    "train_size": (0.5, 1.0, 0.999, 1e-9, 0.0, -1, 2, float("nan"), "split", "odd", "gone", None, True),
    "early_stopping": (False, True, "no"),
    "device": ("cpu", torch.device("cpu"), "meta", "cuda:99", "gpu", 5, None),
    "rng": (1, 2**32, 2**63, 2**64, -1, 1.5, None, "seed", np.random.RandomState(1), [1, 2]),
    "random_state": (1, None, "x", -5),
    "key_added": ("mine", "", "a/b", 5, None, "X", ["a"], "ldvae"),
    "modality": ("rna", "gone", 5, None),
    "copy": (True, "yes", 1),
}
recipes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "changes": st.lists(st.sampled_from(list(CHANGES)), max_size=4, unique=True),
        "form": st.one_of(st.just("AnnData"), st.sampled_from(FORMS)),
        "options": st.lists(st.sampled_from(list(OPTIONS)), max_size=4, unique=True).flatmap(
            lambda names: st.fixed_dictionaries({name: st.sampled_from(OPTIONS[name]) for name in names})
        ),
    }
)


def plain_object(seed: int) -> AnnData:
    rng = np.random.default_rng(seed)
    n_obs, n_vars = int(rng.integers(12, 30)), int(rng.integers(5, 12))
    rates = rng.gamma(1, 4, n_vars) * np.exp(rng.normal(0, 0.7, (n_obs, 1)) * rng.normal(0, 1, n_vars))
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(rng.choice(["one", "two"], n_obs)),
            "sex": rng.choice(["f", "m"], n_obs),
            "age": rng.normal(50, 10, n_obs),
            "n": rng.integers(1, 9, n_obs),
            "split": rng.random(n_obs) < 0.8,
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    var = pd.DataFrame(
        {"few": np.arange(n_vars) > 1, "none": False, "odd mask": pd.array([True, None] * n_vars)[:n_vars]},
        index=[f"gene{i}" for i in range(n_vars)],
    )
    return AnnData(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)), obs, var)


def built(recipe: Mapping[str, Any], folder: str) -> Any:
    """The object of a recipe; changes that anndata or pandas refuse, or that have no place any more, are none."""
    rng, adata = np.random.default_rng(recipe["seed"]), plain_object(recipe["seed"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # SciPy itself dies of these if anything is done to them afterwards.
        for name in sorted(recipe["changes"], key=DEADLY.__eq__):
            before = adata.copy()
            try:
                made = CHANGES[name](adata, rng)
                adata = made if isinstance(made, AnnData) else adata
                adata.copy()
            except Exception:  # noqa: BLE001  whatever they say of it
                adata = before
        try:
            return adata if DEADLY in recipe["changes"] else formed(adata, recipe["form"], folder)
        except Exception:  # noqa: BLE001  whatever they say of it
            return adata


def formed(adata: AnnData, form: str, folder: str) -> Any:
    if form == "layer":
        adata.layers["counts"] = adata.X if adata.X is not None else np.ones(adata.shape)
        adata.X = np.full(adata.shape, 0.5)
    if form == "backed":
        return backed(adata, Path(folder, "object.h5ad"))
    if form.startswith("MuData"):
        adata.var_names_make_unique()
        adata.obs_names_make_unique()
        both = mudata.MuData({"rna": adata, "other": AnnData(np.ones((adata.n_obs, 2)), obs=adata.obs[[]])})
        return both if form == "MuData" else both[: max(1, adata.n_obs - 2)]
    return VIEWS[form](adata) if form in VIEWS else adata


def backed(adata: AnnData, path: Path) -> AnnData:
    if adata.X is None:
        # Then anndata can't say what a backed object holds.
        return adata
    try:
        adata.write_h5ad(path)
        return ad.read_h5ad(path, backed="r")
    except Exception:  # noqa: BLE001  what a file can't hold stays in memory
        return adata


def copied(data: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data.copy()


@given(recipe=recipes)
def test_an_answer_or_a_refusal(recipe: dict[str, Any], watched: Any, contents: Any, differ: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = built(recipe, folder)
        options: dict[str, Any] = QUICK | recipe["options"]
        if hasattr(data, "mod"):
            options = {"modality": "rna"} | options
        if recipe["form"] == "layer":
            options = {"layer": "counts"} | options
        before, answer = contents(data), None
        with watched(WORDS, data) as refused:
            answer = tl.ldvae(data, **options)
        if not refused:
            changed = data if answer is None else answer
            if answer is not None:
                assert differ(contents(data), before) == []
                # SciPy copies long indices into short ones.
                before = contents(copied(data))
            key = options.get("key_added") or record.DEFAULT
            touched = [path for path in differ(contents(changed), before) if key not in path and "X_" not in path]
            assert {path.rpartition("/")[2].rpartition(".")[2] for path in touched} <= {"keys", "columns", "is_view"}
            check_answer(changed, options, watched)


def check_answer(data: Any, options: Mapping[str, Any], watched: Any) -> None:
    """The numbers are finite, the record reads, and what it is asked fits together."""
    key = options.get("key_added") or record.DEFAULT
    keys = record.Keys.named(options.get("key_added"))
    asked = {"key": key, "modality": options.get("modality") if hasattr(data, "mod") else None}
    adata = data.mod[asked["modality"]] if hasattr(data, "mod") else data
    latent, variance = adata.obsm[keys.latent], adata.obsm[keys.variance]
    assert latent.shape == (adata.n_obs, options["n_latent"])
    for values_of in (
        latent,
        variance,
        adata.varm[keys.loadings],
        adata.obs[keys.library],
    ):
        assert np.isfinite(values_of).all()
    assert (variance > 0).all()
    stored = record.read(adata, key)
    known = np.isfinite(adata.varm[keys.loadings_se])
    assert (known == adata.var_names.isin(stored.genes)[:, None]).all()
    for decoder in (stored.decoder, stored.shown_decoder):
        assert np.isfinite(decoder.log_proportion.loadings).all()
        assert np.isfinite(decoder.log_proportion.intercept).all()
    # Of an object whose counts are in a file there is no copy.
    copies, latent = not data.isbacked, np.array(latent)
    with watched({"count", "cell"}, data) as refused:
        again = tl.project(data, data, **asked, copy=copies, key_added=None if copies else keys.latent, progress=False)
    assert not refused, refused
    again = again if copies else data
    again = again.mod[asked["modality"]] if hasattr(data, "mod") else again
    assert again.obsm[keys.latent].tobytes() == latent.tobytes()
    if adata.n_obs % 4:
        return
    with watched({"level", "batch"}, data) as refused:
        decoded = tl.normalized_expression(data, **asked, progress=False)
    assert not refused, refused
    np.testing.assert_allclose(decoded.sum(axis=1), 1, rtol=1e-4)
    with watched({"level", "batch"}, data) as refused:
        assert np.isfinite(tl.elbo(data, **asked, n_samples=1, progress=False))
    assert not refused, refused
