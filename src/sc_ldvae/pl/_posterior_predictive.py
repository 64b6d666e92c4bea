"""Drawn counts beside the observed ones."""

from __future__ import annotations

from itertools import count, takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_ldvae import record
from sc_ldvae._typing import UNSET
from sc_ldvae.counts import in_chunks
from sc_ldvae.inputs import fitted_counts, pick_modality
from sc_ldvae.pl._figure import finish, panels, plot
from sc_ldvae.stores import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data, Floats, Unset
    from sc_ldvae.counts import Source

SAMPLES = "posterior_predictive"
_OBSERVED, _PREDICTED = "0.5", "#b2182b"
_N_BINS = 40
# Of the histogram's height: above the highest bar stands the legend.
_HEADROOM = 1.12
# Cells that are summed at once.
_AT_ONCE = 4096


class _Summary(NamedTuple):
    """What the panels show of counts."""

    shares_of_zeros: Floats
    means: Floats
    variances: Floats
    """Of each gene, n_genes."""
    totals: Floats
    """Of each cell, n_obs."""

    @classmethod
    def of(cls, source: Source, *, thresholded: bool) -> _Summary:
        """From one pass over the cells; if `thresholded`, a count is one at most."""
        nonzeros, sums, squares = np.zeros((3, source.n_vars))
        totals = source.totals.copy()
        for own, counts in in_chunks(source, np.arange(source.n_obs), _AT_ONCE):
            values = counts.data.astype(np.float64)
            if thresholded:
                values = np.sign(values)
                totals[own] = np.diff(counts.indptr)
            nonzeros += np.bincount(counts.indices, minlength=source.n_vars)
            sums += np.bincount(counts.indices, values, source.n_vars)
            squares += np.bincount(counts.indices, values**2, source.n_vars)
        means = sums / source.n_obs
        return cls(1 - nonzeros / source.n_obs, means, squares / source.n_obs - means**2, totals)


@plot
def posterior_predictive(
    data: Data,
    samples: str = SAMPLES,
    *,
    layer: str | Unset | None = UNSET,
    key: str = record.DEFAULT,
    modality: str | None = None,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot counts drawn from the fitted model beside the observed counts of the fitted genes.

    A model that fits draws counts like the observed ones. Three panels show whether it does: the share of zeros of each
    gene; variance against mean of each gene, on or above the line of a Poisson distribution; and the total counts of
    the cells. With ``gene_likelihood='bernoulli'`` counts are taken as it sees them, one at most, below that line.

    Parameters
    ----------
    data
        Fitted AnnData with raw counts, or MuData with such a `modality`.
    samples
        The `key_added` of :func:`sc_ldvae.tl.posterior_predictive`, with all `genes`. Of several draws, which are the
        layers ``f"{samples}_1"`` and so on, gene-wise values are means over the draws.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    ax
        Axes to draw on, three.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The three axes, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit, if the drawn or the observed counts are missing, or if `ax` has another number of axes.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.posterior_predictive(adata, key_added="posterior_predictive", progress=False)
    >>> axes = sc_ldvae.pl.posterior_predictive(adata, show=False)
    >>> len(axes)
    3
    """
    adata = pick_modality(data, modality)
    stored = record.read(adata, key)
    source, genes = fitted_counts(adata, stored, layer), stored.positions_in(adata.var_names)
    layers = _layers(adata, samples)
    thresholded = stored.decoder.likelihood.thresholded
    drawn = [
        _Summary.of(source_of(adata.layers[name], f"layers[{name!r}]", genes), thresholded=thresholded)
        for name in layers
    ]
    observed = _Summary.of(source, thresholded=thresholded)
    axes = panels(3, ax, ncols=3, width=3.2, height=3.1)
    _draw_zeros(axes[0], observed, drawn)
    _draw_variances(axes[1], observed, drawn, thresholded=thresholded)
    _draw_totals(axes[2], observed, drawn)
    for axis in axes:
        axis.xaxis.label.set_fontsize(9)
        axis.yaxis.label.set_fontsize(9)
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
        axis.grid(visible=False)
        axis.spines[["top", "right"]].set_visible(False)
    return finish(axes, show=show, save=save)


def _layers(adata: AnnData, samples: str) -> list[str]:
    """The layer of the only draw, or those of several."""
    if samples in adata.layers:
        return [samples]
    names = list(takewhile(adata.layers.__contains__, (f"{samples}_{i}" for i in count(1))))
    if not names:
        msg = (
            f"samples={samples!r} names no drawn counts: there is neither layers[{samples!r}] nor "
            f"layers['{samples}_1']. Draw some with sc_ldvae.tl.posterior_predictive(data, key_added={samples!r})."
        )
        raise ValueError(msg)
    return names


def _draw_zeros(axis: Axes, observed: _Summary, drawn: Sequence[_Summary]) -> None:
    predicted = np.mean([one.shares_of_zeros for one in drawn], axis=0)
    axis.axline((0, 0), slope=1, color="0.3", linewidth=0.8)
    axis.scatter(observed.shares_of_zeros, predicted, s=5, color=_PREDICTED, linewidths=0, rasterized=True)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), box_aspect=1, title="share of zeros per gene")
    axis.set(xlabel="observed", ylabel="predicted")


def _draw_variances(axis: Axes, observed: _Summary, drawn: Sequence[_Summary], *, thresholded: bool) -> None:
    own, predicted = (
        (observed.means, observed.variances),
        np.mean([(one.means, one.variances) for one in drawn], axis=0),
    )
    for (means, variances), color, label in ((own, _OBSERVED, "observed"), (predicted, _PREDICTED, "predicted")):
        # What is zero has no place on a logarithmic axis.
        shown = variances > 0
        axis.scatter(
            means[shown], variances[shown], s=5, color=color, linewidths=0, alpha=0.5, label=label, rasterized=True
        )
    axis.set(xscale="log", yscale="log", title="variance of a gene", xlabel="mean count", ylabel="variance")
    axis.axline((1, 1), (2, 2), color="0.3", linewidth=0.8, label="Poisson")
    # Counts vary more than a Poisson distribution, not less: nothing lies below its line. Zeros and ones vary less.
    axis.legend(frameon=False, loc="upper left" if thresholded else "lower right", fontsize=8, markerscale=2)


def _draw_totals(axis: Axes, observed: _Summary, drawn: Sequence[_Summary]) -> None:
    own, predicted = observed.totals, np.concatenate([one.totals for one in drawn])
    every = np.concatenate([own, predicted])
    positive = every[every > 0]
    bins = np.geomspace(positive.min(), positive.max(), _N_BINS + 1).tolist()
    axis.hist(own, bins, weights=np.full(len(own), 1 / len(own)), color="0.75", label="observed")
    weights = np.full(len(predicted), 1 / len(predicted))
    axis.hist(predicted, bins, weights=weights, histtype="step", color=_PREDICTED, label="predicted")
    axis.set(xscale="log", title="total counts of a cell", xlabel="counts over fitted genes", ylabel="share of cells")
    axis.set_ylim(top=_HEADROOM * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper center", ncols=2, fontsize=8)
