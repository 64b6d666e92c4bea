"""Joint fits of CITE-seq beside MOFA and nearest neighbours: held-out proteins from RNA, cell types, seconds."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from scipy.special import xlogy
from scipy.stats import pearsonr, spearmanr
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

import sc_ldvae
from benchmarks import tables
from benchmarks.data import held_out
from benchmarks.downstream import cluster_agreement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.runs import Session

    Floats = NDArray[np.float64]

FILE, MODALITIES = "pbmc10k_citeseq.h5mu", {"rna": "nb", "prot": "nb_background"}
_N_LATENT, _N_COMPONENTS, _N_NEIGHBOURS = 10, 30, 30
METHODS = {
    "ldvae": "sc-ldvae",
    "ldvae_20": "sc-ldvae, at most 20 factors",
    "ldvae_none": "sc-ldvae, no prior of loadings",
    "mofa": "MOFA (muon)",
    "totalvi": "totalVI",
    "pca": f"neighbours on {_N_COMPONENTS} components of RNA",
}
# Number of factors and prior of our own fits.
_OWN: dict[str, tuple[int, str | None]] = {
    "ldvae": (_N_LATENT, "adaptive"),
    "ldvae_20": (20, "adaptive"),
    "ldvae_none": (_N_LATENT, None),
}


class Found(NamedTuple):
    """What a method makes of the cells."""

    latent: Floats
    """Of all cells, from what they were shown, n_obs x factors."""
    seconds: float
    proteins: Floats | None = None
    """Its own prediction for the held-out cells, in counts; None if it has none."""
    from_rna: Floats | None = None
    """Latent of all cells from their RNA alone, for the neighbours; None where it has none."""


def joint(session: Session, methods: tuple[str, ...] = tuple(METHODS), n_seeds: int = 3) -> None:
    """Run what has not been run, then write the table."""
    path = None if session.data is None else session.data / FILE
    if path is None or not path.exists():
        print(f"joint is left out: there is no file {FILE} in the data folder ({session.data}).")
        return
    session.remembered("joint", "warm", "benchmarks.joint:run", path=str(path), method="ldvae", threads=session.threads)
    rows = []
    for method in methods:
        if method == "totalvi" and not torch.cuda.is_available():
            print("totalVI is left out: torch finds no CUDA device, and without one it takes hours.")
            continue
        for seed in range(1 if method in ("pca", "totalvi") else n_seeds):
            request = {"path": str(path), "method": method, "seed": seed, "threads": session.threads}
            result = session.remembered("joint", f"{method}.{seed}", "benchmarks.joint:run", **request)
            if result is not None:
                rows.append({"method": METHODS[method], "seeds": 1} | result)
    table = pd.DataFrame(rows).drop(columns="process_seconds")
    by_method = table.groupby("method", sort=False)
    table = by_method.median().assign(seeds=by_method["seeds"].sum()).reset_index()
    notes = (
        f"{FILE}: RNA (4,000 genes) of all cells and 14 proteins of nine tenths of them, fitted together; "
        f"{_N_LATENT} factors unless said, defaults otherwise; medians over seeds. The proteins of the other tenth are "
        "predicted: by the method itself, then as the mean of the "
        f"{_N_NEIGHBOURS} nearest cells that have proteins, in the latent from RNA alone. Explained: negative binomial "
        "deviance of the held-out protein counts beside each protein's mean, with one dispersion of each protein for "
        "all methods. r: Pearson's of log1p counts; rho: Spearman's; means over proteins. Labels: clusters of the "
        "proteins; of cells whose proteins were hidden, by the labels of 15 neighbours among the other cells; ARI of "
        "Leiden clusters of the latent of all cells. Seconds: the fit, without the preparation of the data."
    )
    tables.write(session, "joint", "RNA and proteins together", table, notes)


def run(path: str, method: str, threads: int, seed: int = 0) -> dict[str, float]:
    """One fit and its scores."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    whole = md.read_h5mu(path)
    hidden = held_out(whole.n_obs)
    measured = np.asarray(whole["prot"].X.toarray(), dtype=float)
    shown = md.MuData({"rna": whole["rna"].copy(), "prot": whole["prot"][~hidden].copy()})
    # Their order in the MuData may be another.
    shown_places, places = shown.obs_names.get_indexer(whole.obs_names), whole.obs_names.get_indexer(shown.obs_names)
    found = _fit(shown, hidden[places], method, seed)
    labels = pd.Series(clusters(measured))
    scores: dict[str, float] = {"seconds": found.seconds}
    if found.proteins is not None:
        predicted = np.empty((len(places), measured.shape[1]))
        predicted[hidden[places]] = found.proteins
        scores |= _scores(predicted[shown_places][hidden], measured, hidden, "")
    if found.from_rna is not None:
        near = neighbours(found.from_rna[shown_places], measured, hidden)
        scores |= _scores(near, measured, hidden, ", neighbours")
    latent = found.latent[shown_places]
    classifier = KNeighborsClassifier(15).fit(latent[~hidden], labels[~hidden])
    scores["labels"] = float(classifier.score(latent[hidden], labels[hidden]))
    scores["ARI"] = cluster_agreement(latent, labels)
    return scores


