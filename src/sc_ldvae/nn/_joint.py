"""Several modalities of the same cells with one latent: a model of each, whose encoders are experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from sc_ldvae.nn._encoder import Normal
from sc_ldvae.nn._ldvae import LDVAE, Elbo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class _Shown(NamedTuple):
    """A modality, and the cells of a minibatch that have it."""

    view: LDVAE
    weight: float
    cells: Tensor
    """Their positions in the minibatch."""
    x: Tensor
    """Their counts of its genes."""
    size_factor: Tensor | None
    """Their library, where it is not their total counts."""
    annotations: dict[str, Tensor | None]
    """What else its model is told of them."""


class _Draw(NamedTuple):
    """One draw from the posterior, and what the modalities say of it."""

    q: Normal
    z: Tensor
    """Before the softmax of 'ln'."""
    log_likelihood: Tensor
    libraries: list[tuple[_Shown, Normal, Tensor]]
    """Where it is latent: posterior and draw of the log library of a modality's cells."""


class Product(nn.Module):
    """Product of experts, the standard normal prior among them [Cao14]_ [Wu18]_.

    Each expert has a normal posterior of the same variables; precisions add up, and means are weighed by them:
    ``1 / v = 1 + sum_m 1 / v_m`` and ``mean = v sum_m mean_m / v_m``. What no expert has seen keeps the prior.

    References
    ----------
    .. [Cao14] Cao, Fleet (2014). Generalized product of experts for automatic and principled fusion of Gaussian process
       predictions. arXiv 1410.7827.
    .. [Wu18] Wu, Goodman (2018). Multimodal generative models for scalable weakly-supervised learning. NeurIPS.
    """

    def forward(self, n_cells: int, experts: Sequence[tuple[Tensor, Normal]]) -> Normal:
        """Posterior of `n_cells` cells; of each expert the positions of its cells, and what it says of them."""
        _, some = experts[0]
        precision = some.mean.new_ones(n_cells, some.mean.shape[1])
        weighed = torch.zeros_like(precision)
        for cells, own in experts:
            precision = precision.index_add(0, cells, 1 / own.variance)
            weighed = weighed.index_add(0, cells, own.mean / own.variance)
        return Normal(weighed / precision, 1 / precision)


