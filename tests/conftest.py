from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import matplotlib as mpl
import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import sc_ldvae
from sc_ldvae import record
from sc_ldvae.record._marks import fit_column
from sc_ldvae.record._sealed import sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from mudata import MuData

    class FitQuickly(Protocol):
        def __call__(self, data: AnnData | MuData, n_latent: int = 3, **kwargs: Any) -> AnnData | MuData | None: ...

    AssertSame = Callable[[object, object], None]
    Reseal = Callable[..., None]
    Unchanged = Callable[[AnnData], AbstractContextManager[None]]

mpl.use("Agg")
# So small a model gains nothing from threads, and loses much where other processes want the cores.
torch.set_num_threads(1)

FRAMES = ("obs", "var")
MAPPINGS = ("uns", "obsm", "varm", "layers", "obsp", "varp")


@pytest.fixture(scope="session")
def pbmc_counts() -> AnnData:
    return sc_ldvae.datasets.pbmc68k_counts()


@pytest.fixture
def pbmc(pbmc_counts: AnnData) -> AnnData:
    return pbmc_counts.copy()


@pytest.fixture(scope="session")
def simulated() -> AnnData:
    return sc_ldvae.datasets.simulate(n_obs=200, n_vars=60, n_latent=3, n_batches=2, n_continuous=1)


@pytest.fixture(scope="session")
def fitted(simulated: AnnData) -> AnnData:
    """Shared by all tests: change a copy."""
    adata = simulated.copy()
    sc_ldvae.tl.ldvae(
        adata, n_latent=3, max_epochs=3, batch_key="batch", continuous_covariate_keys=["covariate1"], progress=False
    )
    return adata


@pytest.fixture(scope="session")
def assessed(fitted: AnnData) -> AnnData:
    """With what the tools say of the fit's factors; shared by all tests: change a copy."""
    adata = fitted.copy()
    sc_ldvae.tl.explained_deviance(adata, "batch", cells="all", thinned=0.25, progress=False)
    sc_ldvae.tl.stability(adata, 4, progress=False)
    sc_ldvae.tl.associate(adata)
    sc_ldvae.tl.select_n_latent(adata, [1, 2, 4], 1, max_epochs=2, progress=False)
    return adata


@pytest.fixture(scope="session")
def joint() -> MuData:
    """Three modalities fitted together, one with an odd name; shared by all tests: change a copy."""
    modalities = {}
    for i, (name, n_vars) in enumerate({"rna": 40, "prot": 12, "$tf$ of $x$": 20}.items()):
        adata = sc_ldvae.datasets.simulate(n_obs=120, n_vars=n_vars, n_latent=3, rng=i)
        # Some cells lack it, and the others are in another order.
        adata = adata[np.roll(np.arange(120), 7 * i)[10 * i :]]
        modalities[name] = AnnData(adata.X, pd.DataFrame(index=adata.obs_names), pd.DataFrame(index=adata.var_names))
        modalities[name].var_names = [f"{name[:4]}{j}" for j in range(n_vars)]
    mdata = mudata.MuData(modalities)
    mdata.obs["batch"] = pd.Categorical(np.where(np.arange(120) % 3, "one", "two"))
    mdata.obs["age"] = np.linspace(0, 1, 120)
    sc_ldvae.tl.ldvae(
        mdata,
        3,
        modalities={"rna": "nb", "prot": "nb", "$tf$ of $x$": "poisson"},
        mask_var={"rna": np.arange(40) % 4 > 0},
        batch_key="batch",
        max_epochs=20,
        progress=False,
    )
    return mdata


@pytest.fixture(scope="session")
def joint_assessed(joint: MuData) -> MuData:
    """With results as the tools leave them; shared by all tests: change a copy."""
    mdata, draw = joint.copy(), np.random.default_rng(0)
    stored = record.read_joint(mdata)
    n_genes = sum(len(view.genes) for view in stored.views.values())
    explained = {
        "modalities": np.array(stored.modalities),
        "share": draw.uniform(size=(3, 3)),
        "marginal": draw.uniform(size=(3, 3)),
        "base": np.array([0.1, 0.0, -0.1]),
        "total": np.array([0.4, 0.8, 0.2]),
        "n_cells": np.array([12, 11, 9]),
        "params": {"cells": "held_out", "thinned": 0.25, "groupby": ""},
    }
    stability = {name: draw.uniform(size=3) for name in ("score", "span")}
    stability |= {name: draw.uniform(size=(2, 3)) for name in ("replication", "cosine")}
    stability |= {"splits": np.array([0, 1, 0]), "merges": np.zeros(3, dtype=int)}
    stability |= {"consensus": draw.normal(size=(n_genes, 3))}
    params = {"params": {"n_seeds": 2, "subsample": "halves", "rotation": ""}}
    record.write_result(mdata, "ldvae_explained_deviance", explained, stored)
    record.write_result(mdata, "ldvae_stability", stability | params, stored)
    compared = {name: draw.uniform(size=2) for name in ("elbo", "elbo_behind", "elbo_behind_se", "explained_deviance")}
    compared |= {"stability": draw.uniform(size=2), "n_stable": np.array([1.0, 2]), "n_active": np.array([2.0, 4])}
    compared |= {"n_latent": np.array([2, 4]), "recommended": 4, "reason": "It is the best."}
    record.write_result(mdata, "ldvae_n_latent", compared)
    sc_ldvae.tl.associate(mdata, ["batch", "age"])
    return mdata


