"""Counts drawn from the posterior, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sc_ldvae._memory import check_memory
from sc_ldvae.decode._counts import chunks_of
from sc_ldvae.decode._expression import draw_latent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Bar, Floats
    from sc_ldvae.decode._counts import CountDistribution
    from sc_ldvae.record import State

_ADVICE = "Ask for fewer draws (n_samples), for some genes only (genes), or for a file (path)."


@dataclass(frozen=True)
class Posteriors:
    """What the counts of cells are drawn from."""

    state: State
    design: Floats
    """n_obs x columns."""
    groups: NDArray[np.int64]
    composition: bool

    def draw(self, counts: CountDistribution, n_left: int, rng: np.random.Generator, bar: Bar) -> csr_matrix:
        """Counts, n_obs x genes: the first of `n_left` draws."""
        parts: list[csr_matrix] = []
        for part in self.blocks(counts, rng, bar):
            parts.append(part)
            if len(parts) == 1:
                n_bytes = (n_left + 1) * 8 * part.nnz * len(self.state) // part.shape[0]
                what = f"{n_left} sparse matrices of {len(self.state)} cells x {part.shape[1]} genes"
                check_memory(n_bytes, what, _ADVICE)
        return sparse.vstack(parts, format="csr")

    def blocks(self, counts: CountDistribution, rng: np.random.Generator, bar: Bar) -> Iterator[csr_matrix]:
        """Counts of some cells after the others, in one draw."""
        # A stream for each step: from one for all, a draw would depend on how many cells are drawn at once.
        of_latent, *streams = map(np.random.default_rng, rng.integers(2**63, size=4))
        for cells in chunks_of(len(self.state), len(counts.expression.genes)):
            state = self.state.rows(cells)
            latent = draw_latent(state, of_latent, composition=self.composition)
            parameters = counts.parameters(latent, self.design[cells], state.library, self.groups[cells])
            yield sparse.csr_matrix(counts.draw(parameters, streams), dtype=np.float32)
            bar.update(len(state))
