"""Poisson counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae.likelihoods._likelihood import Contrasts, Likelihood
from sc_ldvae.likelihoods._spread import spread_deviances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats


class Poisson(Likelihood):
    """Variance equal to the mean."""

    name = "poisson"

    def start(self, counts: csr_matrix, library: Floats) -> dict[str, Floats]:  # noqa: ARG002  it has no parts
        """Nothing to start."""
        return {}

    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """Twice ``x log(x / m) - x + m``, summed over genes."""
        return spread_deviances(counts, contrasts, None, None)

    def slope(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """``x - m``."""
        return counts.toarray() - mean

    def information(self, counts: csr_matrix, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """The mean."""
        return mean

    def expected_information(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002
        """The mean."""
        return mean

    def draw(
        self,
        mean: Floats,
        natural: Mapping[str, Floats],  # noqa: ARG002  it has no parts
        streams: Sequence[np.random.Generator],
    ) -> NDArray[np.int64]:
        """Counts from the second stream, which other likelihoods draw their counts from, too."""
        return streams[1].poisson(mean)

    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, Floats]:  # noqa: ARG002  it has no parts
        """Nothing beside the mean."""
        return {}
