"""Cells of a fit: their counts and what else the model knows of each, handed out in minibatches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sc_ldvae.counts._counts import Counts


@dataclass(frozen=True)
class Cells:
    """Counts and annotations of the cells, the arguments of the model's forward."""

    counts: Counts
    batch_index: Tensor | None = None
    labels: Tensor | None = None
    cat_covs: Tensor | None = None
    cont_covs: Tensor | None = None
    size_factor: Tensor | None = None

    def minibatch(self, cells: Tensor) -> dict[str, Tensor]:
        """Arguments of the model for `cells`, integer positions."""
        return {"x": self.counts.tile(cells)} | self.annotations(cells)

    def annotations(self, cells: Tensor) -> dict[str, Tensor]:
        """What the model knows of `cells` beside their counts."""
        return {key: value[cells] for key, value in self._annotations().items()}

    def to(self, device: torch.device) -> Cells:
        """The same cells on another device."""
        annotations = {key: value.to(device) for key, value in self._annotations().items()}
        return replace(self, counts=self.counts.to(device), **annotations)

    def _annotations(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "counts"}
        return {key: value for key, value in values.items() if value is not None}


def shuffled(cells: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Every cell once, in random order, in minibatches of equal size (to within one cell).

    Equal sizes, so that no minibatch ever holds a single cell, for which BatchNorm has no variance.
    """
    order = torch.randperm(len(cells), generator=generator, device=generator.device)
    yield from cells[order].tensor_split(n_minibatches(len(cells), batch_size))


def n_minibatches(n_cells: int, batch_size: int) -> int:
    """How many minibatches `shuffled` makes."""
    return max(1, min(round(n_cells / batch_size), n_cells // 2))
