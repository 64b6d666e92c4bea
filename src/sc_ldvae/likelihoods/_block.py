"""A stretch of genes with a likelihood of its own."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def genes(self) -> slice:
        """The stretch."""
        return slice(self.start, self.stop)
