"""The ELBO of a minibatch and its gradient, fused: what the module's forward and its backward say, without autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch

from sc_ldvae.engine._flat import Flat
from sc_ldvae.engine._fusion import FusedProduct
from sc_ldvae.engine._normal import Drawn, Noise, Prior
from sc_ldvae.engine._view import FusedView
from sc_ldvae.nn import Elbo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._adaptive_priors import AdaptivePriors
    from sc_ldvae.engine._encoder import Moments
    from sc_ldvae.engine._likelihood import Inputs
    from sc_ldvae.engine._view import Shown
    from sc_ldvae.nn import Model


# Moments of the latent's normal variables, and of the log library where it is latent, in each modality.
Encoded: TypeAlias = "list[list[Moments]]"


class _Seen(NamedTuple):
    """A modality, those cells of a minibatch that have it, and what is drawn of them."""

    view: FusedView
    shown: Shown
    place: int
    """Of the modality among all."""
    library: Drawn | None
    inputs: Inputs


class FusedElbo:
    """A model's ELBO and gradient on the CPU, from sparse counts.

    Every mode of the modules, the same draws from the same generator, the same values and gradients to rounding. The
    parameters of the module are moved into one buffer, `values`; `gradient` has the same layout. `first_layers` are the
    products that the gradients of the encoders' first layers are, one for each modality.
    """

    def __init__(self, model: Model, adaptive_priors: AdaptivePriors | None = None) -> None:
        self._model, self._priors = model, adaptive_priors
        flat = Flat(model)
        self.values, self.gradient, self.sizes = flat.values, flat.gradient, flat.sizes
        self._views = [FusedView(view, flat) for view in model.views]
        self._product = FusedProduct() if model.fuses else None
        self._noise = Noise(model.n_latent, flat.values)
        self._standard = np.zeros(1, flat.values.numpy().dtype), np.ones(1, flat.values.numpy().dtype)
        self.first_layers = [view.encoders.no_gradient() for view in self._views]

    # What overflows shows in the ELBO, which the training loop checks.
    @np.errstate(all="ignore")
    def __call__(
        self,
        n_cells: int,
        shown: Sequence[Shown],
        *,
        kl_weight: float = 1.0,
        prior_weight: float = 0.0,
        generator: torch.Generator | None = None,
        encoded: Encoded | None = None,
        whole: bool = True,
    ) -> Elbo:
        """Terms of the ELBO, each n_cells; cells that are `encoded` already are not encoded again.

        In training mode `gradient` gets that of the loss: minus the mean ELBO at `kl_weight`, with the likelihood of
        each modality times its weight, minus `prior_weight` times the model's `log_prior`, and what the priors of the
        loadings add. Unless it is to be the `whole`, the products in `first_layers` are left to be done.
        """
        training, weights = self._model.training, self._model.weights
        z, u, seen = self._draw(n_cells, shown, generator, encoded, training=training)
        log_likelihood, kl_library = np.zeros((2, n_cells), z.mean.dtype)
        for one in seen:
            rows, cells = one.shown.rows, one.shown.cells
            weight = weights[one.place] / n_cells
            own = one.view.likelihood.forward(rows, one.inputs, weight, training=training)
            log_likelihood[cells] += own
            if one.library is not None:
                kl_library[cells] += one.library.divergence[:, 0]
        kl = z.divergence
        if training:
            if len(seen) < len(self._views):
                self.gradient.zero_()
                self.first_layers = [view.encoders.no_gradient() for view in self._views]
            self._add_adaptive_priors(seen, kl, n_cells)
            self._backward(z, u, seen, kl_weight)
            for view in self._views:
                view.likelihood.add_prior(prior_weight)
            for product in self.first_layers if whole else ():
                product.fill()
        return Elbo(*map(torch.from_numpy, (log_likelihood, kl.sum(1), kl_library)))

    @np.errstate(all="ignore")
    def log_weights(
        self,
        n_cells: int,
        shown: Sequence[Shown],
        generator: torch.Generator | None = None,
        encoded: Encoded | None = None,
    ) -> Floats:
        """Log importance weight of one draw of each cell, as the module gives it, in evaluation mode."""
        z, _, seen = self._draw(n_cells, shown, generator, encoded, training=False)
        weights = z.log_density_ratio
        for one in seen:
            own = one.view.likelihood.forward(one.shown.rows, one.inputs, 1.0, training=False)
            of_library = 0.0 if one.library is None else one.library.log_density_ratio
            weights[one.shown.cells] += own + of_library
        return weights

    def posterior(self, n_cells: int, shown: Sequence[Shown]) -> tuple[Moments, list[Floats | None]]:
        """Mean and variance of the latent's normal variables, n_cells x n_latent; log library in each modality."""
        encoded = [
            view.encoders.forward(one.rows, None, training=False) for view, one in zip(self._views, shown, strict=True)
        ]
        fused = self._fused(n_cells, [(one, own) for one, (own, *_) in zip(shown, encoded, strict=True)])
        return fused, [library[0][0][:, 0] if library else None for _, *library in encoded]

    def encoded(
        self, shown: Sequence[Shown], generator: torch.Generator | None = None, *, training: bool = False
    ) -> Encoded:
        """What the encoder of each modality says of its cells, where there are any."""
        views = [(view, one) for view, one in zip(self._views, shown, strict=True) if len(one)]
        return [view.encoders.forward(one.rows, generator, training=training) for view, one in views]

    def _draw(
        self,
        n_cells: int,
        shown: Sequence[Shown],
        generator: torch.Generator | None,
        encoded: Encoded | None,
        *,
        training: bool,
    ) -> tuple[Drawn, Floats, list[_Seen]]:
        """The latent's normal variables, the latent, and what goes with it in each modality.

        Modalities that no cell has are left out.
        """
        views = [(place, view, shown[place]) for place, view in enumerate(self._views) if len(shown[place])]
        if encoded is None:
            encoded = self.encoded(shown, generator, training=training)
        libraries = [
            view.draw_library(library[0] if library else None, one, generator)
            for (_, view, one), (_, *library) in zip(views, encoded, strict=True)
        ]
        own = [moments for moments, *_ in encoded]
        fused = self._fused(n_cells, [(one, moments) for (_, _, one), moments in zip(views, own, strict=True)])
        z = Drawn.of(fused, Prior(*self._standard, np.zeros(n_cells, np.int64)), self._noise.draw(n_cells, generator))
        latent = self._latent(z.sample)
        seen = [
            _Seen(view, one, place, library, view.inputs(latent[one.cells], library, one))
            for (place, view, one), library in zip(views, libraries, strict=True)
        ]
        return z, latent, seen

    def _fused(self, n_cells: int, experts: list[tuple[Shown, Moments]]) -> Moments:
        if self._product is None:
            ((_, moments),) = experts
            return moments
        return self._product.forward(n_cells, [(one.cells, *moments) for one, moments in experts])

    def _latent(self, normal: Floats) -> Floats:
        if not self._model.composition:
            return normal
        z = np.exp(normal - normal.max(1, keepdims=True))
        z /= z.sum(1, keepdims=True)
        return z

    def _add_adaptive_priors(self, seen: list[_Seen], kl: Floats, n_cells: int) -> None:
        priors = self._priors
        if priors is None or not priors.begin_step():
            return
        divergence = kl[:, : priors.n_factors].mean(0)
        for one in seen:
            prior, weight = priors.of_views[one.place], self._model.weights[one.place] / n_cells
            one.view.likelihood.add_adaptive_prior(
                prior, one.shown.rows, one.inputs.u, priors.share(one.place, divergence), weight, n_cells
            )

    # For 'ln' the likelihood sees z = softmax(a): the gradient by a is ``z (d - sum_k d_k z_k)``.
    def _backward(self, z: Drawn, latent: Floats, seen: list[_Seen], kl_weight: float) -> None:
        n_cells, n_latent = z.mean.shape
        number = z.mean.dtype.type
        d_latent = np.zeros_like(latent)
        of_libraries: list[Moments | None] = []
        for one in seen:
            d_u, d_log_library = one.view.likelihood.backward()
            d_latent[one.shown.cells] += d_u[:, :n_latent]
            weight, library = number(1) / number(n_cells), one.library
            of_libraries.append(None if library is None else library.backward(d_log_library[:, None], weight))
        if self._model.composition:
            d_latent = latent * (d_latent - (d_latent * latent).sum(1, keepdims=True))
        of_latents = z.backward(d_latent, number(kl_weight) / number(n_cells))
        of_experts = [of_latents] if self._product is None else self._product.backward(*of_latents)
        for one, of_latent, of_library in zip(seen, of_experts, of_libraries, strict=True):
            gradients = [of_latent] if of_library is None else [of_latent, of_library]
            self.first_layers[one.place] = one.view.encoders.backward(gradients)