@pytest.fixture(scope="session")
def write_enrichment() -> Callable[..., None]:
    """Leaves an enrichment in some sources as the tool does, which needs a package that need not be installed."""

    def write(adata: AnnData, sources: Sequence[str], name: str = "ldvae_enrichment") -> None:
        stored, n = record.read(adata), len(sources)
        scores, pvalues = np.random.default_rng(0).normal(size=(2, len(stored.left) * n))
        table = {
            "factor": np.repeat(stored.names_left, n),
            "source": np.tile(np.array(sources), len(stored.left)),
            "score": 5 * scores,
            "pvalue": 10 ** (-4 * np.abs(pvalues)),
            "qvalue": 10 ** (-3 * np.abs(pvalues)),
            "n_targets": np.full(len(stored.left) * n, 7),
        }
        record.write_result(adata, name, table, stored)

    return write


@pytest.fixture(scope="session")
def fit_quickly() -> FitQuickly:
    def fit(data: AnnData | MuData, n_latent: int = 3, **kwargs: Any) -> AnnData | MuData | None:
        return sc_ldvae.tl.ldvae(data, n_latent, **{"max_epochs": 2, "progress": False} | kwargs)

    return fit


@pytest.fixture(scope="session")
def reseal() -> Reseal:
    """Makes a record that a test has changed another fit, of the same cells, where it would be a damaged one."""

    def seal(adata: AnnData, key: str = "ldvae") -> None:
        adata.uns[key] = sealed(adata.uns[key])
        stored = record.read(adata, key)
        adata.obs[stored.keys.fit] = fit_column(stored, adata.n_obs)

    return seal


@pytest.fixture(scope="session")
def assert_same() -> AssertSame:
    """Asserts that the first object holds exactly what the second holds, to the byte, in the same order."""
    return _assert_same


@pytest.fixture(scope="session")
def unchanged() -> Unchanged:
    """A context whose end asserts that nothing happened to the AnnData within."""

    @contextmanager
    def context(adata: AnnData) -> Iterator[None]:
        before, was_view, was_backed = _snapshot(adata), adata.is_view, adata.isbacked
        yield
        assert adata.is_view == was_view
        assert adata.isbacked == was_backed
        _assert_same(_snapshot(adata) if was_backed else adata, before)

    return context


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def _snapshot(adata: AnnData) -> AnnData:
    return adata.to_memory() if adata.isbacked else adata.copy()


def _assert_same(got: object, expected: object, where: str = "data") -> None:
    if isinstance(expected, AnnData):
        assert isinstance(got, AnnData), where
        for name in ("X", *FRAMES, *MAPPINGS):
            _assert_same(getattr(got, name), getattr(expected, name), f"{where}.{name}")
    elif isinstance(expected, Mapping):
        assert isinstance(got, Mapping), where
        assert list(got) == list(expected), where
        for key, value in expected.items():
            _assert_same(got[key], value, f"{where}[{key!r}]")
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(
            got, expected, check_exact=True, check_frame_type=False, check_column_type=False, obj=where
        )
    elif sparse.issparse(expected):
        assert sparse.issparse(got), where
        assert (got.format, got.shape) == (expected.format, expected.shape), where
        for name in ("data", "indices", "indptr"):
            _assert_same(getattr(got, name), getattr(expected, name), f"{where}.{name}")
    elif isinstance(expected, np.ndarray):
        assert isinstance(got, np.ndarray), where
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), where
        same = np.array_equal(got, expected) if expected.dtype.hasobject else got.tobytes() == expected.tobytes()
        assert same, where
    else:
        assert type(got) is type(expected), where
        assert got == expected, where
