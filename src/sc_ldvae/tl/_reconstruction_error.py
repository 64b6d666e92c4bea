"""Reconstruction error of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from sc_ldvae._typing import Data, Seed


@door
def reconstruction_error(
    data: Data,
    *,
    n_samples: int = 10,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: inputs.Layer = UNSET,
    rng: Seed = 0,
    key_added: str | None = None,
    progress: bool = True,
) -> float:
    """Minus the expected log-likelihood of the cells' counts under the posterior of latent and library.

    Parameters
    ----------
    data
        Fitted or projected AnnData with raw counts, or MuData with such a `modality` or a joint fit.
    n_samples
        Draws from each cell's posterior.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    layer
        Layer of raw counts, X for None; the layer of the fit by default. Of a joint fit also one for each modality.
    rng
        Seed or generator of the draws.
    key_added
        Column of `obs` that gets the value of each cell; none by default. ``uns['<key>_scores']`` notes its name.
    progress
        Show a progress bar.

    Returns
    -------
    Mean over the cells, in nats; smaller is better.

    Raises
    ------
    ValueError
        As :func:`elbo`.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.reconstruction_error(adata, progress=False) < -sc_ldvae.tl.elbo(adata, progress=False)
    True
    """
    from sc_ldvae import fit

    adata, scorable = inputs.to_score(data, n_samples, key, modality, layer, key_added)
    values = fit.errors_of_cells(scorable.model, scorable.cells, n_samples, inputs.torch_seed(rng), shown=progress)
    return record.write_scores(adata, key_added, values, key)
