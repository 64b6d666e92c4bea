"""Joint fits of simulated modalities: is it said which factor is in which of them; what a joint step costs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax

import sc_ldvae
from benchmarks import tables
from benchmarks.clock import Clock, ClockWatcher
from benchmarks.joint import FILE
from benchmarks.joint import MODALITIES as OF_FILE
from sc_ldvae import fit, inputs
from sc_ldvae.counts import n_minibatches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.runs import Session

# Which factor is in which modality: one in all, three in two, one in each alone.
TRUTH = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
MODALITIES = {"rna": "nb", "prot": "nb", "atac": "bernoulli"}
_N_OBS, _WIDTHS, _TOTALS = 2000, (400, 60, 500), (2000, 1500, 600)
# Modalities after the first are missing in so many cells; share of loadings of genes and peaks that are not zero.
_MISSING, _DENSE = 0.2, 0.4
_SPREAD, _DISPERSION = 0.3, 5.0
_N_LATENT, _N_SIMULATED = len(TRUTH) + 3, 10
# A factor is in the modalities of which it explains at least a tenth of what it does in its first one, each as a share
# of all that the factors explain there.
_LEAST = 0.1
# File, None for simulated cells, and modalities.
_STEPS = {
    "CITE-seq: 4,000 genes, 14 proteins": (FILE, OF_FILE),
    "simulated: 400 genes, 60 proteins, 500 peaks": (None, MODALITIES),
}
_EPOCHS, _REPEATS = 4, 5


def joint_truth(session: Session) -> None:
    """Run what has not been run, then write the tables."""
    found = [
        session.remembered(
            "joint_truth", str(seed), "benchmarks.joint_truth:entries", seed=seed, threads=session.threads
        )
        for seed in range(_N_SIMULATED)
    ]
    table = pd.DataFrame([one for one in found if one is not None])
    n_entries = TRUTH.size * len(table)
    rows = [
        {
            "axes": axes,
            "right": int(table[f"right, {axes}"].sum()),
            "of": n_entries,
            "share": table[f"right, {axes}"].sum() / n_entries,
            "cosines of factors": f"{table[f'cosine, {axes}'].median():.2f}, {table[f'cosine, {axes}'].min():.2f}",
            "left": ", ".join(map(str, sorted(table["left"]))),
        }
        for axes in ("as fitted", "rotated")
    ]
    notes = (
        f"{_N_SIMULATED} simulations of {_N_OBS} cells: {', '.join(map(str, _WIDTHS))} features of {len(_WIDTHS)} "
        f"modalities, {len(TRUTH)} factors in all, two or one of them; a cell lacks each of the latter two modalities "
        f"with probability {_MISSING}; at most {_N_LATENT} factors. A factor is taken to be in a modality if its share "
        f"there, of all that factors explain there, is at least {_LEAST} of its largest. Cosines: correlation with the "
        "true factor of the worst one of each simulation, median and least. Rotated: tl.rotate(mdata, 'modality')."
    )
    tables.write(session, "joint_truth", "Which factor is in which modality", pd.DataFrame(rows), notes)


def simulated(seed: int, n_obs: int = _N_OBS, missing: float = _MISSING) -> tuple[md.MuData, NDArray[np.float64]]:
    """Modalities with their missing cells, and the true factors of all cells, n_obs x factors."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_obs, len(TRUTH)))
    names, modalities = np.array([f"cell{i}" for i in range(n_obs)]), {}
    for i, (name, width, total) in enumerate(zip(MODALITIES, _WIDTHS, _TOTALS, strict=True)):
        loadings = rng.normal(0, 0.7 if name == "atac" else 0.5, (width, len(TRUTH))) * TRUTH[:, i]
        if name != "prot":
            loadings *= rng.random(loadings.shape) < _DENSE
        shares = softmax(z @ loadings.T + rng.normal(size=width), axis=1)
        mean = total * rng.lognormal(0, _SPREAD, (n_obs, 1)) * shares
        if name == "atac":
            counts = rng.poisson(mean).astype(bool)
        else:
            counts = rng.poisson(mean * rng.gamma(_DISPERSION, 1 / _DISPERSION, mean.shape))
        has = (rng.random(n_obs) >= (missing if i else 0)) & (counts.sum(1) > 0)
        genes = pd.DataFrame(index=[f"{name}{j}" for j in range(width)])
        obs = pd.DataFrame(index=names[has])
        modalities[name] = ad.AnnData(sparse.csr_matrix(counts[has], dtype=np.float32), obs, genes)
    return md.MuData(modalities), z


