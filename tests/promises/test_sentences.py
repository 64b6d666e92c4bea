"""No sentence writes a number or a name as NumPy from version 2 on does: ``np.str_('ISG15')``, ``np.int64(3)``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import pytest

from sc_ldvae import get, inputs, nn, pl, tl
from sc_ldvae._arguments import _KINDS, door
from sc_ldvae._said import said

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

NUMPYS = re.compile(r"\bnp\.(str_|bytes_|bool|True_|False_|u?int|float|longdouble|complex|void)")
SCALARS: tuple[Any, ...] = (
    np.str_("ISG15"),
    np.int64(-3),
    np.uint8(3),
    np.float64(0.5),
    np.float32(np.nan),
    np.longdouble(2),
    np.bool_(1),
)
VALUES: tuple[Any, ...] = (
    *SCALARS,
    *([one] for one in SCALARS),
    *({np.str_("a"): one} for one in SCALARS),
    list(SCALARS),
    {"genes": [np.str_("ISG15")]},
    (np.str_("ISG15"), {np.int64(3)}),
)


def named_by_numpy(n: int, name: str) -> pd.Index[str]:
    """Names that stay NumPy's: of an index of objects, and of most arrays of them, pandas makes nothing else."""
    return pd.Index([np.str_(f"{name}{i}") for i in range(n)], dtype=object)


@pytest.fixture
def adata(fitted: AnnData) -> AnnData:
    """All of its names are NumPy's, and what stands in columns of objects, too."""
    adata = fitted.copy()
    adata.obs_names, adata.var_names = named_by_numpy(200, "cell"), named_by_numpy(60, "gene")
    adata.obs["text"] = pd.Series([np.str_("a"), np.str_("b")] * 100, index=adata.obs_names, dtype=object)
    adata.obs["flag"] = pd.Series([np.str_("yes"), 1] * 100, index=adata.obs_names, dtype=object)
    adata.layers[np.str_("other")] = adata.X.copy()
    adata.obsm[np.str_("X_other")] = np.ones((200, 2))
    return adata


def through_the_door(annotation: str, value: Any) -> str:
    """How an argument of this annotation is written inside, or the sentence that refuses it."""

    def function(argument: Any) -> Any:
        return argument

    function.__annotations__["argument"] = annotation
    try:
        return repr(door(function)(value))
    except TypeError as error:
        return str(error)


@pytest.mark.parametrize("annotation", _KINDS)
def test_nothing_of_numpys_comes_through_the_door_or_into_its_sentence(annotation: str) -> None:
    found = [through_the_door(annotation, value) for value in VALUES]
    assert not [one for one in found if NUMPYS.search(one)]


def test_what_is_said_is_what_was_given() -> None:
    assert said((np.str_("ISG15"), [np.int64(3), np.bool_(1)])) == "('ISG15', [3, True])"
    assert said({np.str_("a"): np.float64(0.5)}) == "{'a': 0.5}"
    assert said(np.array([np.str_("a"), None], dtype=object)) == "['a', None]"
    assert said(np.array([0.5])) == "array([0.5])"


def twice(adata: AnnData) -> None:
    names = list(adata.var_names)
    adata.var_names = pd.Index([names[1], *names[1:]], dtype=object)


def no_latent(adata: AnnData) -> None:
    adata.obsm["X_ldvae"][3] = np.nan


def strangers(adata: AnnData) -> None:
    adata.obs["ldvae_fit"] = "another"


def odd_marks(adata: AnnData) -> None:
    adata.obs["ldvae_held_out"] = adata.obs["text"]


def no_counts(adata: AnnData) -> None:
    adata.X = adata.X.astype(np.float64) * 1.5


def empty(adata: AnnData) -> None:
    adata.X[2] = 0


def renamed(adata: AnnData) -> None:
    adata.var_names = named_by_numpy(60, "ENSG")


def half_renamed(adata: AnnData) -> None:
    adata.var_names = pd.Index([*named_by_numpy(30, "ENSG"), *adata.var_names[30:]], dtype=object)


def nothing(_: AnnData) -> None:
    """The object as it is."""


def net(**columns: Any) -> pd.DataFrame:
    genes = [np.str_(f"gene{i}") for i in range(60)]
    return pd.DataFrame(
        {"source": pd.Series([np.str_("A")] * 60, dtype=object), "target": pd.Series(genes, dtype=object)} | columns
    )


