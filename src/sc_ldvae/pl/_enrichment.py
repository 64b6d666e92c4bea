"""The gene sets that the factors are enriched in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import get, record
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._dots import draw_dots, new_axes
from sc_ldvae.pl._ends import Q, area_of, q_dots
from sc_ldvae.pl._figure import finish, legend_below, plot
from sc_ldvae.pl._heat_map import by_factor
from sc_ldvae.pl._maps import add_color_bar, diverging, limit_of
from sc_ldvae.pl._wording import factor_numbers, listed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Data

_RING = "0.1"
# Inches: the colour bar, and what it takes of the width.
_BAR, _BESIDE = 1.2, 0.9


@plot
def enrichment(
    data: Data,
    n_sources: int = 5,
    *,
    factors: Sequence[int | str] | int | str | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Plot the gene sets, pathways or regulons in which the factors are enriched most.

    Colours are scores: red where cells high in the factor express the targets more, blue where they express them less.
    They are symmetric around zero and end at the 99th percentile of the absolute values shown. Areas say how small the
    q-value is, and a ring that it is at most 0.05; genes of one set are not independent, so take that for an order.
    Each source stands with the factor of its most extreme score.

    Parameters
    ----------
    data
        AnnData with a result of :func:`sc_ldvae.tl.enrichment`, or MuData with such a `modality`.
    n_sources
        Number of sources per factor, those with the largest absolute scores. They are shown for all factors.
    factors
        Factors by number from 1 or by name; all that were computed if None.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    key_added
        The `key_added` of the enrichment, by default ``'<key>_enrichment'``.
    ax
        Axes to draw on.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The axes, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit, result or factor, if a factor is named twice, or if `n_sources` is below one.

    See Also
    --------
    sc_ldvae.get.enrichment : The result as a frame.

    Examples
    --------
    >>> import pandas as pd, sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> net = pd.DataFrame({"source": "set", "target": adata.var_names[:10]})
    >>> sc_ldvae.tl.enrichment(adata, net)
    >>> axis = sc_ldvae.pl.enrichment(adata, show=False)
    >>> [label.get_text() for label in axis.get_yticklabels()]
    ['set']
    """
    from matplotlib.lines import Line2D

    if n_sources < 1:
        msg = f"n_sources must be at least 1, but is {n_sources}."
        raise ValueError(msg)
    stored = record.read(pick_modality(data, modality), key)
    asked = None if factors is None else listed(stored, factors)
    table = get.enrichment(data, asked, key=key, modality=modality, key_added=key_added)
    names = table.index.unique("factor").tolist() if asked is None else asked
    chosen = table.groupby("factor").head(n_sources).index.unique("source")
    scores, qvalues = (table[name].unstack("factor").loc[chosen, names] for name in ("score", "qvalue"))
    scores = by_factor(scores)
    qvalues = qvalues.loc[scores.index]
    axis = new_axes(scores.index, len(names), ax, beside=_BESIDE)
    limit = limit_of(scores.to_numpy())
    dots = draw_dots(
        axis,
        qvalues.apply(area_of),
        factor_numbers(stored, names),
        c=scores.to_numpy().ravel(),
        cmap=diverging(),
        vmin=-limit,
        vmax=limit,
        edgecolors=np.where(qvalues.to_numpy().ravel() <= Q, _RING, "none"),
        linewidths=0.7,
    )
    add_color_bar([axis], dots, _BAR, "score")
    if ax is None:
        ring = Line2D([], [], color="none", marker="o", markersize=6, markeredgecolor=_RING, label=f"q ≤ {Q}")
        legend_below(axis, [ring, *q_dots()])
    return None if finish([axis], show=show, save=save) is None else axis
