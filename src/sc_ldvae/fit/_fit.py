"""One fit from counts to canonical factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sc_ldvae.counts import Cells, Counts
from sc_ldvae.fit._canonical import Factors, canonical, evenly
from sc_ldvae.fit._engine import engine_of
from sc_ldvae.fit._loop import History, Schedule, train
from sc_ldvae.fit._start import MAX_CELLS, start_from_data
from sc_ldvae.nn import LDVAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Mask


@dataclass(frozen=True)
class Trained:
    """A trained model in evaluation mode, the cells it was trained among, and how the training went."""

    model: LDVAE
    cells: Cells
    history: History
    stop_reason: str


@dataclass(frozen=True)
class Fitted:
    """Canonical factors, and how the fit went."""

    factors: Factors
    held_out: Mask
    history: History
    stop_reason: str


def fit(
    counts: csr_matrix,
    annotations: Mapping[str, torch.Tensor],
    held_out: Mask,
    options: Mapping[str, Any],
    schedule: Schedule,
    *,
    device: torch.device,
    rng: np.random.Generator,
) -> Fitted:
    """Fit the model to checked counts: train it, and bring its factors into canonical form.

    The arguments are those of `trained`.
    """
    done = trained(counts, annotations, held_out, options, schedule, device=device, rng=rng)
    factors = canonical(done.model, counts, done.cells, held_out, options)
    return Fitted(factors, held_out, done.history, done.stop_reason)


def trained(
    counts: csr_matrix,
    annotations: Mapping[str, torch.Tensor],
    held_out: Mask,
    options: Mapping[str, Any],
    schedule: Schedule,
    *,
    device: torch.device,
    rng: np.random.Generator,
) -> Trained:
    """Train the model on checked counts.

    Parameters
    ----------
    counts
        Canonical float32 counts, n_obs x n_vars, of the genes to fit.
    annotations
        Further arguments of the model's forward, one row per cell; size factors in counts.
    held_out
        Cells that no gradient sees, n_obs.
    options
        Arguments of the model's constructor.
    schedule
        Length, minibatch size, peak learning rate.
    device
        Where to compute.
    rng
        Source of everything random.
    """
    cells = Cells(Counts.from_csr(counts), **annotations)
    model = _started_model(counts, cells, held_out, options, rng).to(device)
    training, others = (torch.as_tensor(np.flatnonzero(mask), device=device) for mask in (~held_out, held_out))
    generator = torch.Generator(device).manual_seed(_seed(rng))
    with engine_of(model, cells.to(device), 1 / len(training)) as engine:
        history, stop_reason = train(model, engine, training, others, schedule, generator)
    return Trained(model, cells, history, stop_reason)


def _started_model(
    counts: csr_matrix, cells: Cells, held_out: Mask, options: Mapping[str, Any], rng: np.random.Generator
) -> LDVAE:
    model = LDVAE(counts.shape[1], **options, generator=torch.Generator().manual_seed(_seed(rng)))
    # Totals of all cells: a batch whose training cells are few still gets a sound prior.
    model.set_library_prior(cells.counts.totals, cells.batch_index)
    start_from_data(model, counts[evenly(np.flatnonzero(~held_out), MAX_CELLS)])
    return model


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
