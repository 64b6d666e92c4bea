"""Top genes of each factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sc_ldvae import record
from sc_ldvae.inputs import fitted_of
from sc_ldvae.pl._ends import check_kind, draw
from sc_ldvae.pl._figure import finish, plot
from sc_ldvae.pl._top_panels import shares_by_modality, top_panels
from sc_ldvae.pl._wording import listed, vanished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data
    from sc_ldvae.assess import Method
    from sc_ldvae.get import By, Per, Shown
    from sc_ldvae.pl._ends import Kind, Panel


@plot
def loadings(
    data: Data,
    factors: Sequence[int | str] | int | str | None = None,
    n_genes: int = 10,
    *,
    kind: Kind = "bar",
    by: By = "bound",
    rotation: Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    genes: Shown = "all",
    ncols: int = 5,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot the genes with the largest and the smallest loadings of each factor.

    Each panel is a factor. Its genes stand in the order of their loadings: the more of the factor a cell has, the
    higher the expression of the red genes above and the lower that of the blue genes below, relative to the average
    gene. All panels have one scale. The title gives the share of the held-out deviance that the factor explains; of a
    factor that is rotated here this is not known.

    Of a joint fit, each factor has a panel for each modality, side by side. Those of one modality have one scale, and
    shares are of its deviance.

    If the fit has standard errors, whiskers are 95 % intervals (1.96 errors to both sides; cut where they reach far
    beyond the largest loading), and genes whose q-value is above 0.05 are pale: their sign is not known.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    n_genes
        Number of genes per factor and direction, of a joint fit in each modality.
    kind
        ``'bar'``; ``'dot'``, with areas by -log10 of the q-value down to 1e-10, if it is known; or ``'rank'``, all
        genes as points by the rank of their loading, with the names of those at both ends.
    by
        Choose genes by what their loading is at least (``'bound'``), if the fit has errors, or by the loading itself
        (``'loading'``), as :func:`sc_ldvae.get.top_genes` does.
    rotation, per, log2
        Factors and unit, as in :func:`sc_ldvae.get.loadings`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    gene_symbols
        Column of `var` with the names to show, as in :func:`sc_ldvae.get.loadings`.
    genes
        Choose among ``'all'`` genes with loadings, or those of the fit alone (``'fitted'``). Names of genes outside of
        the fit, which :func:`sc_ldvae.tl.extend` gave loadings, are in italics beside bars and dots.
    ncols
        Panels per row; of a joint fit all of one factor stand in one row, whatever their number.
    ax
        Axes to draw on, one for each panel. The legend of pale colours and areas is left out then.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The axes, if the figure is not shown: one per factor, of a joint fit one per factor and modality.

    Raises
    ------
    ValueError
        If there is no such fit, factor, kind, order of genes (`by`), rotation or unit, if a factor is named twice, if
        `n_genes` is below one, or if `ax` has another number of axes.

    See Also
    --------
    sc_ldvae.get.top_genes : The same genes as a table.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> axes = sc_ldvae.pl.loadings(adata, [1, 2], n_genes=5, show=False)
    >>> len(axes)
    2
    """
    check_kind(kind)
    whose, stored = fitted_of(data, key, modality)
    names = listed(stored, factors)
    where: Any = {"key": key, "modality": modality, "gene_symbols": gene_symbols, "genes": genes}
    chosen = top_panels(data, stored, names, n_genes, by=by, rotation=rotation, per=per, log2=log2, **where)
    if rotation is None:
        shares = shares_by_modality(whose, stored, key)
        chosen = {name: [_entitled(panel, shares[panel.modality][name]) for panel in chosen[name]] for name in names}
    per_factor = len(chosen[names[0]])
    contents = [panel for name in names for panel in chosen[name]]
    axes = draw(contents, kind, ncols=per_factor * max(1, ncols // per_factor), ax=ax, note=vanished(stored, factors))
    return finish(axes, show=show, save=save)


def _entitled(panel: Panel, share: float) -> Panel:
    return panel._replace(title=f"{panel.title}\n{100 * share:z.1f} % of deviance")
