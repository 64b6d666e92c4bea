"""What a record has, be it of one modality or of several."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae.record._keys import Keys
    from sc_ldvae.record._record import Record


class AnyRecord:
    """Factors with names, of which some may have vanished, in one modality or several."""

    keys: Keys
    content: Mapping[str, Any]

    @property
    def views(self) -> Mapping[str, Record]:
        """Records of the modalities, in the order of the fit."""
        raise NotImplementedError

    @property
    def first(self) -> Record:
        """What is the same in all of them."""
        return next(iter(self.views.values()))

    @property
    def n_latent(self) -> int:
        """Number of factors."""
        n_latent: int = self.first.content["decoder"]["loadings"].shape[1]
        return n_latent

    @property
    def factor_names(self) -> list[str]:
        """Names of the factors: the record's key and a number from 1."""
        return [f"{self.keys.uns}{k}" for k in range(1, self.n_latent + 1)]

    @cached_property
    def vanished(self) -> NDArray[np.bool_]:
        """Factors that the cells did not support, n_latent: their loadings are zero in all modalities."""
        of_views = [view.shown_decoder.log_proportion.vanished for view in self.views.values()]
        vanished: NDArray[np.bool_] = np.all(of_views, axis=0)
        # Where there is nothing else, that is what there is to show.
        return vanished & ~vanished.all()

    @property
    def left(self) -> list[int]:
        """Positions of the other factors."""
        return np.flatnonzero(~self.vanished).tolist()

    @property
    def names_left(self) -> list[str]:
        """Names of the other factors."""
        return [self.factor_names[k] for k in self.left]

    @property
    def explained_deviance(self) -> NDArray[np.floating[Any]]:
        """Each factor's share of the deviance of all modalities together, n_latent."""
        shares: NDArray[np.floating[Any]] = self.content["explained_deviance"]
        return shares

    @property
    def total_explained_deviance(self) -> float:
        """Share of all factors together."""
        total: float = self.content["total_explained_deviance"]
        return total