def entries(seed: int, threads: int, n_obs: int = _N_OBS) -> dict[str, float]:
    """How many entries of the table of factors and modalities are right, on the fit's axes and on rotated ones."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    mdata, z = simulated(seed, n_obs)
    sc_ldvae.tl.ldvae(mdata, _N_LATENT, modalities=MODALITIES, rng=seed, progress=False)
    sc_ldvae.tl.rotate(mdata, "modality", key_added="rotated")
    z = z[mdata.obs_names.str.removeprefix("cell").astype(int)]
    result: dict[str, float] = {}
    for axes, key, place in (("as fitted", "ldvae", "X_ldvae"), ("rotated", "rotated", "rotated")):
        shares = sc_ldvae.get.modalities(mdata, key=key)
        numbers = shares.index.str.extract(r"(\d+)$", expand=False).astype(int) - 1
        latent = mdata.obsm[place][:, numbers]
        cosines = np.abs(np.corrcoef(z.T, latent.T)[: len(TRUTH), len(TRUTH) :])
        true, matched = linear_sum_assignment(-cosines)
        relative = (shares / shares.sum()).to_numpy()[matched]
        called = relative >= _LEAST * relative.max(1, keepdims=True)
        result |= {f"right, {axes}": int((called == TRUTH[true]).sum()), "left": len(shares)}
        result[f"cosine, {axes}"] = float(cosines[true, matched].min())
    return result


def joint_step(session: Session) -> None:
    """Write the table of milliseconds per step."""
    rows = []
    for title, (file, modalities) in _STEPS.items():
        path = None if file is None or session.data is None else session.data / file
        if file is not None and (path is None or not path.exists()):
            print(f"{title} is left out: there is no file {file} in the data folder ({session.data}).")
            continue
        request = {"path": None if path is None else str(path), "modalities": modalities, "threads": session.threads}
        result = session.call("benchmarks.joint_truth:steps", **request)
        rows.append({"data": title} | {name: value for name, value in result.items() if name != "process_seconds"})
    notes = (
        f"Milliseconds per training step of {inputs.Options().schedule.batch_size} cells that have all modalities, "
        f"nothing hidden, no prior of the loadings; medians of {_REPEATS} fits of each kind in turn, {_EPOCHS} epochs "
        "each. Alone: the modalities one by one, added up. By default 30 % of the cells show one modality."
    )
    tables.write(session, "joint_step", "One step of a joint fit", pd.DataFrame(rows), notes)


def steps(path: str | None, modalities: dict[str, str], threads: int) -> dict[str, float]:
    """Medians in this process, of the cells of a file or simulated ones."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    mdata = simulated(0, missing=0.0)[0] if path is None else md.read_h5mu(path)
    kinds: dict[str, dict[str, Any]] = {
        "joint": {"modalities": modalities, "hide_modality": 0.0},
        "joint, 30 % hidden": {"modalities": modalities, "hide_modality": 0.3},
    } | {name: {"modality": name, "gene_likelihood": likelihood} for name, likelihood in modalities.items()}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for repeat in range(1 + _REPEATS):
        for name, asked in kinds.items():
            milliseconds = _milliseconds(mdata, **asked)
            # The first one compiles.
            if repeat:
                seconds[name].append(milliseconds)
    found = {name: median(values) for name, values in seconds.items()}
    alone = sum(found.pop(name) for name in modalities)
    return found | {"alone": alone, "joint / alone": found["joint"] / alone}


def _milliseconds(
    mdata: md.MuData,
    modality: str | None = None,
    modalities: dict[str, str] | None = None,
    gene_likelihood: str = "nb",
    hide_modality: float = 0.0,
) -> float:
    """Of a training step, gathering its minibatch included."""
    options = inputs.Options()
    options = options._replace(
        model=replace(options.model, gene_likelihood=gene_likelihood),
        schedule=replace(options.schedule, max_epochs=_EPOCHS, loadings_prior=None),
    )
    asked = inputs.asked_of(mdata, modality, modalities, inputs.ByModality(), options, hide_modality)
    asked.find()
    rng, clock = np.random.default_rng(0), Clock()
    held_out = inputs.split(asked.cells, 0.9, rng)
    fit.fit(asked.request(), held_out, rng, ClockWatcher(clock))
    n_steps = n_minibatches(int((~held_out).sum()), options.schedule.batch_size)
    return 1000 * clock.seconds_per_epoch() / n_steps
