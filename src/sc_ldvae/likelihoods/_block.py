"""A stretch of genes with a likelihood of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Block:
    """A modality of the cells: its genes have one softmax, one library, one likelihood and one kind of dispersion."""

    modality: str
    """Its name; empty where there is only one."""
    start: int
    stop: int
    """Its genes among those of the linear map."""
    gene_likelihood: str
    dispersion: str

    @classmethod
    def beside(cls, kinds: Iterable[tuple[str, int, str, str]]) -> tuple[Block, ...]:
        """Modalities beside each other, from name, number of genes, likelihood and dispersion of each."""
        blocks, stop = [], 0
        for modality, n_genes, gene_likelihood, dispersion in kinds:
            start, stop = stop, stop + n_genes
            blocks.append(cls(modality, start, stop, gene_likelihood, dispersion))
        return tuple(blocks)

    @property
    def genes(self) -> slice:
        """The stretch."""
        return slice(self.start, self.stop)
