"""A fit's loadings as someone wants to see them: rotated, per standard deviation, with their errors."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._products import product
from sc_ldvae.get._per_modality import objects_of
from sc_ldvae.get._symbols import renamed, symbols_of
from sc_ldvae.inputs import factor_positions, fitted_of, known_places, rotation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData

    from sc_ldvae import assess
    from sc_ldvae._typing import Data, Floats, Mask, Positions

Per: TypeAlias = Literal["unit", "sd"]
Shown: TypeAlias = Literal["all", "fitted"]


@dataclass(frozen=True)
class _Genes:
    """The genes with loadings that a modality has."""

    names: pd.Index
    """As they are shown."""
    stored: record.Record
    rows: Positions
    """Of the known genes, for those."""

    @classmethod
    def of(cls, adata: AnnData, stored: record.Record, symbols: Mapping[str, str], shown: Shown) -> _Genes:
        places = known_places(adata, stored, logging.INFO)
        if shown == "fitted":
            places = places[: len(stored.genes)]
        chosen = np.zeros(adata.n_vars, dtype=bool)
        chosen[places[places >= 0]] = True
        names = adata.var_names[chosen]
        return cls(renamed(names, symbols), stored, pd.Index(stored.known_genes).get_indexer(names))


@dataclass(frozen=True)
class View:
    """Loadings, their errors and the latent in one frame."""

    data: Any
    """An AnnData, or the MuData of a joint fit."""
    stored: record.Record | record.JointRecord
    turn: Floats | None
    """Matrix from the shown latent to the one asked for, if they differ."""
    per: Per
    log2: bool
    gene_symbols: str | None
    """Column of var with the names by which genes are shown."""
    genes: Shown
    """All with loadings, or those of the fit alone."""

    @classmethod
    def of(
        cls,
        data: Data,
        rotation: assess.Method | None,
        per: Per,
        key: str,
        modality: str | None,
        *,
        log2: bool,
        gene_symbols: str | None = None,
        genes: Shown = "all",
    ) -> View:
        if per not in get_args(Per):
            msg = f"per={per!r} is unknown. Choose 'unit' or 'sd'."
            raise ValueError(msg)
        if genes not in get_args(Shown):
            msg = f"genes={genes!r} is unknown. Choose 'all' or 'fitted'."
            raise ValueError(msg)
        shown, stored = fitted_of(data, key, modality)
        turn = None
        if rotation is not None:
            joint = _fitted_with(data, stored, key, modality)
            matrix = rotation_of(shown if joint is None else data, joint or stored, rotation, "rotation")
            turn = stored.first.turn_to(matrix)
        return cls(shown, stored, turn, per, log2, gene_symbols, genes)

    def loadings(self, factors: Sequence[int | str] | None) -> dict[str, pd.DataFrame]:
        """Of each modality, genes in the object x the chosen factors, in the unit asked for."""

        def turned(genes: _Genes) -> Floats:
            shown = genes.stored.shown_decoder.known.loadings[genes.rows]
            return shown if self.turn is None else product(shown, np.linalg.inv(self.turn).T)

        return self._frames(turned, factors)

    def fitted(self) -> dict[str, Mask]:
        """Of each modality, which of these genes were fitted; empty where all were."""
        found = {name: genes.rows < len(genes.stored.genes) for name, genes in self._genes.items()}
        return {} if all(own.all() for own in found.values()) else found

    def latent(self) -> Floats:
        """Of the factors as they are asked for, n_obs x n_latent."""
        latent = record.state_of(self.data, self.stored).latent
        for matrix in (self.stored.rotation, self.turn):
            latent = latent if matrix is None else product(latent, matrix)
        return latent

    @property
    def has_errors(self) -> bool:
        """Whether the fit knows the errors of its loadings."""
        return all(genes.stored.known_covariance is not None for genes in self._genes.values())

    def errors(self, factors: Sequence[int | str] | None) -> dict[str, pd.DataFrame]:
        """As the loadings."""
        return self._frames(self._errors_of, factors)

    def _errors_of(self, genes: _Genes) -> Floats:
        covariance = genes.stored.known_covariance
        if covariance is None:
            msg = (
                f"uns[{self.stored.keys.uns!r}] has no errors of its loadings, as it was written by an older version. "
                "Fit again."
            )
            raise ValueError(msg)
        covariance = covariance[genes.rows]
        if self.turn is not None:
            covariance = record.turned(covariance, self.turn)
        return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))

    def _frames(
        self, values: Callable[[_Genes], Floats], factors: Sequence[int | str] | None
    ) -> dict[str, pd.DataFrame]:
        chosen, unit = factor_positions(self.stored, factors), self._unit()
        names = [self.stored.factor_names[k] for k in chosen]
        return {
            modality: pd.DataFrame((values(genes) * unit)[:, chosen].astype(np.float32), genes.names, names)
            for modality, genes in self._genes.items()
        }

    def _unit(self) -> Floats | float:
        """What one unit of the factors is multiplied by, n_latent or a number."""
        base = np.log2(math.e) if self.log2 else 1.0
        return base if self.per == "unit" else base * self.latent().std(axis=0, dtype=np.float64)

    @cached_property
    def _genes(self) -> dict[str, _Genes]:
        objects, views = objects_of(self.data, self.stored), self.stored.views
        if not objects:
            names = ", ".join(map(repr, views))
            msg = f"data has none of the modalities of the fit: {names}. Were they renamed after it?"
            raise ValueError(msg)
        symbols = symbols_of(objects, self.gene_symbols)
        return {name: _Genes.of(adata, views[name], symbols[name], self.genes) for name, adata in objects.items()}


def latent_of(data: Data, rotation: assess.Method | None, key: str, modality: str | None) -> Floats:
    """Latent of the factors that :func:`loadings` gives, n_obs x n_latent."""
    return View.of(data, rotation, "unit", key, modality, log2=False).latent()


def _fitted_with(
    data: Data, stored: record.Record | record.JointRecord, key: str, modality: str | None
) -> record.JointRecord | None:
    """The joint fit that a named modality's is part of: its factors turn with those of the other modalities."""
    if modality is None or key not in record.joint_fits_in(data):
        return None
    joint = record.read_joint(data, key)
    # The modality may have been fitted again alone since.
    same = modality in joint.views and joint.views[modality].fingerprint == stored.fingerprint
    return joint if same else None
