"""Which modalities each factor of a joint fit explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import get, record
from sc_ldvae.pl._figure import finish, panels, plot
from sc_ldvae.pl._share_map import GAP, WIDTH_PER_FACTOR, WIDTH_PER_LETTER, draw_share_map
from sc_ldvae.pl._text import letters, shown
from sc_ldvae.pl._wording import judged_by, of_the_fit

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Data

# Inches.
_AROUND_WIDTH, _AROUND_HEIGHT, _ROW, _LEAST_WIDTH = 0.6, 1.0, 0.26, 3.0


@plot
def modalities(
    data: Data,
    *,
    key: str = record.DEFAULT,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Plot how much of each modality each factor of a joint fit explains, as a heat map.

    Rows are modalities, columns factors; the last column is what all factors explain together. Each row has a scale of
    its own: that of the factor that explains most of the modality, for a few proteins are explained better than
    thousands of genes. A factor with colour in several rows is shared.

    Parameters
    ----------
    data
        MuData with a joint fit.
    key
        The `key_added` of the fit.
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
    TypeError
        If `data` is no MuData.
    ValueError
        If there is no such fit.

    See Also
    --------
    sc_ldvae.get.modalities : The same as a table.

    Examples
    --------
    >>> import mudata, sc_ldvae
    >>> rna, prot = (sc_ldvae.datasets.simulate(n_obs=200, n_vars=n, n_latent=3) for n in (50, 20))
    >>> prot.var_names = "protein" + prot.var_names.str.removeprefix("gene")
    >>> mdata = mudata.MuData({"rna": rna, "prot": prot})
    >>> sc_ldvae.tl.ldvae(mdata, n_latent=3, modalities=["rna", "prot"], max_epochs=2, progress=False)
    >>> axis = sc_ldvae.pl.modalities(mdata, show=False)
    >>> [label.get_text() for label in axis.get_yticklabels()]
    ['rna', 'prot']
    """
    frame = get.modalities(data, key=key)
    cells = judged_by(of_the_fit(data, record.read_joint(data, key)))
    width = _AROUND_WIDTH + WIDTH_PER_LETTER * letters(frame) + WIDTH_PER_FACTOR * (len(frame) + 1 + GAP)
    height = _AROUND_HEIGHT + _ROW * frame.shape[1]
    axis = panels(1, ax, ncols=1, width=max(_LEAST_WIDTH, width), height=height)[0]
    totals = [frame.attrs["total"][name] for name in frame]
    draw_share_map(
        axis, frame.T, totals, list(map(shown, frame)), f"explained deviance (%)\n{cells}, colours by row", by_row=True
    )
    return None if finish([axis], show=show, save=save) is None else axis
