"""How much of each modality the factors of a joint fit explain, as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.get._per_modality import shares_by_modality
from sc_ldvae.inputs import is_mudata

if TYPE_CHECKING:
    import pandas as pd

    from sc_ldvae._typing import Data


@door
def modalities(data: Data, *, key: str = record.DEFAULT) -> pd.DataFrame:
    """How much of each modality each factor of a joint fit explains, as the fit measured it.

    It tells factors that modalities share from those of one alone. :func:`sc_ldvae.tl.explained_deviance` measures the
    same on other cells or on thinned counts.

    Parameters
    ----------
    data
        MuData with a joint fit.
    key
        The `key_added` of the fit.

    Returns
    -------
    Factors that have not vanished x modalities: the factor's share of what is explained of the modality's deviance, on
    held-out cells. ``attrs['total']`` has what the whole model explains, by modality.

    Raises
    ------
    TypeError
        If `data` is no MuData.
    ValueError
        If there is no such fit.

    See Also
    --------
    sc_ldvae.pl.modalities : Plot the table.

    Examples
    --------
    >>> import mudata, sc_ldvae
    >>> rna, prot = (sc_ldvae.datasets.simulate(n_obs=200, n_vars=n, n_latent=3) for n in (50, 20))
    >>> prot.var_names = "protein" + prot.var_names.str.removeprefix("gene")
    >>> mdata = mudata.MuData({"rna": rna, "prot": prot})
    >>> sc_ldvae.tl.ldvae(mdata, n_latent=3, modalities=["rna", "prot"], max_epochs=2, progress=False)
    >>> sc_ldvae.get.modalities(mdata).columns.tolist()
    ['rna', 'prot']
    """
    if not is_mudata(data):
        msg = f"data is a {type(data).__name__}, but a fit of several modalities stands in a MuData. Pass that."
        raise TypeError(msg)
    stored = record.read_joint(data, key)
    views = stored.views.values()
    shares, totals = zip(*((view.explained_deviance, view.total_explained_deviance) for view in views), strict=True)
    return shares_by_modality(stored, stored.modalities, np.array(shares), totals)
