"""A prior of the decoder's effects whose scales are learnt: what the cells do not support goes to zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.engine._adaptive_priors import EVERY
from sc_ldvae.engine._ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sc_ldvae._typing import Arrays, Floats
    from sc_ldvae.likelihoods import Likelihood

# Minibatches over which the information is averaged, and how far a scale moves in one step towards its new value.
_WINDOW = 10
_RATE = 0.3
_TINY = np.float32(1e-8)
# What a later step, or the choice of factors, goes on from.
_LEARNT = ("n_observed", "effects", "counted", "divergence", "slope", "squared_scales", "information")


# Of row i of the decoder (a factor's loadings, or the effects of a column of the covariates), with input u_i, the prior
# is ``w_ig ~ Normal(0, s_i^2)``, and the posterior is taken for normal around what the model has, with the variance
# ``v_ig = 1 / (I_ig + 1 / s_i^2)``, I being the Fisher information of the training cells. Minus the evidence of n cells
# is then, per cell, the loss without a prior and
#   ``sum_ig w_ig^2 / (2 n s_i^2)``,  whose gradient is `pull`, and
#   ``sum_ig I_ng v_ig u_ni^2 / 2``,  what is expected to be lost because effects are not known exactly: `penalty` times
#                                     the squared input; it draws the latent of a noisy factor to zero,
# with v held where its own gradient is zero. The scales that make the evidence largest solve
# ``s_i^2 = mean_g(w_ig^2 + v_ig)`` (expectation and maximisation), which each step moves towards.
#
# A count x says as much of the log expression of its gene as x counts of a Poisson do, less what dispersion and
# background take: ``I_ng = x_ng i_g``, with i the expected information per count of a gene at its mean count. Where the
# likelihood has a threshold, x is zero or one.
class AdaptivePrior:
    """Independent normal effects around zero, folded and (if there is a softmax) centred over the genes of a modality.

    Factors have a scale each, the columns of a category of covariates one together. The scales are those of the largest
    evidence (type-II maximum likelihood), learnt while the model is [MacKay92]_ [Bishop99]_.

    Parameters
    ----------
    likelihood
        Of the counts.
    n_training
        Number of training cells that have the modality.
    n_factors
        Number of factors that have the prior: all, or none.
    covariates
        Number of columns of each category or continuous covariate.
    ranks
        Processes that learn together: of what each has seen, the mean.
    n_cells
        Number of all training cells; None: each has the modality.

    References
    ----------
    .. [MacKay92] MacKay (1992). Bayesian interpolation. Neural Computation 4:415.
    .. [Bishop99] Bishop (1999). Variational principal components. ICANN 9:509.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        n_training: int,
        n_factors: int,
        covariates: Sequence[int] = (),
        ranks: Ranks | None = None,
        n_cells: int | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self.n_factors, self.n_training, self.n_cells = n_factors, n_training, n_cells or n_training
        self._likelihood, self._n_observed = likelihood, 0
        sizes = [*(1 for _ in range(n_factors)), *covariates]
        self._group = np.repeat(np.arange(len(sizes)), sizes)
        self._sizes = np.array(sizes)

    def state(self) -> Arrays:
        """What it has learnt."""
        return {name: np.array(getattr(self, f"_{name}")) for name in _LEARNT if hasattr(self, f"_{name}")}

    def load(self, state: Arrays) -> None:
        """Go on from there."""
        for name, value in state.items():
            setattr(self, f"_{name}", value.copy() if value.ndim else value[()])

    @property
    def thresholded(self) -> bool:
        """Whether the counts that it is told of, and multiplies, are zeros and ones."""
        return self._likelihood.thresholded

    @property
    def n_rows(self) -> int:
        """Number of rows of the decoder that have the prior: the factors, if they do, then the covariates."""
        return len(self._group)

    # What overflows shows in the ELBO, which the training loop checks.
    @np.errstate(all="ignore")
    def observe(self, effects: Floats, counted: Floats, divergence: Floats, linear: Mapping[str, Floats]) -> None:
        """Learn from a minibatch.

        Parameters
        ----------
        effects
            Folded, n_rows x n_genes.
        counted
            Means over the cells of a gene's counts times the squares of the inputs, and of the counts themselves in the
            last row, (n_rows + 1) x n_genes.
        divergence
            What the modality bears of each factor's Kullback-Leibler divergence, mean over the cells, n_factors.
        linear
            Parts of the likelihood in an average cell, n_genes each.
        """
        self._n_observed += 1
        self._ranks.average(counted, divergence)
        # What all genes share, a softmax does not see.
        self._effects = effects - effects.mean(1, keepdims=True) if self._likelihood.has_library else effects.copy()
        if self._n_observed == 1:
            self._counted, self._divergence, self._slope = counted, divergence, np.zeros_like(divergence)
            self._squared_scales = np.maximum(self._of_groups((self._effects**2).mean(1)), _TINY)
        self._share = effects.dtype.type(1 / min(self._n_observed, _WINDOW))
        self._counted += self._share * (counted - self._counted)
        self._divergence += self._share * (divergence - self._divergence)
        mean = np.maximum(self._counted[-1], _TINY)
        self._per_count = self._likelihood.information_per_count(mean, linear).astype(effects.dtype)
        self._information = self.n_training * self._counted[:-1] * self._per_count
        new = self._of_groups((self._effects**2 + self._variance()).mean(1))
        self._squared_scales += effects.dtype.type(_RATE) * (np.maximum(new, _TINY) - self._squared_scales)

    def observe_slope(self, slope: Floats) -> None:
        """Learn by how much the mean log-likelihood of the same cells rises as each factor's loadings grow, n_factors.

        It is the derivative by the log of a number that all loadings of a factor are multiplied by.
        """
        self._ranks.average(slope)
        self._slope += self._share * (slope - self._slope)

    @property
    def scale(self) -> Floats:
        """Standard deviation of each factor's loadings, n_factors."""
        return np.sqrt(self._squared_scales[: self.n_factors])

    @property
    def pull(self) -> Floats:
        """What a step with the prior adds to the gradient by the effects, n_rows x n_genes."""
        return self._effects / (self.n_cells / EVERY * self._squared())

    @property
    def penalty(self) -> Floats:
        """What each count of a cell adds to half the squares of its latent in such a step, n_genes x n_factors."""
        return np.ascontiguousarray((self._variance()[: self.n_factors] * (EVERY * self._per_count)).T)

    @np.errstate(all="ignore")
    def evidence(self) -> Floats:
        """By how much each factor raises the log evidence of the training cells, in nats, n_factors.

        Without factor k, to second order, their log-likelihood falls by ``d_k + sum_g I_gk w_gk^2 / 2``, where d_k is
        its derivative by the log size of the factor's loadings. The loadings cost
        ``sum_g (w_gk^2 / s_k^2 + log(1 + I_gk s_k^2)) / 2``, the latent its divergences.
        """
        arrays = self._information, self._squared(), self._effects**2
        information, squared, squares = (array[: self.n_factors] for array in arrays)
        net = (information - 1 / squared) * squares - np.log1p(information * squared)
        of_cells = self.n_training * (self._slope - self._divergence).astype(np.float64)
        return of_cells + 0.5 * net.sum(1, dtype=np.float64)

    def _variance(self) -> Floats:
        return 1 / (self._information + 1 / self._squared())

    def _squared(self) -> Floats:
        """Squared scale of each row, n_rows x 1."""
        return self._squared_scales[self._group, None]

    def _of_groups(self, of_rows: Floats) -> Floats:
        """Mean over the rows of each group."""
        return (np.bincount(self._group, of_rows) / self._sizes).astype(of_rows.dtype)
