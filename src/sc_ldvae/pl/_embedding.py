"""Where each factor is high and low among the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import get, record
from sc_ldvae.inputs import fitted_of
from sc_ldvae.pl._figure import add_note, finish, panels, plot
from sc_ldvae.pl._maps import add_color_bar, draw_maps
from sc_ldvae.pl._places import Places
from sc_ldvae.pl._wording import factor_titles, listed, vanished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data

# Inches: a map, what stands around it, and the colour bar.
_MAP, _AROUND, _COLOR_BAR = 2.4, 0.35, 1.8


@plot
def embedding(
    data: Data,
    factors: Sequence[int | str] | int | str | None = None,
    *,
    basis: str | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    ncols: int = 4,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot the cells of an embedding, coloured by each factor.

    All panels have the same colours, as in :func:`factors`: symmetric around zero, they end at the 99th percentile of
    the absolute values shown. Cells with values far from zero lie on top.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    basis
        Entry of `obsm` whose first two columns place the cells, as in ``sc.pl.embedding``: ``'umap'`` or ``'X_umap'``.
        By default UMAP, else t-SNE, else the first two factors. Of a joint fit, of the MuData, or else of its first
        modality that has it, whose cells are shown.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    ncols
        Panels per row.
    ax
        Axes to draw on, one for each factor.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The axes, one per factor, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit or factor, if a factor is named twice, if `basis` is not in `obsm` or has less than two
        columns, if cells have no latent, or if `ax` has another number of axes.

    See Also
    --------
    factors : The same beside the genes of each factor.
    latent : Factors by group of cells.
    sc_ldvae.get.latent : The values that are shown.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> adata.obsm["X_umap"] = adata.obsm["X_ldvae"][:, 1:]  # or sc.pp.neighbors(adata, use_rep="X_ldvae"), sc.tl.umap
    >>> [axis.get_title() for axis in sc_ldvae.pl.embedding(adata, [1, 3], show=False)]
    ['Factor 1', 'Factor 3']
    """
    whose, stored = fitted_of(data, key, modality)
    names = listed(stored, factors)
    frame = get.latent(data, key=key, modality=modality)
    cells = Places.of(whose, basis, frame.to_numpy())
    axes = panels(len(names), ax, ncols=ncols, width=_MAP + _AROUND, height=_MAP + _AROUND)
    points = draw_maps(axes, cells, frame[names].to_numpy(), _MAP)
    titles = factor_titles(stored, None)
    for axis, name in zip(axes, names, strict=True):
        axis.set_title(titles[name], fontsize=9)
    if ax is None:
        for axis in axes[:-ncols]:
            axis.set(xlabel="", ylabel="")
        add_note(axes[0], vanished(stored, factors))
    add_color_bar(axes, points, _COLOR_BAR, "value of the factor")
    return finish(axes, show=show, save=save)
