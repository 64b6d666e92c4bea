"""A stretch of genes with a likelihood of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sc_ldvae._options import ModelOptions


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

    def options(self, options: ModelOptions) -> ModelOptions:
        """What is asked of the model of this modality, of what is asked of all."""
        own: dict[str, Any] = {"gene_likelihood": self.gene_likelihood, "dispersion": self.dispersion}
        return replace(options, **own)
