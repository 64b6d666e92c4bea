"""The folded decoder: what is left of the model once it is fitted, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from sc_ldvae._products import product

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.likelihoods import Likelihood


@dataclass(frozen=True)
class AffineMap:
    """``Z @ loadings.T + intercept + C @ covariate_effects.T`` for latent Z and covariates C."""

    loadings: Floats
    """n_genes x n_latent."""
    intercept: Floats
    """n_genes."""
    covariate_effects: Floats
    """n_genes x columns of the design."""

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> AffineMap:
        """The map that `to_dict` gave."""
        loadings, intercept = (np.asarray(stored[name]) for name in ("loadings", "intercept"))
        effects = np.asarray(stored.get("covariate_effects", np.zeros((len(loadings), 0), loadings.dtype)))
        return cls(loadings, intercept, effects)

    def __call__(self, latent: Floats, covariates: Floats) -> Floats:
        """Value per cell and gene, n_obs x n_genes, in double precision."""
        effects = covariates @ self.covariate_effects.T.astype(np.float64)
        return latent @ self.loadings.T.astype(np.float64) + self.intercept + effects

    @property
    def vanished(self) -> NDArray[np.bool_]:
        """Factors without any loading, n_latent."""
        return ~self.loadings.any(0)

    def matrix(self) -> Floats:
        """The map as kernels take it: rows for factors, columns of the design and intercept, single precision."""
        parts = [self.loadings.T, self.covariate_effects.T, self.intercept]
        # In one memory layout, whatever that of the parts is: sums round the same.
        return np.ascontiguousarray(np.vstack(parts), np.float32)

    def levels_centred(self, blocks: list[slice]) -> AffineMap:
        """The same map with the effects of each category's levels (`blocks` of columns) summing to zero per gene.

        Levels are exclusive and exhaustive, so what they share belongs to the intercept.
        """
        effects, intercept = self.covariate_effects.copy(), self.intercept
        for block in blocks:
            shared = effects[:, block].mean(1)
            effects[:, block] -= shared[:, None]
            intercept = intercept + shared
        return replace(self, intercept=intercept, covariate_effects=effects)

    def genes_centred(self) -> AffineMap:
        """The map up to a constant per cell, which softmax doesn't see.

        Loadings and covariate effects have mean zero over the genes, and the intercept is a log proportion.
        """
        return AffineMap(
            self.loadings - self.loadings.mean(0),
            self.intercept - logsumexp(self.intercept),
            self.covariate_effects - self.covariate_effects.mean(0),
        )

    def reordered(self, order: NDArray[np.intp], signs: Floats) -> AffineMap:
        """Factors in another order, each times its sign."""
        return replace(self, loadings=self.loadings[:, order] * signs)

    def of_genes(self, genes: NDArray[np.intp]) -> AffineMap:
        """The map to some of the genes."""
        return AffineMap(self.loadings[genes], self.intercept[genes], self.covariate_effects[genes])

    def above(self, other: AffineMap) -> AffineMap:
        """The map to the genes of both, those of `other` last."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return AffineMap(*map(np.concatenate, pairs))

    def rotated(self, matrix: Floats) -> AffineMap:
        """The map of ``latent @ inv(matrix).T``: loadings times `matrix`."""
        return replace(self, loadings=product(self.loadings, matrix))

    def to_dict(self) -> dict[str, Floats]:
        """Arrays in single precision; no covariate effects where there are no covariates."""
        stored = {"loadings": self.loadings, "intercept": self.intercept}
        if self.covariate_effects.shape[1]:
            stored["covariate_effects"] = self.covariate_effects
        return {key: np.ascontiguousarray(value, np.float32) for key, value in stored.items()}


