"""Parameters of the distribution of each count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.decode._expression import Expression

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.record import Decoder

# Counts whose parameters are computed at once: some arrays of 8 MB.
_AT_ONCE = 2**20


@dataclass(frozen=True)
class CountDistribution:
    """Distribution of the counts of some of the fitted genes."""

    expression: Expression
    decoder: Decoder
    """Its parts are those of the genes alone."""

    @classmethod
    def of_genes(cls, decoder: Decoder, genes: Positions) -> CountDistribution:
        """The distribution for genes at these positions among those of the fit."""
        return cls(Expression(decoder, genes, np.arange(len(genes))), decoder.of_genes(genes))

    @property
    def parameter_names(self) -> list[str]:
        """Those that the likelihood has."""
        return ["mean", *(part.shown for part in self.decoder.likelihood.parts)]

    def parameters(
        self, latent: Floats, design: Floats, library: Floats, groups: NDArray[np.integer[Any]]
    ) -> dict[str, Floats]:
        """Parameters of each count by name, n_obs x genes each.

        Parameters
        ----------
        latent, design, library
            n_obs x n_latent, n_obs x columns and n_obs.
        groups
            Group of each cell, for parts of the likelihood with one value per group.
        """
        expression = np.zeros((len(latent), len(self.expression.genes)), dtype=np.float32)
        self.expression.add([latent], [design], library, expression)
        natural = self.decoder.natural(self.decoder.linear(latent, design, groups))
        return {"mean": self.decoder.likelihood.mean(expression, natural)} | natural

    def draw(self, parameters: Mapping[str, Floats], streams: Sequence[np.random.Generator]) -> NDArray[np.int64]:
        """Counts with such parameters, n_obs x genes; each step of a draw has a stream of its own, of three."""
        try:
            with np.errstate(all="ignore"):
                return self.decoder.likelihood.draw(parameters["mean"], parameters, streams)
        except ValueError as error:
            # NumPy's, for rates that are missing, infinite or too large for its integers.
            msg = (
                f"Counts can't be drawn from means up to {parameters['mean'].max():.4g}: they are beyond the largest "
                "integer, or no numbers. Did the fit diverge, or is a cell's library far from all others?"
            )
            raise FloatingPointError(msg) from error


def chunks_of(n_obs: int, n_genes: int) -> Iterator[slice]:
    """Cells whose parameters are computed at once, fewer of them the more genes there are."""
    size = max(1, _AT_ONCE // max(1, n_genes))
    for start in range(0, n_obs, size):
        yield slice(start, min(start + size, n_obs))
