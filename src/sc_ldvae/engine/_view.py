"""One modality of a model on the CPU: its encoders, its likelihood, and its library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae.engine._encoder import FusedEncoders
from sc_ldvae.engine._likelihood import FusedLikelihood
from sc_ldvae.engine._normal import Drawn, Noise, Prior

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.engine._encoder import Moments
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
        self.encoders = FusedEncoders(model, flat)
        self.likelihood = FusedLikelihood(model, flat)
        self._noise = Noise(1, flat.values)
        self._library_prior = None
        if model.l_encoder is not None:
            self._library_prior = model.library_log_means.numpy(), model.library_log_vars.numpy()

    def draw_library(self, moments: Moments | None, shown: Shown, generator: torch.Generator | None) -> Drawn | None:
        """One draw of the log library of each cell, n_cells x 1, where it is latent."""
        if moments is None or self._library_prior is None:
            return None
        means, variances = self._library_prior
        one_group = len(means) == 1
        group = np.zeros(len(shown), np.int64) if one_group else shown.annotations["batch_index"].astype(np.int64)
        return Drawn.of(moments, Prior(means, variances, group), self._noise.draw(len(shown), generator))

    def inputs(self, z: Floats, library: Drawn | None, shown: Shown) -> Inputs:
        """What the likelihood takes: the latent of its cells and their log library."""
        if library is not None:
            log_library = library.sample[:, 0]
        else:
            log_library = np.log(shown.annotations.get("size_factor", shown.rows.totals))
        return self.likelihood.inputs(z, log_library, shown.annotations)
