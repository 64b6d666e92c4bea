"""Numbers of factors that were compared, as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.inputs import is_mudata, pick_modality

if TYPE_CHECKING:
    from sc_ldvae._typing import Data

# Files do not keep their order.
_COLUMNS = ("elbo", "elbo_behind", "elbo_behind_se", "explained_deviance", "stability", "n_stable", "n_active")


@door
def n_latent(data: Data, *, key_added: str = "ldvae_n_latent", modality: str | None = None) -> pd.DataFrame:
    """What :func:`sc_ldvae.tl.select_n_latent` found for each number of factors.

    Parameters
    ----------
    data
        AnnData with such a result, or MuData with such a `modality` or with one of several modalities together.
    key_added
        The `key_added` of the result.
    modality
        Modality of a MuData; None for a result of several together.

    Returns
    -------
    One row per number of factors, indexed by it, with `elbo` (of held-out halves, in nats per cell), `elbo_behind` and
    `elbo_behind_se` (how far behind the best, and the standard error of that), `explained_deviance` (of held-out
    halves), `stability` (mean cosine between the matched factors of two halves), `n_stable` and `n_active` (numbers of
    factors that come back, and that vary over the cells). ``attrs`` holds the number that is `recommended`, and the
    `reason`.

    Raises
    ------
    ValueError
        If there is no such result.

    See Also
    --------
    sc_ldvae.pl.n_latent : Plot the result.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=400, n_vars=60, n_latent=2)
    >>> sc_ldvae.tl.select_n_latent(adata, [1, 2, 4], n_seeds=1, max_epochs=30, progress=False)
    >>> frame = sc_ldvae.get.n_latent(adata)
    >>> frame.index.tolist(), frame.attrs["recommended"]
    ([1, 2, 4], 2)
    """
    parts = ("n_latent", *_COLUMNS, "recommended", "reason")
    # It needs no fit beside it, but where there is a joint one, nobody looks for it in a modality.
    of_several = modality is None and is_mudata(data) and (key_added in data.uns or record.joint_fits_in(data))
    shown = data if of_several else pick_modality(data, modality)
    stored = record.read_result(shown, key_added, "select_n_latent", parts)
    index = pd.Index(np.atleast_1d(stored["n_latent"]), name="n_latent")
    frame = pd.DataFrame({column: np.atleast_1d(stored[column]) for column in _COLUMNS}, index=index)
    frame.attrs |= {name: stored[name].item() for name in ("recommended", "reason")}
    return frame
