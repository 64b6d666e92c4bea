"""A fit's loadings as someone wants to see them: rotated, per standard deviation, with their errors."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._products import product
from sc_ldvae.inputs import factor_positions, fitted_places, pick_modality, rotation_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sc_ldvae import assess
    from sc_ldvae._typing import Data, Floats, Mask, Positions

Per: TypeAlias = Literal["unit", "sd"]


@dataclass(frozen=True)
class View:
    """Loadings, their errors and the latent in one frame."""

    adata: AnnData
    stored: record.Record
    turn: Floats | None
    """Matrix from the shown latent to the one asked for, if they differ."""
    per: Per
    log2: bool

    @classmethod
    def of(
        cls, data: Data, rotation: assess.Method | None, per: Per, key: str, modality: str | None, *, log2: bool
    ) -> View:
        if per not in get_args(Per):
            msg = f"per={per!r} is unknown. Choose 'unit' or 'sd'."
            raise ValueError(msg)
        adata = pick_modality(data, modality)
        stored = record.read(adata, key)
        turn = None
        if rotation is not None:
            turn = stored.turn_to(rotation_of(adata, stored, rotation, "rotation"))
        return cls(adata, stored, turn, per, log2)

    def loadings(self, factors: Sequence[int | str] | None) -> pd.DataFrame:
        shown = self.stored.shown_decoder.log_proportion.loadings[self._rows()]
        return self._frame(shown if self.turn is None else product(shown, np.linalg.inv(self.turn).T), factors)

    def latent(self) -> Floats:
        """Of the factors as they are asked for, n_obs x n_latent."""
        latent = record.state_of(self.adata, self.stored).latent
        for matrix in (self.stored.rotation, self.turn):
            latent = latent if matrix is None else product(latent, matrix)
        return latent

    def errors(self, factors: Sequence[int | str] | None) -> pd.DataFrame:
        covariance = self.stored.loadings_covariance
        if covariance is None:
            msg = (
                f"uns[{self.stored.keys.uns!r}] has no errors of its loadings, as it was written by an older version. "
                "Fit again."
            )
            raise ValueError(msg)
        covariance = covariance[self._rows()]
        if self.turn is not None:
            covariance = record.turned(covariance, self.turn)
        return self._frame(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), factors)

    def _frame(self, values: Floats, factors: Sequence[int | str] | None) -> pd.DataFrame:
        """Of the fitted genes in `adata` (rows of `values`) and the chosen factors (columns), in the unit asked for."""
        chosen = factor_positions(self.stored, factors)
        return pd.DataFrame(
            (values * self._unit())[:, chosen].astype(np.float32),
            index=self.adata.var_names[self._fitted()],
            columns=[self.stored.factor_names[k] for k in chosen],
        )

    def _unit(self) -> Floats | float:
        """What one unit of the factors is multiplied by, n_latent or a number."""
        base = np.log2(math.e) if self.log2 else 1.0
        return base if self.per == "unit" else base * self.latent().std(axis=0, dtype=np.float64)

    def _fitted(self) -> Mask:
        """Which of var_names were fitted."""
        places = fitted_places(self.adata, self.stored, logging.INFO)
        fitted = np.zeros(self.adata.n_vars, dtype=bool)
        fitted[places[places >= 0]] = True
        return fitted

    def _rows(self) -> Positions:
        """Rows of the decoder for those."""
        return pd.Index(self.stored.genes).get_indexer(self.adata.var_names[self._fitted()])


def latent_of(adata: AnnData, rotation: assess.Method | None, key: str) -> Floats:
    """Latent of the factors that :func:`loadings` gives, n_obs x n_latent."""
    return View.of(adata, rotation, "unit", key, None, log2=False).latent()
