"""Top genes of each factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import get, record
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._ends import Panel, check_kind, draw
from sc_ldvae.pl._figure import finish, plot
from sc_ldvae.pl._wording import factor_titles, listed, unit_of, vanished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data
    from sc_ldvae.assess import Method
    from sc_ldvae.get import By, Per
    from sc_ldvae.pl._ends import Kind


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

    If the fit has standard errors, whiskers are 95 % intervals (1.96 errors to both sides; cut where they reach far
    beyond the largest loading), and genes whose q-value is above 0.05 are pale: their sign is not known.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    n_genes
        Number of genes per factor and direction.
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
        Modality of a MuData.
    ncols
        Panels per row.
    ax
        Axes to draw on, one for each factor. The legend of pale colours and areas is left out then.
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
    adata = pick_modality(data, modality)
    names = listed(adata, factors, key)
    contents = top_panels(adata, names, n_genes, by=by, rotation=rotation, per=per, log2=log2, key=key)
    if rotation is None:
        explained = get.factors(adata, key=key)["explained_deviance"]
        contents = {
            name: panel._replace(title=f"{panel.title}\n{100 * explained[name]:.1f} % of deviance")
            for name, panel in contents.items()
        }
    note = vanished(adata, factors, key)
    return finish(draw(list(contents.values()), kind, ncols=ncols, ax=ax, note=note), show=show, save=save)


def top_panels(
    adata: AnnData,
    factors: Sequence[str],
    n_genes: int,
    *,
    by: By,
    rotation: Method | None,
    per: Per,
    log2: bool,
    key: str,
) -> dict[str, Panel]:
    """What to draw of each factor, by its name."""
    frame = get.loadings(adata, factors, rotation=rotation, per=per, log2=log2, key=key)
    table = get.top_genes(adata, n_genes, factors=factors, by=by, rotation=rotation, per=per, log2=log2, key=key)
    titles = factor_titles(adata, key, rotation)
    return {
        name: Panel(
            titles[name],
            f"loading ({unit_of(per, log2=log2)})",
            frame[name],
            table[table.index.get_level_values("factor") == name].droplevel("factor"),
        )
        for name in frame.columns
    }