@dataclass(frozen=True)
class Decoder:
    """Everything that turns latent, covariates and library into the distribution of the counts."""

    log_proportion: AffineMap
    """Log expression proportion, up to the softmax over genes; of a likelihood without library log expression."""
    parts: Mapping[str, AffineMap | Floats]
    """What the likelihood has beside the mean, by name: a map, or one value per group of cells, n_groups x n_genes; of
    what depends on the gene alone 1 x n_genes."""
    likelihood: Likelihood
    others: AffineMap | None = None
    """The same of genes outside of the fit, whose proportions are of the total of the fitted genes: the softmax sums
    over those alone."""

    @classmethod
    def from_dict(
        cls, stored: Mapping[str, Any], likelihood: Likelihood, others: Mapping[str, Any] | None = None
    ) -> Decoder:
        """The decoder that `to_dict` gave, with the map of other genes that was stored beside it."""
        parts = {part.name: stored[part.name] for part in likelihood.parts}
        maps = {name: AffineMap.from_dict(part) for name, part in parts.items() if isinstance(part, Mapping)}
        beside = None if others is None else AffineMap.from_dict(others)
        return cls(AffineMap.from_dict(stored), parts | maps, likelihood, beside)

    @property
    def known(self) -> AffineMap:
        """Log proportions of the fitted genes, and after them of the others."""
        return self.log_proportion if self.others is None else self.log_proportion.above(self.others)

    def linear(self, latent: Floats, covariates: Floats, group: NDArray[np.integer[Any]] | slice) -> dict[str, Floats]:
        """Parts of each cell (of its `group` of cells) and gene, as the decoder gives them, n_obs x n_genes.

        Those that are the same in all cells are n_genes.
        """
        return {
            name: part(latent, covariates) if isinstance(part, AffineMap) else part[0 if len(part) == 1 else group]
            for name, part in self.parts.items()
        }

    def natural(self, linear: Mapping[str, Floats]) -> dict[str, Floats]:
        """The parameters of the distribution that such parts stand for, by the names by which people know them."""
        return {part.shown: part.natural(linear[part.name]) for part in self.likelihood.parts}

    def typical(self) -> dict[str, Floats]:
        """Parts of an average cell, n_genes each, in double precision."""
        return {
            name: part.intercept.astype(np.float64) if isinstance(part, AffineMap) else part.astype(np.float64).mean(0)
            for name, part in self.parts.items()
        }

    def of_genes(self, genes: NDArray[np.intp]) -> Decoder:
        """The same with the parts of some genes alone; the softmax of the log proportions needs all."""
        parts = {
            name: part.of_genes(genes) if isinstance(part, AffineMap) else part[:, genes]
            for name, part in self.parts.items()
        }
        return replace(self, parts=parts)

    def canonical(self, level_blocks: list[slice]) -> Decoder:
        """The same distribution with every constant that it can't see taken out."""
        levels = self._mapped(lambda part: part.levels_centred(level_blocks))
        if not self.likelihood.has_library:
            # Without a softmax it sees what all genes share.
            return levels
        return replace(levels, log_proportion=levels.log_proportion.genes_centred())

    def reordered(self, order: NDArray[np.intp], signs: Floats) -> Decoder:
        """Factors in another order, each times its sign."""
        return self._mapped(lambda part: part.reordered(order, signs))

    def rotated(self, matrix: Floats) -> Decoder:
        """The same distribution for ``latent @ inv(matrix).T``: loadings times `matrix`."""
        return self._mapped(lambda part: part.rotated(matrix))

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of single precision arrays, for a file."""
        parts = {
            name: part.to_dict() if isinstance(part, AffineMap) else part.astype(np.float32)
            for name, part in self.parts.items()
        }
        return {**self.log_proportion.to_dict(), **parts}

    def _mapped(self, change: Callable[[AffineMap], AffineMap]) -> Decoder:
        parts = {name: change(part) if isinstance(part, AffineMap) else part for name, part in self.parts.items()}
        others = None if self.others is None else change(self.others)
        return replace(self, log_proportion=change(self.log_proportion), parts=parts, others=others)
