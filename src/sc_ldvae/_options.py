"""What a fit can be asked for, every default once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from sc_ldvae.likelihoods import GeneLikelihood

Dispersion: TypeAlias = Literal["gene", "gene-batch", "gene-label", "gene-cell"]
LatentDistribution: TypeAlias = Literal["normal", "ln"]
LoadingsPrior: TypeAlias = Literal["adaptive"]


@dataclass(frozen=True)
class ModelOptions:
    """What a user says of the model; :func:`sc_ldvae.tl.ldvae` tells what each means."""

    n_latent: int = 20
    gene_likelihood: GeneLikelihood = "nb"
    dispersion: Dispersion = "gene"
    latent_distribution: LatentDistribution = "normal"
    use_observed_lib_size: bool = False
    log_variational: bool = True
    use_batch_norm: bool = True
    bias: bool = False
    n_hidden: int = 128
    n_layers_encoder: int = 1
    dropout_rate: float = 0.1

    def of_modality(self, gene_likelihood: str, dispersion: str) -> ModelOptions:
        """The same with what a modality has of its own."""
        own: dict[str, Any] = {"gene_likelihood": gene_likelihood, "dispersion": dispersion}
        return replace(self, **own)

    @property
    def composition(self) -> bool:
        """Whether a cell's factors are shares of one ('ln')."""
        return self.latent_distribution == "ln"


@dataclass(frozen=True)
class Levels:
    """What the cells say of the model: how many levels their annotations have."""

    n_batch: int = 0
    n_labels: int = 0
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous_cov: int = 0


@dataclass(frozen=True)
class Schedule:
    """How to train."""

    max_epochs: int | None = None
    """None: as many as `epochs` takes for right."""
    batch_size: int = 128
    lr: float = 0.06
    early_stopping: bool = True
    loadings_prior: LoadingsPrior | None = "adaptive"
