"""Normalised expression of many cells, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from sc_ldvae._memory import check_memory
from sc_ldvae.decode._expression import CHUNK, Expression, draw_latent
from sc_ldvae.decode._factors import with_factors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Bar, Floats, Positions
    from sc_ldvae.record import Record, State

_ADVICE = "Ask for some genes only (genes), for small values to be left out (threshold), or for a file (path)."
_FEWER = "Ask for fewer draws (n_samples)."


class GeneColumns(NamedTuple):
    """Where genes of the fit stand in a result."""

    genes: Positions
    """Positions among those of the fit."""
    places: Positions
    """Their columns."""
    width: int
    """Number of columns."""

    @property
    def others(self) -> Positions:
        """Columns that have none of them."""
        return np.setdiff1d(np.arange(self.width), self.places)


@dataclass(frozen=True)
class Normalized:
    """A request for normalised expression, and what answers it."""

    stored: Record
    state: State
    designs: Callable[[slice], Sequence[Floats]]
    """Settings of the covariates of some of the cells, whose mean is taken."""
    factor_values: Mapping[int, float]
    """Factors that are set."""
    scale: Floats
    """What the proportions of each cell are multiplied by, n_obs."""
    n_samples: int | None
    rng: np.random.Generator

    def dense(self, asked: GeneColumns, bar: Bar) -> Floats:
        """Values of all cells, n_obs x width; NaN where there is no gene that was asked for."""
        n_bytes = len(self.state) * asked.width * 4
        check_memory(n_bytes, f"A dense array of {len(self.state)} cells x {asked.width} genes", _ADVICE)
        values = np.zeros((len(self.state), asked.width), dtype=np.float32)
        values[:, asked.others] = np.nan
        for cells in self._chunks(bar):
            self._add(cells, asked, values[cells])
        return values

    def sparse(self, asked: GeneColumns, threshold: float, bar: Bar) -> csr_matrix:
        """The same without values below a threshold; NaN for other genes would not be sparse."""
        parts: list[csr_matrix] = []
        for part in self.blocks(asked, threshold, bar):
            parts.append(part)
            if len(parts) == 1:
                n_bytes = part.nnz * 16 * len(self.state) // part.shape[0]
                what = f"A sparse matrix of {len(self.state)} cells x {len(asked.genes)} genes"
                check_memory(n_bytes, what, _ADVICE)
        return sparse.vstack(parts, format="csr")

    def blocks(self, asked: GeneColumns, threshold: float | None, bar: Bar) -> Iterator[Any]:
        """Values of some cells after the others: arrays, or with a threshold sparse matrices."""
        for cells in self._chunks(bar):
            values = np.zeros((cells.stop - cells.start, asked.width), dtype=np.float32)
            self._add(cells, asked, values)
            if threshold is None:
                yield values
            else:
                values[values < threshold] = 0
                yield sparse.csr_matrix(values)

    def _chunks(self, bar: Bar) -> Iterator[slice]:
        for start in range(0, len(self.state), CHUNK):
            cells = slice(start, min(start + CHUNK, len(self.state)))
            yield cells
            bar.update(cells.stop - cells.start)

    def _add(self, cells: slice, asked: GeneColumns, out: Floats) -> None:
        state, composition = self.state.rows(cells), self.stored.composition
        latents = [state.latent]
        if self.n_samples is not None:
            n_bytes = 2 * self.n_samples * state.latent.nbytes
            check_memory(n_bytes, f"The latent of {len(state)} cells in {self.n_samples} draws", _FEWER)
            latents = [draw_latent(state, self.rng, composition=composition) for _ in range(self.n_samples)]
        latents = [
            with_factors(latent, self.factor_values, composition=composition, rotation=self.stored.rotation)
            for latent in latents
        ]
        expression = Expression(self.stored.decoder, asked.genes, asked.places)
        expression.add(latents, self.designs(cells), self.scale[cells], out)
