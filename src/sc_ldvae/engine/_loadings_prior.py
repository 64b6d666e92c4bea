"""A prior on the loadings whose scales are learnt: of a factor that the cells do not support, the scale goes to zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sc_ldvae._typing import Floats, Mask
    from sc_ldvae.likelihoods import Likelihood

# Minibatches over which the information is averaged, and how far a scale moves in one step towards its new value.
_WINDOW = 20
_RATE = 0.1
_TINY = np.float32(1e-8)


class LoadingsPrior:
    r"""Independent normal loadings ``w_gk ~ Normal(0, s_k^2)``, one scale per factor, learnt while the model is.

    Of the folded loadings, centred over the genes. Their posterior is taken for normal around what the model has, with
    variances ``v_gk = 1 / (I_gk + 1 / s_k^2)``, where I is the Fisher information of the training cells. In the loss
    that gives, beside ``-log p(w | s) / n``, the expected loss of log-likelihood because a loading is not known
    exactly, ``sum_gk I_ng v_gk z_nk^2 / 2`` of cell n: it holds the latent of a noisy factor near zero. The scales are
    those of the largest evidence (type-II maximum likelihood) by expectation and maximisation,
    ``s_k^2 = mean_g(w_gk^2 + v_gk)`` [MacKay92]_ [Bishop99]_.

    A count x says as much of its gene's log mean as x counts of a Poisson do, less what the dispersion takes:
    ``I_ng = x_ng i_g``, with i the expected information per count of a gene at its mean count.

    References
    ----------
    .. [MacKay92] MacKay (1992). Bayesian interpolation. Neural Computation 4:415.
    .. [Bishop99] Bishop (1999). Variational principal components. ICANN 9:509.
    """

    def __init__(self, likelihood: Likelihood, n_latent: int, n_training: int) -> None:
        self.n_latent = n_latent
        self._likelihood, self._n_training, self._n_steps = likelihood, n_training, 0

    def observe(self, loadings: Floats, counted: Floats, divergence: Floats, linear: Mapping[str, Floats]) -> None:
        """Learn from a minibatch.

        Parameters
        ----------
        loadings
            Folded, n_latent x n_genes.
        counted
            Means over the cells of a gene's counts times the squares of the latent, and of the counts themselves in the
            last row, (n_latent + 1) x n_genes.
        divergence
            Mean over the cells of each factor's Kullback-Leibler divergence, n_latent.
        linear
            Parts of the likelihood in an average cell, n_genes each.
        """
        self._n_steps += 1
        self._loadings = loadings - loadings.mean(1, keepdims=True)
        if self._n_steps == 1:
            self._counted, self._divergence, self._slope = counted, divergence, np.zeros_like(divergence)
            self._squared_scale = np.maximum(self._mean_square(), _TINY)
        self._share = loadings.dtype.type(1 / min(self._n_steps, _WINDOW))
        self._counted += self._share * (counted - self._counted)
        self._divergence += self._share * (divergence - self._divergence)
        mean = np.maximum(self._counted[-1], _TINY)
        self._per_count = (self._likelihood.expected_information(mean, linear) / mean).astype(loadings.dtype)
        information = self._information()
        new = self._mean_square() + self._variance(information).mean(1)
        self._squared_scale = np.maximum(self._squared_scale + loadings.dtype.type(_RATE) * (new - self._squared_scale), _TINY)
        self._known = self._variance(information) * self._per_count

    def observe_slope(self, slope: Floats) -> None:
        """Learn by how much the mean log-likelihood of the same cells rises as each factor's loadings grow, n_latent.

        It is the derivative by the log of a number that all loadings of a factor are multiplied by.
        """
        self._slope += self._share * (slope - self._slope)

    @property
    def scale(self) -> Floats:
        """Standard deviation of each factor's loadings, n_latent."""
        return np.sqrt(self._squared_scale)

    @property
    def pull(self) -> Floats:
        """Gradient of minus the mean log prior per training cell by the loadings, n_latent x n_genes."""
        return self._loadings / (self._squared_scale[:, None] * self._n_training)

    @property
    def penalty_per_count(self) -> Floats:
        """What each count of a cell adds to the penalty of its squared latent, ``i_g v_gk``, n_genes x n_latent."""
        return np.ascontiguousarray(self._known.T)

    def evidence(self) -> Floats:
        r"""By how much each factor raises the log evidence of the training cells, in nats, n_latent.

        Without factor k, to second order, their log-likelihood falls by ``d_k + sum_g I_gk w_gk^2 / 2``, where d_k is
        its derivative by the log size of the factor's loadings. The loadings cost
        ``sum_g (w_gk^2 / s_k^2 + log(1 + I_gk s_k^2)) / 2``, the latent its divergences.
        """
        information, squared = self._information(), self._squared_scale[:, None]
        net = (information - 1 / squared) * self._loadings**2 - np.log1p(information * squared)
        of_cells = self._n_training * (self._slope - self._divergence).astype(np.float64)
        return of_cells + 0.5 * net.sum(1, dtype=np.float64)

    def supported(self) -> Mask:
        """Factors that the cells support: those whose evidence is positive; at least the one with the largest."""
        evidence = self.evidence()
        return (evidence > 0) | (evidence == evidence.max())

    def _information(self) -> Floats:
        return self._n_training * self._counted[:-1] * self._per_count

    def _variance(self, information: Floats) -> Floats:
        return 1 / (information + 1 / self._squared_scale[:, None])

    def _mean_square(self) -> Floats:
        return (self._loadings**2).mean(1)
