"""Damaged entries of a fit: every use refuses them in a sentence that names them, or answers as without the damage.

A few hundred of all calls, always the same; all of them with

    python tests/record/test_damage.py 1000000
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sc_ldvae
from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = str(Path(sc_ldvae.__file__).parent)
FILES = Path(__file__).parent / "files"
IN_THE_SUITE = 400
KEY = "ldvae"
MISSING = object()
DOES_NOT_APPLY = object()
QUIET: dict[str, Any] = {"progress": False}


def simulated() -> AnnData:
    adata = sc_ldvae.datasets.simulate(40, 12, 2, n_batches=2, n_continuous=1, mean_library=300, rng=0)
    rng = np.random.default_rng(0)
    adata.obs["sex"] = np.array(["female", "male"])[np.arange(40) % 2]
    adata.obs["label"] = np.array(["a", "b"])[np.arange(40) % 4 // 2]
    adata.obs["size_factor"] = rng.gamma(20, 0.05, 40)
    return adata


COVARIATES: dict[str, Any] = {
    "batch_key": "batch",
    "labels_key": "label",
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["covariate1"],
}
FITS: dict[str, dict[str, Any]] = {
    "all": {"gene_likelihood": "zinb", "dispersion": "gene-label", **COVARIATES},
    "plain": {},
    "cell": {"dispersion": "gene-cell", "batch_key": "batch", "n_layers_encoder": 2},
    "size": {"dispersion": "gene-batch", "batch_key": "batch", "size_factor_key": "size_factor"},
    "rotated": {"gene_likelihood": "poisson", "use_observed_lib_size": True},
}


@cache
def fit_of(name: str) -> AnnData:
    """Change a copy."""
    adata = simulated()
    rotated = name == "rotated"
    options = {"n_hidden": 4, "max_epochs": 2, "key_added": "first" if rotated else None, **FITS[name], **QUIET}
    tl.ldvae(adata, 2, **options)
    if rotated:
        tl.rotate(adata, key="first", key_added=KEY)
        keys = adata.uns[KEY]["keys"]
        # As if the fit stood where the others do.
        adata.obsm["X_ldvae"], adata.obsm["X_ldvae_variance"] = adata.obsm[keys["latent"]], adata.obsm[keys["variance"]]
    return adata


def of_projection(adata: AnnData) -> dict[str, Any]:
    query = tl.project(query_of(), adata, copy=True, **QUIET)
    return {name: np.asarray(values) for name, values in query.obsm.items()} | {"library": query.obs.iloc[:, -3]}


def of_rotation(adata: AnnData) -> dict[str, Any]:
    turned = tl.rotate(adata, key_added="turned", copy=True)
    return {"loadings": get.loadings(turned, key="turned"), "latent": turned.obsm["turned"]}


@cache
def query_of() -> AnnData:
    return simulated()[::3].copy()


USES: dict[str, Callable[[AnnData], Any]] = {
    "loadings": get.loadings,
    "loadings_se": get.loadings_se,
    "factors": get.factors,
    "history": get.history,
    "top_genes": get.top_genes,
    "covariate_effects": get.covariate_effects,
    "normalized_expression": lambda adata: tl.normalized_expression(adata, **QUIET),
    "elbo": lambda adata: tl.elbo(adata, n_samples=1, **QUIET),
    "project": of_projection,
    "differential_expression": lambda adata: get.differential_expression(
        tl.differential_expression(adata, "sex", copy=True, **QUIET)
    ),
    "rotate": of_rotation,
}


class Huge:
    """Says that it is larger than any memory."""

    shape = (10**9, 10**9)
    dtype = np.dtype(np.float32)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        pytest.fail("an array that can't be was read")


class Unreadable:
    """As data sets of a file that was closed, or that is cut."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        message = "Unable to synchronously open object"
        raise KeyError(message)


def of_numbers(change: Callable[[np.ndarray], Any]) -> Callable[[Any], Any]:
    def mutate(value: Any) -> Any:
        array = np.asarray(value)
        return change(array.copy()) if array.dtype.kind in "biuf" and array.size else DOES_NOT_APPLY

    return mutate


