"""What a likelihood of counts is asked for, by everything that is not a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from sc_ldvae.likelihoods._spread import spread_totals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix, csr_matrix

    from sc_ldvae._typing import Floats, Mask


@dataclass(frozen=True)
class Part:
    """A parameter of the counts' distribution beside the mean, one value per cell and gene."""

    name: str
    """Of what the decoder gives, on the scale on which it is linear; the entry of the stored decoder."""
    shown: str
    """Of the parameter itself, in frames."""
    natural: Callable[[Floats], Floats]
    """From the one to the other."""
    depends_on: Literal["dispersion", "factors", "gene"]
    """On what the option `dispersion` says; on the factors, by a linear map as the log proportion is one; or on nothing
    but the gene."""


class Contrasts(NamedTuple):
    """Expression of cells under the null, and under a decoder without each of some sets of factors."""

    library: Floats
    """n_cells."""
    null: Floats
    """Log proportions under the null, n_genes; without a library log means."""
    eta: Floats
    """Log proportions up to a constant, n_cells x n_genes; without a library log expression."""
    centred: Floats
    """Latent from its mean, n_cells x n_latent."""
    loadings: Floats
    """n_latent x n_genes."""
    without: Mask
    """Which factors each set holds, n_sets x n_latent."""
    offsets: Floats
    """Added to `eta` without each set, n_sets x n_genes."""


class Derivatives(NamedTuple):
    """What a regression of genes asks of the likelihood."""

    slope: Floats
    """Of each count's log-likelihood by its log expression, n_genes x n_cells."""
    information: Floats
    """Minus the second derivative, n_genes x n_cells."""
    updated: Mapping[str, Floats]
    """Better values of the parts, n_genes each."""


class Likelihood(ABC):
    """A distribution of counts with a given mean.

    `linear` holds the values of its parts as the decoder gives them, by name, broadcastable to cells x genes; `natural`
    those of the parameters themselves. The `expression` of a gene is what the linear map gives, in counts.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[Part, ...]] = ()
    has_library: ClassVar[bool] = True
    """Whether expression is the library times proportions, a softmax over the genes. Else the linear map gives its log
    itself, and the library of every cell is 1."""
    thresholded: ClassVar[bool] = False
    """Whether it tells zero from any other count, and no more."""

    def mean(self, expression: Floats, natural: Mapping[str, Floats]) -> Floats:  # noqa: ARG002  most add nothing
        """Means of counts with this expression: the same, unless there is a background."""
        return expression

    def expression(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002  most take off nothing
        """The way back, n_genes each; above zero."""
        return mean

    @abstractmethod
    def start(self, counts: csr_matrix, library: Floats) -> dict[str, Floats]:
        """Values of the parts for a fit to start from, n_genes each, from `counts`, n_cells x n_genes."""

    def proportions(self, totals: Floats, n_cells: int) -> Floats:  # noqa: ARG002  counts have no largest number
        """Proportions that all of `n_cells` share, n_genes, none zero, from their `totals`.

        Those are sums of counts; if `thresholded`, numbers of cells with any.
        """
        totals = totals + 0.5
        return totals / totals.sum()

    def expected_totals(self, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:  # noqa: ARG002  see above
        """Expression of each gene under each set, without offsets, summed over the cells, n_sets x n_genes.

        With what the parts make of it, but for a background; if `thresholded`, numbers of cells with any count.
        """
        return spread_totals(contrasts, None, has_library=self.has_library, thresholded=self.thresholded)

    def log_mean(self, expected: Floats) -> Floats:
        """Log means of counts of which so many are `expected`; if `thresholded`, such a share of the cells has any."""
        return np.log(np.maximum(expected, np.finfo(float).tiny))

    @abstractmethod
    def deviances(self, counts: csr_matrix, contrasts: Contrasts, linear: Mapping[str, Floats]) -> Floats:
        """Deviance of each cell's counts from what is expected under the null and each set, n_cells x (1 + n_sets)."""

    @abstractmethod
    def slope(self, counts: csr_matrix, expression: Floats, linear: Mapping[str, Floats]) -> Floats:
        """Derivative of each count's log-likelihood by its log expression, n_cells x n_genes."""

    def updated(
        self,
        counts: csr_matrix,  # noqa: ARG002  most have no parts
        expression: Floats,  # noqa: ARG002
        linear: Mapping[str, Floats],
    ) -> dict[str, Floats]:
        """Better values of the parts, n_genes each, where the expression of each count is known: one step of Newton's.

        They start from those of `linear`.
        """
        return dict(linear)

    def derivatives(self, counts: csc_matrix, log_expression: Floats, linear: Mapping[str, Floats]) -> Derivatives:
        """The same and the information, where all that is known of genes is in one place.

        Parameters
        ----------
        counts
            n_cells x n_genes.
        log_expression
            n_genes x n_cells.
        linear
            Parts, n_genes each.
        """
        by_cell, expression = counts.tocsr(), np.exp(log_expression.T)
        slope, information = (of(by_cell, expression, linear).T for of in (self.slope, self.information))
        return Derivatives(slope, information, self.updated(by_cell, expression, linear))

    @abstractmethod
    def information(self, counts: csr_matrix, expression: Floats, linear: Mapping[str, Floats]) -> Floats:
        """Minus the second derivative of each count's log-likelihood by its log expression, n_cells x n_genes."""

    @abstractmethod
    def expected_information(self, expression: Floats, linear: Mapping[str, Floats]) -> Floats:
        """Its expectation where expression and parts are one value per gene, n_genes."""

    def information_per_count(self, mean: Floats, linear: Mapping[str, Floats]) -> Floats:
        """The same per count of genes with these mean counts, n_genes; if `thresholded`, per cell with any."""
        return self.expected_information(self.expression(mean, linear), linear) / mean

    @abstractmethod
    def draw(
        self, mean: Floats, natural: Mapping[str, Floats], streams: Sequence[np.random.Generator]
    ) -> NDArray[np.int64]:
        """Counts of the shape of `mean`; each step of a draw takes a stream of its own, of three."""

    @abstractmethod
    def simulated(self, n_genes: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Natural values of the parts that look like those of real data, n_genes each or one for all."""
