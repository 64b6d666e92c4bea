"""What a stored fit is asked, in the process that made it and in another one.

Run as a script it reads every fit of a folder and writes its answers beside them; `test_second_process.py` compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Callable

FACTORS = [1, 3]


def projected(adata: ad.AnnData, query: ad.AnnData, key: str) -> ad.AnnData:
    return tl.project(query, adata, key=key, copy=True, progress=False)


def entries(adata: ad.AnnData, key: str) -> dict[str, Any]:
    """What `tl.project` writes, but the record."""
    return {**adata.obsm, **adata.varm, "library": adata.obs[f"{key}_library"], "all new": adata.obs[f"{key}_held_out"]}


def rotated(adata: ad.AnnData, query: ad.AnnData, key: str) -> Any:
    """What projected cells get of the rotated fit; factors that are shares of one have no rotation."""
    if adata.uns[key]["params"].get("latent_distribution") == "ln":
        return get.loadings(adata, per="sd", log2=True, key=key)
    fit = tl.rotate(adata, "promax", key=key, key_added="rotated", copy=True)
    return entries(projected(fit, query, "rotated"), "rotated")


def per_cell(score: Callable[..., float], adata: ad.AnnData, key: str, **options: Any) -> np.ndarray:
    adata = adata.copy()
    score(adata, key=key, key_added="score", progress=False, **options)
    return adata.obs["score"].to_numpy()


def expression(adata: ad.AnnData, key: str, **options: Any) -> Any:
    return tl.normalized_expression(adata, key=key, progress=False, **options)


def compared(adata: ad.AnnData, key: str, **options: Any) -> pd.DataFrame:
    result = tl.differential_expression(adata, "label", key=key, copy=True, progress=False, **options)
    return get.differential_expression(result)


def drawn(adata: ad.AnnData, key: str) -> dict[str, np.ndarray]:
    draws = tl.posterior_predictive(adata, 2, key=key, rng=3, progress=False)
    return {str(i): draw.toarray() for i, draw in enumerate(draws)}


def enriched(adata: ad.AnnData, key: str) -> pd.DataFrame:
    genes = get.loadings(adata, key=key).index[:12]
    net = pd.DataFrame({"source": ["first", "second"] * 6, "target": genes, "weight": np.linspace(-1, 2, 12)})
    return get.enrichment(tl.enrichment(adata, net, key=key, copy=True), key=key)


def deviance_by_group(adata: ad.AnnData, key: str) -> pd.DataFrame:
    measured = tl.explained_deviance(adata, "label", cells="all", key=key, copy=True, progress=False)
    return get.explained_deviance(measured, by_group=True, key=key)


def share_of(adata: ad.AnnData, key: str) -> float | None:
    """Of the counts that are thinned; whether there are any is not."""
    return None if adata.uns[key]["params"]["gene_likelihood"] == "bernoulli" else 0.3


def explained(adata: ad.AnnData, key: str, **options: Any) -> dict[str, Any]:
    tl.explained_deviance(adata, key=key, key_added="result", progress=False, **options)
    return {name: part for name, part in adata.uns.pop("result").items() if name != "params"}


def refitted(adata: ad.AnnData, key: str) -> dict[str, Any]:
    tl.stability(adata, 2, key=key, key_added="result", progress=False)
    return {name: part for name, part in adata.uns.pop("result").items() if name != "params"}


FUNCTIONS: dict[str, Callable[[ad.AnnData, ad.AnnData, str], Any]] = {
    "project": lambda adata, query, key: entries(projected(adata, query, key), key),
    "elbo": lambda adata, _, key: per_cell(tl.elbo, adata, key, n_samples=2),
    "elbo-of-projected": lambda adata, query, key: per_cell(tl.elbo, projected(adata, query, key), key),
    "reconstruction_error": lambda adata, _, key: per_cell(tl.reconstruction_error, adata, key, n_samples=2),
    "marginal_log_likelihood": lambda adata, _, key: per_cell(tl.marginal_log_likelihood, adata, key, n_samples=5),
    "expression": lambda adata, _, key: expression(adata, key),
    "expression-of-projected": lambda adata, query, key: expression(projected(adata, query, key), key, batch="mean"),
    "expression-batch-mean": lambda adata, _, key: expression(adata, key, batch="mean"),
    "expression-covariates": lambda adata, _, key: expression(adata, key, covariates={"sex": "female", "year": 2021}),
    "expression-factors": lambda adata, _, key: expression(adata, key, factors=FACTORS),
    "expression-samples": lambda adata, _, key: expression(adata, key, n_samples=3, rng=5),
    "expression-library": lambda adata, _, key: expression(adata, key, library="own"),
    "expression-threshold": lambda adata, _, key: expression(adata, key, threshold=0.02),
    "comparison": lambda adata, _, key: compared(adata, key),
    "comparison-of-batches": lambda adata, _, key: compared(adata, key, batch_correction=True),
    "comparison-vanilla": lambda adata, _, key: compared(adata, key, mode="vanilla", reference="a"),
    "posterior_predictive": lambda adata, _, key: drawn(adata, key),
    "likelihood_parameters": lambda adata, _, key: get.likelihood_parameters(adata, key=key),
    "latent_library_size": lambda adata, _, key: get.latent_library_size(adata, key=key),
    "feature_correlation": lambda adata, _, key: get.feature_correlation(adata, key=key),
    "loadings": lambda adata, _, key: get.loadings(adata, key=key),
    "loadings_se": lambda adata, _, key: get.loadings_se(adata, per="sd", key=key),
    "rotated": rotated,
    "top_genes": lambda adata, _, key: get.top_genes(adata, 4, key=key),
    "factors": lambda adata, _, key: get.factors(adata, key=key),
    "covariate_effects": lambda adata, _, key: get.covariate_effects(adata, key=key),
    "history": lambda adata, _, key: get.history(adata, key=key),
    "associations": lambda adata, _, key: get.associations(tl.associate(adata, key=key, copy=True), key=key),
    "explained_deviance": lambda adata, _, key: deviance_by_group(adata, key),
    "enrichment": lambda adata, _, key: enriched(adata, key),
    "explained_deviance-held-out": lambda adata, _, key: explained(adata, key),
    "explained_deviance-thinned": lambda adata, _, key: explained(adata, key, thinned=share_of(adata, key), rng=5),
    "stability": lambda adata, _, key: refitted(adata, key),
}


def results(adata: ad.AnnData, query: ad.AnnData, key: str) -> dict[str, np.ndarray]:
    """The answer of each function, as arrays named ``'<function>/<part>'``."""
    return {
        f"{name}/{part}": array
        for name, function in FUNCTIONS.items()
        for part, array in arrays(function(adata, query, key)).items()
    }


def arrays(answer: Any) -> dict[str, np.ndarray]:
    """Plain arrays out of whatever a function gives."""
    if isinstance(answer, pd.DataFrame):
        frame = answer.reset_index()
        return {str(column): plain(frame[column]) for column in frame} | {"names": plain(frame.columns)}
    if sparse.issparse(answer):
        return {name: getattr(answer, name) for name in ("data", "indices", "indptr")}
    if isinstance(answer, dict):
        return {name: plain(part) for name, part in answer.items()}
    return {"values": plain(answer)}


def plain(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array if array.dtype.kind in "biuf" else np.array([str(value) for value in values])


def read(path: Path) -> ad.AnnData:
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for fitted in sorted(folder.glob("*/fitted.*")):
        adata, query = read(fitted), read(folder / f"query{fitted.suffix}")
        (key,) = adata.uns
        np.savez(fitted.with_suffix(f"{fitted.suffix}.npz"), **results(adata, query, key))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
