"""Course of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import get, record
from sc_ldvae.pl._figure import finish, panels, plot

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Data


@plot
def history(
    data: Data,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Plot the ELBO of training and held-out cells against epochs.

    Of a joint fit the two curves lie apart: in each step some training cells show and explain one of their modalities
    alone (`hide_modality` of :func:`sc_ldvae.tl.ldvae`), which are fewer counts; held-out cells explain all they have.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
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
        If there is no such fit.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.pl.history(adata, show=False).get_xlabel()
    'epoch'
    """
    from matplotlib.ticker import MaxNLocator

    frame = get.history(data, key=key, modality=modality)
    axes = panels(1, ax, ncols=1, width=4.2, height=3.2)
    axis = axes[0]
    axis.plot(frame.index, frame["elbo"], color="0.55", label="training")
    best = frame.attrs["best_epoch"]
    if "elbo_held_out" in frame:
        axis.plot(frame.index, frame["elbo_held_out"], color="#b2182b", label="held out")
        value = frame.loc[best, "elbo_held_out"]
        axis.plot([best], [value], "o", color="#b2182b", markersize=5, label=f"best: epoch {best:g}")
    axis.set_xlabel("epoch", fontsize=9)
    axis.set_ylabel("ELBO (nats per cell)", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axis.legend(frameon=False, loc="lower right", fontsize=8)
    axis.grid(visible=False)
    axis.spines[["top", "right"]].set_visible(False)
    drawn = finish(axes, show=show, save=save)
    return None if drawn is None else axis