QUICK = {"max_epochs": 1, "progress": False}
REFUSALS: dict[str, tuple[Callable[[AnnData], object], Callable[[AnnData], object], str]] = {
    "cells-without-latent": (no_latent, tl.associate, "no latent"),
    "cells-of-another-fit": (strangers, tl.associate, "another fit"),
    "marks": (odd_marks, lambda a: tl.explained_deviance(a, progress=False), "but holds 'a'"),
    "genes-twice": (twice, lambda a: tl.ldvae(a, 2, **QUICK), "'gene1'"),
    "genes-twice-after": (twice, lambda a: tl.elbo(a, n_samples=1, progress=False), "'gene1'"),
    "genes-renamed": (renamed, lambda a: tl.project(a, a, progress=False), "'gene0'"),
    "genes-half-renamed": (half_renamed, lambda a: tl.elbo(a, progress=False), "'gene0'"),
    "no-counts": (no_counts, lambda a: tl.ldvae(a, 2, **QUICK), "in cell 'cell"),
    "empty-cell": (empty, lambda a: tl.ldvae(a, 2, mask_var=None, **QUICK), "'cell2'"),
    "layer": (nothing, lambda a: tl.ldvae(a, 2, layer=np.str_("gone"), **QUICK), "Layers: 'other'"),
    "mask": (nothing, lambda a: tl.ldvae(a, 2, mask_var=[np.str_("x")] * 60, **QUICK), "holds 'x'"),
    "train-size": (nothing, lambda a: tl.ldvae(a, 2, train_size="flag", **QUICK), "holds 'yes'"),
    "covariate": (nothing, lambda a: tl.ldvae(a, 2, batch_key=np.str_("gone"), **QUICK), "'gone'"),
    "likelihood": (nothing, lambda a: tl.ldvae(a, 2, gene_likelihood=np.str_("gone"), **QUICK), "'gone'"),
    "modality": (nothing, lambda a: tl.ldvae(a, 2, modality=np.str_("rna"), **QUICK), "'rna'"),
    "keys": (nothing, lambda a: tl.associate(a, [np.str_("gone")]), "'gone'"),
    "no-key": (nothing, lambda a: tl.associate(a, np.array([], dtype=str)), "Columns: 'true_library'"),
    "fit": (nothing, lambda a: tl.associate(a, key=np.str_("gone")), "'gone'"),
    "factor": (nothing, lambda a: get.loadings(a, [np.int64(9)]), "holds 9"),
    "factors": (nothing, lambda a: tl.normalized_expression(a, factors={np.str_("ldvae1"): np.str_("x")}), "'x'"),
    "gene": (nothing, lambda a: pl.loadings_heatmap(a, genes=[np.str_("ISG15")]), "'ISG15'"),
    "genes": (nothing, lambda a: tl.normalized_expression(a, genes=np.array(["ISG15"])), "'ISG15'"),
    "gene-twice": (nothing, lambda a: tl.normalized_expression(a, genes=np.array(["gene1"] * 2)), "'gene1'"),
    "group": (nothing, lambda a: tl.differential_expression(a, "text", groups=[np.str_("c")]), "'c'"),
    "groups": (nothing, lambda a: tl.differential_expression(a, "text", reference=np.int64(3)), "'3'"),
    "level": (nothing, lambda a: tl.normalized_expression(a, batch=np.float64(3)), "3.0"),
    "number": (nothing, lambda a: tl.normalized_expression(a, covariates={"covariate1": np.str_("x")}), "'x'"),
    "setting": (nothing, lambda a: tl.normalized_expression(a, covariates={np.str_("x"): np.int64(1)}), "'x'"),
    "library": (nothing, lambda a: tl.normalized_expression(a, library=np.float64(-1)), "-1.0"),
    "basis": (nothing, lambda a: pl.factors(a, basis=np.str_("gone")), "'X_other'"),
    "axes": (nothing, lambda a: pl.loadings(a, ax=[np.array([np.str_("x"), None], dtype=object)]), "'x'"),
    "colours": (nothing, lambda a: pl.loadings_heatmap(a, cmap=np.int64(3)), "is 3"),
    "save": (nothing, lambda a: pl.loadings(a, save=np.int64(3)), "save=3"),
    "net-columns": (nothing, lambda a: tl.enrichment(a, net().rename(columns={"source": np.str_("x")})), "'x'"),
    "net-weight": (nothing, lambda a: tl.enrichment(a, net(weight=[np.float64(np.inf)] * 60)), "inf"),
    "net-text": (nothing, lambda a: tl.enrichment(a, net(weight=pd.Series([np.str_("w")] * 60, dtype=object))), "'w'"),
    "net-uniform": (nothing, lambda a: tl.enrichment(a, net()), "'A'"),
    "net-other": (nothing, lambda a: tl.enrichment(a, net(target=named_by_numpy(60, "x"))), "'x0'"),
    "columns": (nothing, lambda a: inputs.columns_of(a.obs[["text"]], [], set()), "'text'"),
    "module": (nothing, lambda _: nn.LDVAE(5, 2, gene_likelihood=np.str_("gone")), "'gone'"),
}


@pytest.mark.parametrize(("change", "call", "holds"), REFUSALS.values(), ids=REFUSALS)
def test_names_and_values_are_said_as_python_writes_them(
    change: Callable[[AnnData], object], call: Callable[[AnnData], object], holds: str, adata: AnnData
) -> None:
    change(adata)
    with pytest.raises((TypeError, ValueError)) as caught:
        call(adata)
    assert holds in str(caught.value)
    assert not NUMPYS.search(str(caught.value))


@pytest.mark.filterwarnings("ignore")
def test_modalities_are_said_so_too(adata: AnnData) -> None:
    mdata = mudata.MuData({np.str_("rna"): adata, np.str_("prot"): adata.copy()})
    for options in ({}, {"modality": np.str_("gone")}, {"modalities": [np.str_("gone")]}):
        with pytest.raises(ValueError, match="'rna', 'prot'") as caught:
            tl.ldvae(mdata, 2, **options, **QUICK)
        assert not NUMPYS.search(str(caught.value))
