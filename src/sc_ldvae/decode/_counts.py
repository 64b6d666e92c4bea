"""Parameters of the distribution of each count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import record
from sc_ldvae.decode._expression import Expression

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats, Positions

# Counts whose parameters are computed at once: some arrays of 8 MB.
_AT_ONCE = 2**20


@dataclass(frozen=True)
class CountDistribution:
    """Distribution of the counts of some of the fitted genes."""

    expression: Expression
    decoder: record.Decoder
    """Its dispersion and zero inflation are those of the genes alone."""

    @classmethod
    def of_genes(cls, decoder: record.Decoder, genes: Positions) -> CountDistribution:
        """The distribution for genes at these positions among those of the fit."""
        log_proportion, log_theta, inflation = decoder.log_proportion, decoder.log_theta, decoder.zero_inflation
        if isinstance(log_theta, record.AffineMap):
            log_theta = _of_genes(log_theta, genes)
        elif log_theta is not None:
            log_theta = log_theta[:, genes]
        if inflation is not None:
            inflation = _of_genes(inflation, genes)
        expression = Expression(log_proportion, genes, np.arange(len(genes)))
        return cls(expression, record.Decoder(log_proportion, log_theta, inflation))

    @property
    def parameter_names(self) -> list[str]:
        """Those that the likelihood has."""
        has = {"theta": self.decoder.log_theta is not None, "zero_inflation": self.decoder.zero_inflation is not None}
        return ["mean", *(name for name, is_there in has.items() if is_there)]

    def parameters(
        self, latent: Floats, design: Floats, library: Floats, groups: NDArray[np.integer[Any]]
    ) -> dict[str, Floats]:
        """Parameters of each count by name, n_obs x genes each.

        Parameters
        ----------
        latent, design, library
            n_obs x n_latent, n_obs x columns and n_obs.
        groups
            Row of the log theta for each cell.
        """
        mean = np.zeros((len(latent), len(self.expression.genes)), dtype=np.float32)
        self.expression.add([latent], [design], library, mean)
        parameters: dict[str, Floats] = {"mean": mean}
        theta = self.decoder.theta(latent, design, groups)
        if theta is not None:
            parameters["theta"] = theta
        if self.decoder.zero_inflation is not None:
            parameters["zero_inflation"] = 1 - np.asarray(self.decoder.not_inflated(latent, design))
        return parameters


def chunks_of(n_obs: int, n_genes: int) -> Iterator[slice]:
    """Cells whose parameters are computed at once, fewer of them the more genes there are."""
    size = max(1, _AT_ONCE // max(1, n_genes))
    for start in range(0, n_obs, size):
        yield slice(start, min(start + size, n_obs))


def _of_genes(part: record.AffineMap, genes: Positions) -> record.AffineMap:
    return record.AffineMap(part.loadings[genes], part.intercept[genes], part.covariate_effects[genes])