class JointLDVAE(nn.Module):
    """Linearly decoded variational auto-encoder of several modalities with one latent.

    Each modality is an :class:`LDVAE` of its own but for the latent, of which its encoder is one of several experts
    (:class:`Product`). Cells may lack modalities, which is not the same as to have no counts of them.

    Parameters
    ----------
    views
        A model of each modality, with as many factors, batches, labels and covariates.
    weights
        What the log-likelihood of each modality is multiplied by in training; 1 if None.

    Examples
    --------
    >>> import torch
    >>> from sc_ldvae.nn import LDVAE, JointLDVAE
    >>> views = [LDVAE(n, n_latent=3, use_observed_lib_size=True) for n in (50, 20)]
    >>> counts = torch.poisson(torch.full((8, 70), 2.0))
    >>> present = torch.ones(8, 2, dtype=torch.bool)
    >>> present[0, 1] = False
    >>> JointLDVAE(views)(counts, present, size_factor=torch.full((8, 2), 100.0)).per_cell().shape
    torch.Size([8])
    """

    def __init__(self, views: Sequence[LDVAE], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self._views, self.fusion = nn.ModuleList(views), Product()
        self.weights = (1.0,) * len(views) if weights is None else tuple(weights)
        self.n_latent, self.latent_distribution = views[0].n_latent, views[0].latent_distribution
        self.n_input = sum(view.n_input for view in views)

    fuses = True

    @property
    def views(self) -> tuple[LDVAE, ...]:
        """Models of the modalities."""
        views: Any = self._views
        return tuple(views)

    @property
    def widths(self) -> list[int]:
        """Number of genes of each modality."""
        return [view.n_input for view in self.views]

    @property
    def posterior_module(self) -> nn.Module:
        """What gives the posterior of the normal variables."""
        return self.fusion

    @property
    def composition(self) -> bool:
        """Whether a cell's factors are shares of one ('ln')."""
        return self.views[0].composition

    def transform(self, z: Tensor) -> Tensor:
        """Normal variables to the latent: themselves, or their softmax for 'ln'."""
        return self.views[0].transform(z)

    def forward(
        self,
        x: Tensor,
        present: Tensor | None = None,
        batch_index: Tensor | None = None,
        labels: Tensor | None = None,
        cat_covs: Tensor | None = None,
        cont_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Elbo:
        """Terms of the ELBO of each cell, from one draw of its posterior.

        Parameters
        ----------
        x
            Counts of all modalities side by side, n_cells x n_input.
        present
            Which modalities a cell has, boolean, n_cells x modalities; None: all.
        batch_index, labels, cat_covs, cont_covs
            As those of :class:`LDVAE`.
        size_factor
            Library of each cell in each modality, n_cells x modalities, in place of its total counts.
        generator
            Source of the draws and of dropout; the global one of torch if None.

        Returns
        -------
        Log-likelihood and divergences, each n_cells, in nats.
        """
        annotations = {"batch_index": batch_index, "labels": labels, "cat_covs": cat_covs, "cont_covs": cont_covs}
        draw = self._draw(x, present, size_factor, annotations, generator)
        kl_library = torch.zeros_like(draw.log_likelihood)
        for shown, q, _ in draw.libraries:
            kl_library = kl_library.index_add(
                0, shown.cells, q.kl(*shown.view.library_prior(shown.annotations["batch_index"]))
            )
        return Elbo(draw.log_likelihood, draw.q.kl(0.0, 1.0), kl_library)

    def log_weights(
        self,
        x: Tensor,
        present: Tensor | None = None,
        batch_index: Tensor | None = None,
        labels: Tensor | None = None,
        cat_covs: Tensor | None = None,
        cont_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log importance weight of one draw of each cell's posterior, n_cells. Arguments as those of `forward`."""
        annotations = {"batch_index": batch_index, "labels": labels, "cat_covs": cat_covs, "cont_covs": cont_covs}
        draw = self._draw(x, present, size_factor, annotations, generator)
        standard = Normal(draw.q.mean.new_zeros(()), draw.q.mean.new_ones(()))
        weights = draw.log_likelihood + draw.q.log_density_ratio(draw.z, standard)
        for shown, q, log_library in draw.libraries:
            prior = Normal(*shown.view.library_prior(shown.annotations["batch_index"]))
            weights = weights.index_add(0, shown.cells, q.log_density_ratio(log_library, prior))
        return weights

    def posterior(self, x: Tensor, present: Tensor | None = None) -> tuple[Normal, list[Normal | None]]:
        """Of the normal variables of each cell, and of the log library of each modality's cells, where it is latent."""
        shown = list(self._shown(x, present, None, {}))
        posteriors = [one.view.encode(one.x) for one in shown]
        experts = [(one.cells, own.z) for one, own in zip(shown, posteriors, strict=True)]
        return self.fusion(len(x), experts), [own.log_library for own in posteriors]

    def log_prior(self) -> Tensor:
        """That of the dispersions of all modalities."""
        return torch.stack([view.log_prior() for view in self.views]).sum()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that learn at different speeds: ``'encoder'``, ``'decoder'``, ``'dispersion'``."""
        groups: dict[str, list[nn.Parameter]] = {}
        for view in self.views:
            for name, own in view.parameter_groups().items():
                groups.setdefault(name, []).extend(own)
        return groups

    def _shown(
        self, x: Tensor, present: Tensor | None, size_factor: Tensor | None, annotations: Mapping[str, Tensor | None]
    ) -> Iterator[_Shown]:
        start = 0
        for i, view in enumerate(self.views):
            has = x.new_ones(len(x), dtype=torch.bool) if present is None else present[:, i]
            cells = has.nonzero()[:, 0]
            own = {name: None if values is None else values[cells] for name, values in annotations.items()}
            factor = None if size_factor is None else size_factor[cells, i]
            yield _Shown(view, self.weights[i], cells, x[cells, start : start + view.n_input], factor, own)
            start += view.n_input

    def _draw(
        self,
        x: Tensor,
        present: Tensor | None,
        size_factor: Tensor | None,
        annotations: Mapping[str, Tensor | None],
        generator: torch.Generator | None,
    ) -> _Draw:
        n_cells, shown = len(x), [one for one in self._shown(x, present, size_factor, annotations) if len(one.cells)]
        posteriors = [one.view.encode(one.x, generator) for one in shown]
        log_libraries = [
            one.view.draw_library(own, one.x, one.size_factor, generator)
            for one, own in zip(shown, posteriors, strict=True)
        ]
        q: Normal = self.fusion(n_cells, [(one.cells, own.z) for one, own in zip(shown, posteriors, strict=True)])
        z = q.rsample(generator)
        log_likelihood = z.new_zeros(n_cells)
        for one, log_library in zip(shown, log_libraries, strict=True):
            own = one.view.log_likelihood(one.x, z[one.cells], log_library, **one.annotations)
            if one.weight != 1:
                # Weights are for training: they change gradients, not values.
                own = own + (one.weight - 1) * (own - own.detach())
            log_likelihood = log_likelihood.index_add(0, one.cells, own)
        latent = [
            (one, own.log_library, log_library)
            for one, own, log_library in zip(shown, posteriors, log_libraries, strict=True)
            if own.log_library is not None
        ]
        return _Draw(q, z, log_likelihood, latent)


Model: TypeAlias = LDVAE | JointLDVAE