def _fit(shown: md.MuData, hidden: NDArray[np.bool_], method: str, seed: int) -> Found:
    if method in _OWN:
        return _ldvae(shown, hidden, seed, *_OWN[method])
    return {"mofa": _mofa, "totalvi": _totalvi, "pca": _pca}[method](shown, hidden, seed)


def _ldvae(shown: md.MuData, hidden: NDArray[np.bool_], seed: int, n_latent: int, prior: str | None) -> Found:
    start = time.perf_counter()
    sc_ldvae.tl.ldvae(shown, n_latent, modalities=MODALITIES, loadings_prior=prior, rng=seed, progress=False)
    seconds = time.perf_counter() - start
    names = shown.obs_names
    alone = sc_ldvae.tl.project(shown["rna"].copy(), shown, modality="rna", copy=True, progress=False)
    foreground = sc_ldvae.tl.normalized_expression(shown, modality="prot", progress=False).loc[names[hidden]].to_numpy()
    proteins = foreground + np.exp(shown["prot"].uns["ldvae"]["decoder"]["log_background"])
    from_rna = alone.obsm["X_ldvae"][alone.obs_names.get_indexer(names)]
    return Found(shown.obsm["X_ldvae"], seconds, proteins, from_rna)


def _mofa(shown: md.MuData, hidden: NDArray[np.bool_], seed: int) -> Found:
    """Of normalised values, as in muon's tutorials; cells without proteins are its missing ones."""
    import muon as mu

    _normalise(shown["rna"])
    sc.pp.scale(shown["rna"], max_value=10)
    proteins = shown["prot"]
    counts = proteins.X.toarray()
    proteins.X = proteins.X.tocsc()
    mu.prot.pp.clr(proteins)
    proteins.X = proteins.X.toarray()
    with tempfile.TemporaryDirectory() as folder:
        outfile = str(Path(folder) / "mofa.hdf5")
        start = time.perf_counter()
        mu.tl.mofa(shown, n_factors=_N_LATENT, use_obs="union", outfile=outfile, seed=seed, quiet=True)
        seconds = time.perf_counter() - start
    latent = np.asarray(shown.obsm["X_mofa"], dtype=float)
    loadings = np.asarray(shown.varm["LFs"])[shown.var_names.get_indexer(proteins.var_names)]
    # MOFA centres its data; clr is log1p of the counts over their geometric mean. Normal values have no bounds.
    geometric = np.exp(np.log1p(counts).mean(0))
    clr = np.clip(latent @ loadings.T + proteins.X.mean(0), proteins.X.min(0), proteins.X.max(0))
    predicted = geometric * np.expm1(clr)
    # The mean of a normal on the scale of logs is not the mean of the counts.
    predicted *= counts.mean(0) / predicted[~hidden].mean(0)
    return Found(latent, seconds, predicted[hidden], latent)