def of_arrays(change: Callable[[np.ndarray], Any]) -> Callable[[Any], Any]:
    def mutate(value: Any) -> Any:
        array = None if isinstance(value, Mapping) else np.asarray(value)
        return DOES_NOT_APPLY if array is None or not array.ndim or not array.size else change(array.copy())

    return mutate


def of_leaves(change: Callable[[np.ndarray], Any]) -> Callable[[Any], Any]:
    return lambda value: DOES_NOT_APPLY if isinstance(value, Mapping) else change(np.asarray(value))


def with_first(new: Any, kind: Any = None) -> Callable[[np.ndarray], Any]:
    def change(array: np.ndarray) -> Any:
        changed = np.array(array, dtype=kind)
        changed.flat[0] = new(changed.flat[0]) if callable(new) else new
        return changed if array.ndim else changed.item()

    return change


def swapped(array: np.ndarray) -> np.ndarray:
    array[[0, -1]] = array[[-1, 0]]
    return array


def repeated(array: np.ndarray) -> np.ndarray:
    array[-1] = array[0]
    return array


def masked(array: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 0)


def permuted(array: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).permutation(array)


MUTATIONS: dict[str, Callable[[Any], Any]] = {
    "gone": lambda _: MISSING,
    "None": lambda _: None,
    "a number": lambda _: 7,
    "a large number": lambda _: 1e300,
    "below zero": lambda _: -3,
    "text": lambda _: "junk",
    "no text": lambda _: "",
    "bytes": lambda _: b"\xff\xfe\x00",
    "a list": lambda _: [1, 2],
    "a ragged list": lambda _: [[1], [2, 3]],
    "a dict": lambda _: {"a": 1},
    "an empty dict": lambda _: {},
    "a set": lambda _: {1, 2},
    "a date": lambda _: datetime(2024, 1, 1, tzinfo=UTC),
    "dates": lambda _: np.array(["2024-01-01"], "datetime64[ns]"),
    "a frame": lambda _: pd.DataFrame({"a": [1, 2]}),
    "sparse": lambda _: sparse.csr_matrix(np.eye(3, dtype=np.float32)),
    "huge": lambda _: Huge(),
    "unreadable": lambda _: Unreadable(),
    "a function": lambda _: len,
    "a generator": lambda _: (one for one in (1, 2)),
    "a structured array": lambda _: np.zeros(2, dtype=[("a", int), ("b", float)]),
    "empty": of_arrays(lambda array: array[:0]),
    "shorter": of_arrays(lambda array: array[:-1]),
    "longer": of_arrays(lambda array: np.concatenate([array, array[:1]])),
    "narrower": of_arrays(lambda array: array[..., :-1]),
    "transposed": of_arrays(lambda array: array.T.copy()),
    "flat": of_arrays(np.ravel),
    "one more axis": of_arrays(lambda array: array[None]),
    "reversed": of_arrays(lambda array: array[::-1]),
    "permuted": of_arrays(permuted),
    "swapped": of_arrays(swapped),
    "repeated": of_arrays(repeated),
    "objects": of_leaves(lambda array: array.astype(object)),
    "mixed": of_arrays(with_first(None, object)),
    "as text": of_leaves(lambda array: array.astype(str)),
    "masked": of_arrays(masked),
    "as a matrix of SciPy": of_numbers(lambda array: sparse.csr_matrix(array) if array.ndim == 2 else DOES_NOT_APPLY),
    "NaN": of_numbers(with_first(np.nan, float)),
    "infinite": of_numbers(with_first(np.inf, float)),
    "a number that is too large": of_numbers(with_first(1e300, float)),
    "one percent more": of_numbers(with_first(lambda one: one * 1.01 + 1e-3, float)),
    "zeros": of_numbers(np.zeros_like),
    "negative": of_numbers(lambda array: -np.abs(array.astype(float)) - 1),
    "halves": of_numbers(lambda array: array.astype(np.float16)),
    "integers": of_numbers(lambda array: array.astype(np.int64)),
    "complex": of_numbers(lambda array: array.astype(complex)),
    "boolean": of_numbers(lambda array: array.astype(bool)),
    "single precision": of_numbers(lambda array: array.astype(np.float32)),
    "Fortran order": of_numbers(np.asfortranarray),
    "as it is, in a list": of_leaves(np.ndarray.tolist),
}


