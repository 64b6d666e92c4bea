"""How well each gene is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats
    from sc_ldvae.record import Decoder


def gene_information(decoder: Decoder, library: float) -> Floats:
    """Expected Fisher information of one average cell about each gene's log expression, n_genes.

    With mean count m and inverse dispersion theta it is ``m / (1 + m / theta)`` for a negative binomial, m for Poisson,
    and less for whether there is any count. It weighs genes wherever loadings are compared: a rare gene's loading is
    mostly noise.

    Parameters
    ----------
    decoder
        Canonical: its intercepts are log proportions, or without a library log expression.
    library
        Mean library of the cells.
    """
    expression = library * np.exp(decoder.log_proportion.intercept.astype(np.float64))
    return decoder.likelihood.expected_information(expression, decoder.typical())
