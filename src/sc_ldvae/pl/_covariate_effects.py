"""Top genes of each batch and covariate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sc_ldvae import get, record
from sc_ldvae._said import said
from sc_ldvae.assess import signs
from sc_ldvae.inputs import pick_modality
from sc_ldvae.pl._ends import Panel, check_kind, draw
from sc_ldvae.pl._figure import finish, plot
from sc_ldvae.pl._text import shown

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Ax, Data
    from sc_ldvae.pl._ends import Kind


@plot
def covariate_effects(
    data: Data,
    n_genes: int = 10,
    *,
    covariate: str | None = None,
    kind: Kind = "bar",
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    ncols: int = 5,
    ax: Ax | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Plot the genes that batches and covariates raise and lower most.

    Each panel is a level of a categorical covariate, or a continuous covariate. Cells of this level, or with more of
    the covariate, have a higher expression of the red genes above and a lower one of the blue genes below, relative to
    the average gene, to the mean over the levels and at the same latent. All panels have one scale.

    If the fit has standard errors, genes are those whose effects are largest at the least, whiskers are 95 % intervals
    (1.96 errors to both sides), and genes whose q-value is above 0.05 are pale: their sign is not known.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    n_genes
        Number of genes per panel and direction.
    covariate
        Column of obs that was the batch or a covariate; all if None.
    kind
        ``'bar'``; ``'dot'``; or ``'rank'``, all genes as points by the rank of their effect, with the names of those
        at both ends.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    gene_symbols
        Column of `var` with the names to show, as in :func:`sc_ldvae.get.loadings`.
    ncols
        Panels per row.
    ax
        Axes to draw on, one for each level and continuous covariate.
    show
        Show the figure; None follows ``sc.settings.autoshow``.
    save
        File to save the figure to, in an existing folder; its suffix says the format.

    Returns
    -------
    The axes, one per level and continuous covariate, if the figure is not shown.

    Raises
    ------
    ValueError
        If there is no such fit, covariate or kind, if the fit has no covariates, if `n_genes` is below one, or if `ax`
        has another number of axes.

    See Also
    --------
    sc_ldvae.get.covariate_effects : All effects as a table.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, batch_key="batch", max_epochs=2, progress=False)
    >>> [axis.get_title() for axis in sc_ldvae.pl.covariate_effects(adata, 5, show=False)]
    ['batch: batch0', 'batch: batch1']
    """
    check_kind(kind)
    if n_genes < 1:
        msg = f"n_genes must be at least 1, but is {n_genes}."
        raise ValueError(msg)
    adata: Any = pick_modality(data, modality)
    frame = _of_covariate(get.covariate_effects(adata, key=key, gene_symbols=gene_symbols), covariate, key)
    errors = None
    if record.read(adata, key).covariate_effects_se is not None:
        errors = get.covariate_effects_se(adata, key=key, gene_symbols=gene_symbols)
    columns = [frame.columns.get_level_values(part) for part in ("covariate", "level")]
    n_levels = columns[0].value_counts()
    contents = [
        Panel(
            f"{shown(name)}: {shown(level)}" if n_levels[name] > 1 else shown(name),
            f"effect (ln fold change\n{'to the mean of levels' if n_levels[name] > 1 else 'per standard deviation'})",
            frame[name, level],
            _ends(frame[name, level], None if errors is None else errors[name, level], n_genes),
        )
        for name, level in zip(*columns, strict=True)
    ]
    return finish(draw(contents, kind, ncols=ncols, ax=ax), show=show, save=save)


def _of_covariate(frame: pd.DataFrame, covariate: str | None, key: str) -> pd.DataFrame:
    if frame.empty:
        msg = f"uns[{key!r}] has no covariates. Fit with batch_key= or covariates to see their effects."
        raise ValueError(msg)
    if covariate is None:
        return frame
    known = frame.columns.get_level_values("covariate")
    if covariate not in known:
        msg = f"covariate={covariate!r} is none of the fit's: {', '.join(map(said, known.unique()))}."
        raise ValueError(msg)
    return frame.loc[:, known == covariate]


def _ends(values: pd.Series[float], errors: pd.Series[float] | None, n_genes: int) -> pd.DataFrame:
    """The table of :func:`sc_ldvae.get.top_genes` for values that are no loadings."""
    genes = pd.DataFrame({"loading": values})
    doubt: Any = 0
    if errors is not None:
        genes["se"] = errors
        _, genes["qvalue"] = signs(values.to_numpy(), errors.to_numpy())
        doubt = get.HALF_INTERVAL * errors
    parts = []
    for direction, sign in (("positive", 1), ("negative", -1)):
        own = genes[sign * values > 0].assign(direction=direction)
        bounds = (sign * values - doubt)[own.index]
        parts.append(own.loc[bounds.sort_values(ascending=False, kind="stable").index[:n_genes]])
    return pd.concat(parts)
