"""One modality of a model on the CPU: its encoders, its likelihood, and its library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae.engine._encoder import FusedEncoders
from sc_ldvae.engine._likelihood import FusedLikelihood
from sc_ldvae.engine._normal import Drawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.engine._flat import Flat
    from sc_ldvae.engine._likelihood import Inputs
    from sc_ldvae.kernels import SparseRows
    from sc_ldvae.nn import LDVAE


class Shown(NamedTuple):
    """The cells of a minibatch that have a modality."""

    cells: Positions | slice
    """Their positions in the minibatch."""
    rows: SparseRows
    """Their counts of its genes."""
    annotations: Mapping[str, NDArray[Any]]
    """What its model knows of them beside, by the names of its arguments."""

    @classmethod
    def all(cls, rows: SparseRows, annotations: Mapping[str, NDArray[Any]]) -> Shown:
        """Every cell has it."""
        return cls(slice(None), rows, annotations)

    def __len__(self) -> int:
        return len(self.rows.totals)


class FusedView:
    """An `LDVAE` on arrays, up to what becomes of the latent between encoder and decoder."""

    def __init__(self, model: LDVAE, flat: Flat) -> None:
        self._model = model
        self._encoders = FusedEncoders(model, flat)
        self.likelihood = FusedLikelihood(model, flat)
        self._library_prior = None
        if model.l_encoder is not None:
            self._library_prior = model.library_log_means.numpy(), model.library_log_vars.numpy()

    def encode(
        self, shown: Shown, generator: torch.Generator | None, *, training: bool
    ) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats] | None]:
        """Mean and variance of the latent's normal variables, then of the log library where it is latent."""
        mean, variance = self._encoders.forward(shown.rows, generator, training=training)
        n = self._model.n_latent
        return (mean[:, :n], variance[:, :n]), None if self._library_prior is None else (mean[:, n:], variance[:, n:])

    def draw_library(
        self, moments: tuple[Floats, Floats] | None, shown: Shown, generator: torch.Generator | None
    ) -> Drawn | None:
        """One draw of the log library of each cell, n_cells x 1, where it is latent."""
        if moments is None or self._library_prior is None:
            return None
        means, variances = self._library_prior
        batch = 0 if len(means) == 1 else shown.annotations["batch_index"]
        mean, variance = (np.broadcast_to(moment[batch], len(shown))[:, None] for moment in (means, variances))
        return Drawn.of(moments, (mean, variance), generator)

    def inputs(self, z: Floats, library: Drawn | None, shown: Shown) -> Inputs:
        """What the likelihood takes: the latent of its cells and their log library."""
        if library is not None:
            log_library = library.sample[:, 0]
        else:
            log_library = np.log(shown.annotations.get("size_factor", shown.rows.totals))
        return self.likelihood.inputs(z, log_library, shown.annotations)

    def backward(self, of_latent: tuple[Floats, Floats], of_library: tuple[Floats, Floats] | None) -> None:
        """Fill the encoders' gradients from those by means and variances."""
        if of_library is not None:
            of_latent = np.hstack([of_latent[0], of_library[0]]), np.hstack([of_latent[1], of_library[1]])
        self._encoders.backward(*of_latent)
