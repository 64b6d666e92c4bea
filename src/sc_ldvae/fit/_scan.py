"""Several numbers of factors, each fitted to both halves of the cells and judged by the other half."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_ldvae import assess
from sc_ldvae.engine import scorer_of
from sc_ldvae.fit._canonical import as_decoded
from sc_ldvae.fit._fit import trained
from sc_ldvae.fit._fold import canonical_decoder
from sc_ldvae.fit._resample import halves
from sc_ldvae.fit._scores import elbo_terms, posterior
from sc_ldvae.nn import undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Bar, Floats
    from sc_ldvae.fit._request import Request
    from sc_ldvae.fit._resample import Resampled

# Variance over the cells of the posterior mean of a factor that is in use.
_ACTIVE = 0.01
_DRAWS = 5


class _Verdict(NamedTuple):
    """What a fit to a half of the cells says of the other half."""

    elbo: Floats
    """Of each held-out cell."""
    explained_deviance: float
    n_active: int
    directions: Floats
    """n_genes x n_latent."""


def scan(request: Request, grid: Sequence[int], strata: np.ndarray, rng: np.random.Generator, bar: Bar) -> assess.Scan:
    """Fit every number of factors to both halves of one split, each with half of every stratum (n_obs)."""
    samples = halves(strata, rng)
    elbo, deviance, active, cosines = np.empty((len(grid), len(strata))), [], [], []
    for row, n_latent in enumerate(grid):
        pair = []
        for sample in samples:
            verdict = _verdict(request, n_latent, sample, rng)
            elbo[row, sample.others] = verdict.elbo
            pair.append(verdict)
            bar.update()
        cosines.append(np.abs(assess.matched(pair[0].directions, pair[1].directions)[1]))
        deviance.append(np.mean([one.explained_deviance for one in pair]))
        active.append(np.mean([one.n_active for one in pair]))
    return assess.Scan(elbo, np.array(deviance), cosines, np.array(active))


def of_sample(request: Request, sample: Resampled) -> tuple[Request, np.ndarray]:
    """The request for a sample of the cells, and which of its cells are held out."""
    positions = np.concatenate(sample)
    return replace(request, cells=request.cells.subset(positions)), np.arange(len(positions)) >= len(sample.training)


@undisturbed(torch.device("cpu"))
def _verdict(request: Request, n_latent: int, sample: Resampled, rng: np.random.Generator) -> _Verdict:
    asked, held_out = of_sample(replace(request, options=replace(request.options, n_latent=n_latent)), sample)
    model = trained(asked, held_out, rng).model
    with scorer_of(model) as scorer:
        generator, others = torch.Generator(scorer.device).manual_seed(0), np.flatnonzero(held_out)
        terms = elbo_terms(scorer, asked.cells, others, generator, _DRAWS)
        draws = [one.per_cell() for one in terms]
        state = posterior(model, scorer, asked.cells, np.arange(asked.cells.n_obs))
    explained, loadings, information, shares = [], [], [], []
    for place, (view, own) in enumerate(zip(model.views, asked.cells.views(model.widths), strict=True)):
        decoder = canonical_decoder(view)
        decoded = as_decoded(view, own.cells, state.of_view(own.places, place))
        found = assess.deviance_on_held_out(decoder, decoded.source, decoded.rows, held_out[own.places])
        explained.append(found)
        shares.append(len(own.places) / len(held_out))
        loadings.append(decoder.log_proportion.loadings)
        information.append(shares[-1] * assess.gene_information(decoder, float(decoded.library.mean())))
    softmaxes = assess.softmaxes(loadings, [view.has_library for view in model.views])
    return _Verdict(
        torch.stack(draws).mean(0).numpy(),
        assess.together(explained, shares).total,
        int((state.latent.astype(np.float64)[held_out].var(0) > _ACTIVE).sum()),
        assess.directions(np.vstack(loadings), np.concatenate(information), softmaxes),
    )