class Damage(NamedTuple):
    """One entry of one fit made something else, and a use of it."""

    fit: str
    path: tuple[str, ...]
    """The attribute of the object, then keys."""
    mutation: str
    use: str

    def __str__(self) -> str:
        return f"{self.fit}: {'/'.join(self.path)}: {self.mutation}: {self.use}"


def damaged(adata: AnnData, path: tuple[str, ...], mutation: str) -> AnnData | None:
    """A copy in which one entry is something else; None where that is nothing, or where anndata refuses it."""
    attribute, *parents, last = path
    damage = adata.copy()
    holder = damage.uns if attribute == "uns" else getattr(damage, attribute)
    for parent in parents:
        holder[parent] = dict(holder[parent])
        holder = holder[parent]
    try:
        changed = MUTATIONS[mutation](holder[last])
        if changed is MISSING:
            del holder[last]
        elif changed is not DOES_NOT_APPLY:
            holder[last] = changed
    except Exception:  # noqa: BLE001  what NumPy, anndata or pandas refuse to make
        return None
    return None if changed is DOES_NOT_APPLY else damage


def paths_in(content: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, value in content.items():
        yield (*path, name)
        if isinstance(value, Mapping):
            yield from paths_in(value, (*path, name))


class Answer(NamedTuple):
    """What a use said: values by where they stand, or what it raised."""

    found: dict[str, np.ndarray]
    error: BaseException | None = None


def answer_of(adata: AnnData, use: Callable[[AnnData], Any]) -> Answer:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # What zarr and pandas say of themselves is not about this.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            return Answer(dict(values_of(use(adata), "")))
        except Exception as error:  # noqa: BLE001  any: it is looked at
            return Answer({}, error)


def values_of(answer: Any, where: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(answer, Mapping):
        for name, value in answer.items():
            yield from values_of(value, f"{where}/{name}")
    elif isinstance(answer, pd.DataFrame):
        yield f"{where}/index", answer.index.to_numpy(dtype=object)
        yield from values_of({str(name): column.to_numpy() for name, column in answer.items()}, where)
        yield from values_of(answer.attrs, where)
    else:
        yield where, np.asarray(answer)


def problem_with(got: Answer, expected: Answer, names: tuple[str, ...]) -> str | None:
    """What is wrong with what a use of a damaged fit said; None: nothing."""
    if got.error is None:
        if expected.error is not None:
            return "answers what it refused before"
        return None if got.found.keys() == expected.found.keys() and same(got, expected) else "another answer"
    return problem_of_error(got.error, names)


def problem_of_error(error: BaseException, names: tuple[str, ...]) -> str | None:
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    if type(error) not in {ValueError, TypeError} or not raised.startswith(SOURCE):
        return f"{type(error).__name__} of {Path(raised).name}: {error}"
    return None if any(name in str(error) for name in names) else f"the sentence names no entry: {error}"


def same(got: Answer, expected: Answer) -> bool:
    return all(close(got.found[name], values) for name, values in expected.found.items())


def close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    if other.dtype.kind == "f":
        return bool(np.allclose(one.astype(float), other, rtol=1e-6, atol=1e-9, equal_nan=True))
    return one.tolist() == other.tolist()


def finite(got: Answer) -> bool:
    return all(np.isfinite(values).all() for values in got.found.values() if values.dtype.kind in "fc")


@cache
def expected_of(fit: str, use: str) -> Answer:
    return answer_of(fit_of(fit).copy(), USES[use])


def of_records() -> list[Damage]:
    """Every entry of every fit's record, every mutation, every use."""
    return [
        Damage(fit, path, mutation, use)
        for fit in FITS
        for path in (("uns", KEY), *paths_in(fit_of(fit).uns[KEY], ("uns", KEY)))
        for mutation in MUTATIONS
        for use in USES
    ]


def chosen(damages: list[Damage], number: int) -> list[Damage]:
    order = np.random.default_rng(0).permutation(len(damages))[:number]
    return [damages[i] for i in sorted(order)]


def failures(damages: list[Damage], check: Callable[[Damage, AnnData], str | None]) -> tuple[Counter[str], list[str]]:
    """Outcomes by their number, and what is wrong."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for damage in damages:
        adata = damaged(source_of(damage), damage.path, damage.mutation)
        if adata is None:
            counts["does not apply"] += 1
            continue
        problem = check(damage, adata)
        counts[problem or "right"] += 1
        if problem is not None:
            wrong.append(f"{damage}: {problem}")
    return counts, wrong


def source_of(damage: Damage) -> AnnData:
    if damage.fit == "assessed":
        return assessed()
    return fit_of(damage.fit) if damage.fit in FITS else old_of(damage.fit)


def problem_of_record(damage: Damage, adata: AnnData) -> str | None:
    before = held(adata)
    got = answer_of(adata, USES[damage.use])
    if held(adata) != before:
        return "the object was changed"
    return problem_with(got, expected_of(damage.fit, damage.use), (f"uns['{KEY}']",))


def held(adata: AnnData) -> list[Any]:
    """What an object holds, by its identity."""
    mappings = (adata.uns, adata.obsm, adata.varm, adata.layers)
    return [adata.obs.columns.tolist(), *([(name, id(value)) for name, value in one.items()] for one in mappings)]


@cache
def old_of(name: str) -> AnnData:
    """The file of an old format, ``format<n>``."""
    import shutil

    with TemporaryDirectory() as folder:
        shutil.unpack_archive(FILES / f"{name}.h5ad.tar.gz", folder, filter="data")
        adata = ad.read_h5ad(Path(folder) / f"{name}.h5ad")
    adata.obs["sex"] = adata.obs["sex"].astype(str)
    return adata


def of_old_formats() -> list[Damage]:
    return [
        Damage(f"format{version}", path, mutation, use)
        for version in (1, 2, 3, 4)
        for path in paths_in(old_of(f"format{version}").uns[KEY], ("uns", KEY))
        for mutation in MUTATIONS
        for use in USES
        if use != "project"
    ]


def problem_of_values(damage: Damage, adata: AnnData) -> str | None:
    """Where no checksum tells: any answer that is finite."""
    got = answer_of(adata, USES[damage.use])
    if got.error is None:
        return None if finite(got) else "an answer that is not finite"
    return problem_of_error(got.error, (f"uns['{KEY}']", damage.path[-1], "have no latent", "obs["))


def of_cells() -> list[Damage]:
    """What the fit left in obs, obsm and varm."""
    places = {
        "obsm": ("X_ldvae", "X_ldvae_variance"),
        "varm": ("ldvae_loadings", "ldvae_loadings_se"),
        "obs": ("ldvae_library", "ldvae_held_out", "ldvae_fit"),
    }
    return [
        Damage(fit, (attribute, key), mutation, use)
        for fit in ("all", "plain")
        for attribute, keys in places.items()
        for key in keys
        for mutation in MUTATIONS
        for use in USES
    ]


RESULTS: dict[str, Callable[[AnnData], Any]] = {
    "explained_deviance": get.explained_deviance,
    "by_group": lambda adata: get.explained_deviance(adata, by_group=True),
    "stability": get.stability,
    "consensus_loadings": get.consensus_loadings,
    "associations": get.associations,
    "enrichment": get.enrichment,
    "n_latent": get.n_latent,
    "differential_expression": get.differential_expression,
}


@cache
def assessed() -> AnnData:
    adata = fit_of("plain").copy()
    net = pd.DataFrame({"source": np.repeat(["one", "two"], 6), "target": adata.var_names, "weight": 1.0})
    tl.explained_deviance(adata, "batch", cells="all", **QUIET)
    tl.stability(adata, 2, **QUIET)
    tl.associate(adata)
    tl.enrichment(adata, net)
    tl.select_n_latent(adata, [1, 2], 1, max_epochs=1, **QUIET)
    tl.differential_expression(adata, "sex", **QUIET)
    return adata


def of_results() -> list[Damage]:
    results = {name: value for name, value in assessed().uns.items() if name != KEY}
    return [
        Damage("assessed", path, mutation, use)
        for path in paths_in(results, ("uns",))
        for mutation in MUTATIONS
        for use in RESULTS
    ]


def problem_of_result(damage: Damage, adata: AnnData) -> str | None:
    got = answer_of(adata, RESULTS[damage.use])
    expected = answer_of(assessed(), RESULTS[damage.use])
    return problem_with(got, expected, (f"uns['{damage.path[1]}']",))


KINDS: dict[str, tuple[Callable[[], list[Damage]], Callable[[Damage, AnnData], str | None]]] = {
    "records": (of_records, problem_of_record),
    "old formats": (of_old_formats, problem_of_values),
    "cells": (of_cells, problem_of_values),
    "results": (of_results, problem_of_result),
}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_without_effect(kind: str) -> None:
    every, check = KINDS[kind]
    counts, wrong = failures(chosen(every(), IN_THE_SUITE), check)
    assert counts["right"] > IN_THE_SUITE // 3
    assert not wrong, "\n".join(wrong)


# What went wrong once: memory without end, torch's own message, a wrong number of groups, NaN, warnings.
FOUND = [
    Damage("all", ("uns", KEY, "params", "n_layers_encoder"), "a large number", "elbo"),
    Damage("format3", ("uns", KEY, "params", "n_layers_encoder"), "a large number", "elbo"),
    Damage("plain", ("uns", KEY, "library_prior", "log_mean"), "reversed", "elbo"),
    Damage("all", ("uns", KEY, "history", "epoch"), "halves", "history"),
    Damage("format3", ("uns", KEY, "loadings_covariance"), "negative", "loadings_se"),
    Damage("format4", ("uns", KEY, "params", "batch_key"), "text", "elbo"),
    Damage("format4", ("uns", KEY, "params", "dispersion"), "gone", "elbo"),
    Damage("format4", ("uns", KEY, "params", "log_variational"), "a list", "elbo"),
    Damage("format4", ("uns", KEY, "covariates", "key"), "repeated", "elbo"),
    Damage("all", ("obsm", "X_ldvae_variance"), "negative", "factors"),
    Damage("plain", ("obsm", "X_ldvae_variance"), "NaN", "factors"),
    Damage("all", ("obs", "ldvae_library"), "complex", "differential_expression"),
    Damage("assessed", ("uns", "ldvae_enrichment", "checksum"), "an empty dict", "enrichment"),
]


@pytest.mark.parametrize("damage", FOUND, ids=str)
def test_what_was_found(damage: Damage) -> None:
    exact = {"assessed": problem_of_result} | dict.fromkeys(FITS, problem_of_record)
    check = exact.get(damage.fit, problem_of_values) if damage.path[0] == "uns" else problem_of_values
    assert failures([damage], check) == (Counter({"right": 1}), [])


def main(number: str, *kinds: str) -> None:
    for kind in kinds or KINDS:
        every, check = KINDS[kind]
        damages = every()
        counts, wrong = failures(chosen(damages, int(number)), check)
        n_calls = sum(counts.values()) - counts["does not apply"]
        print(f"{kind}: {n_calls} calls of {len(damages)}, {len(wrong)} wrong")  # noqa: T201  its output
        print(*wrong[:400], sep="\n")  # noqa: T201  its output


if __name__ == "__main__":
    main(*sys.argv[1:])
