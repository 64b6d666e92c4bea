"""Checked counts in memory, and minibatches of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Counts:
    """Counts of cells x genes in compressed sparse rows, with each cell's total."""

    indptr: Tensor
    indices: Tensor
    values: Tensor
    n_vars: int
    totals: Tensor

    @classmethod
    def from_csr(cls, matrix: csr_matrix) -> Counts:
        """Share the memory of a canonical float32 matrix (as `check_counts` gives it)."""
        # In double precision the sums of integers are exact, so that the order of the genes can't change a total.
        sums = np.concatenate([[0], np.cumsum(matrix.data, dtype=np.float64)])
        return cls(
            indptr=torch.as_tensor(matrix.indptr, dtype=torch.int64),
            indices=torch.as_tensor(matrix.indices),
            values=torch.as_tensor(matrix.data),
            n_vars=matrix.shape[1],
            totals=torch.as_tensor(np.diff(sums[matrix.indptr])).float(),
        )

    def to(self, device: torch.device) -> Counts:
        """The same counts on another device."""
        parts = {name: getattr(self, name).to(device) for name in ("indptr", "indices", "values", "totals")}
        return replace(self, **parts)

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    def tile(self, cells: Tensor) -> Tensor:
        """Dense counts of `cells` (integer positions), len(cells) x n_vars."""
        starts = self.indptr[cells]
        lengths = self.indptr[cells + 1] - starts
        ends = lengths.cumsum(0)
        # Position within the minibatch's nonzeros -> position within the whole matrix's nonzeros.
        shift = (starts - ends + lengths).repeat_interleave(lengths)
        source = torch.arange(len(shift), device=shift.device) + shift
        row_starts = torch.arange(len(cells), device=shift.device) * self.n_vars
        target = row_starts.repeat_interleave(lengths) + self.indices[source]
        flat = self.values.new_zeros(len(cells) * self.n_vars)
        return flat.index_put_((target,), self.values[source]).view(len(cells), self.n_vars)