def _totalvi(shown: md.MuData, hidden: NDArray[np.bool_], seed: int) -> Found:
    """A batch of which no cell has proteins is what it takes for cells without them."""
    import scvi

    scvi.settings.seed = seed
    cells = shown["rna"][shown.obs_names].copy()
    proteins = pd.DataFrame(0.0, index=cells.obs_names, columns=shown["prot"].var_names)
    proteins.loc[shown["prot"].obs_names] = shown["prot"].X.toarray()
    cells.obsm["proteins"], cells.obs["proteins"] = proteins, np.where(hidden, "hidden", "measured")
    scvi.model.TOTALVI.setup_anndata(cells, protein_expression_obsm_key="proteins", batch_key="proteins")
    model = scvi.model.TOTALVI(cells, n_latent=_N_LATENT)
    start = time.perf_counter()
    model.train(enable_progress_bar=False)
    seconds = time.perf_counter() - start
    _, predicted = model.get_normalized_expression(
        cells[hidden], transform_batch="measured", include_protein_background=True, n_samples=25, return_mean=True
    )
    latent = model.get_latent_representation()
    return Found(latent, seconds, np.asarray(predicted), latent)


def _pca(shown: md.MuData, _: NDArray[np.bool_], seed: int) -> Found:
    start = time.perf_counter()
    _normalise(shown["rna"])
    sc.pp.pca(shown["rna"], n_comps=_N_COMPONENTS, random_state=seed)
    latent = shown["rna"].obsm["X_pca"][shown["rna"].obs_names.get_indexer(shown.obs_names)]
    return Found(latent, time.perf_counter() - start, from_rna=latent)


def _normalise(rna: ad.AnnData) -> None:
    sc.pp.normalize_total(rna, target_sum=1e4)
    sc.pp.log1p(rna)


def neighbours(latent: Floats, measured: Floats, hidden: NDArray[np.bool_]) -> Floats:
    """Mean proteins of the nearest cells that have them, for each hidden cell."""
    nearest = NearestNeighbors(n_neighbors=_N_NEIGHBOURS).fit(latent[~hidden]).kneighbors(latent[hidden])[1]
    return measured[~hidden][nearest].mean(1)


def clusters(measured: Floats) -> NDArray[np.str_]:
    """Leiden clusters of all proteins, each in log1p units of its own spread: kinds of cells that no method sees."""
    cells = ad.AnnData(np.log1p(measured))
    sc.pp.scale(cells)
    sc.pp.neighbors(cells, use_rep="X")
    sc.tl.leiden(cells, 0.5, flavor="igraph", n_iterations=2, directed=False)
    return cells.obs["leiden"].to_numpy(dtype=str)


def _scores(predicted: Floats, measured: Floats, hidden: NDArray[np.bool_], how: str) -> dict[str, float]:
    """Of a prediction of the hidden cells' proteins, in counts."""
    shown, counts = measured[~hidden], measured[hidden]
    # By moments: negative binomial variance is mean + mean^2 / theta.
    theta = shown.mean(0) ** 2 / np.maximum(shown.var(0) - shown.mean(0), 1e-3)
    own, null = (_deviance(counts, mean, theta).sum() for mean in (np.maximum(predicted, 1e-3), shown.mean(0)))
    pairs = list(zip(predicted.T, counts.T, strict=True))
    return {
        f"explained{how}": float(1 - own / null),
        f"r{how}": float(np.mean([pearsonr(np.log1p(one), np.log1p(other))[0] for one, other in pairs])),
        f"rho{how}": float(np.mean([spearmanr(one, other)[0] for one, other in pairs])),
    }


def _deviance(counts: Floats, mean: Floats, theta: Floats) -> Floats:
    """Of the negative binomial with dispersions `theta`."""
    return 2 * (xlogy(counts, counts / mean) - (counts + theta) * np.log((counts + theta) / (mean + theta)))
