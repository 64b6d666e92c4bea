"""A stored fit and an object's counts, brought together for what needs both."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sc_ldvae._typing import Unset
from sc_ldvae.counts import Cells, WithColumns
from sc_ldvae.inputs._annotations import Annotations, size_factors
from sc_ldvae.inputs._counts import check_genes, counts_of
from sc_ldvae.inputs._modality import obs_of
from sc_ldvae.inputs._names import examples
from sc_ldvae.record import Design, check_cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from sc_ldvae._typing import Positions
    from sc_ldvae.counts import Source
    from sc_ldvae.engine import Scorer
    from sc_ldvae.nn import Model
    from sc_ldvae.record import Record

MissingGenes = Literal["error", "zero"]
_log = logging.getLogger("sc_ldvae")


@dataclass(frozen=True)
class Scorable:
    """The model of a record, and cells that it can be asked about."""

    model: Model
    cells: Cells

    @property
    def everyone(self) -> Positions:
        """Positions of all cells."""
        return np.arange(self.cells.n_obs)

    @contextmanager
    def scorer(self) -> Iterator[Scorer]:
        """What computes."""
        from sc_ldvae.engine import scorer_of

        with scorer_of(self.model) as scorer:
            yield scorer


def for_encoder(adata: AnnData, stored: Record, layer: str | Unset | None, missing_genes: MissingGenes) -> Scorable:
    """The model and cells of which it needs to know nothing but the counts (and the size factor, where it has one)."""
    check_missing_genes(missing_genes)
    return encoder_of(adata, stored, fitted_counts(adata, stored, layer, missing_genes))


def check_missing_genes(missing_genes: str) -> None:
    """Refuse what is no way to treat genes that are missing."""
    if missing_genes not in get_args(MissingGenes):
        msg = f"missing_genes={missing_genes!r} is unknown. Choose 'error' or 'zero'."
        raise ValueError(msg)


def encoder_of(adata: AnnData, stored: Record, source: Source) -> Scorable:
    """The same for counts that are at hand, of the fitted genes."""
    from sc_ldvae.fit import unfolded

    return Scorable(unfolded([stored.folded]), sized(adata, stored, source))


def sized(adata: AnnData, stored: Record, source: Source) -> Cells:
    """Cells of which is known, beside such counts, what stands for their library."""
    sizes = Annotations(obs_of(adata), Design(), None, *size_factors_of(adata, stored), stored.has_library)
    return Cells(source, sizes.arrays())


def for_likelihood(adata: AnnData, stored: Record, layer: str | Unset | None) -> Scorable:
    """The model and cells with all that their likelihood depends on."""
    from sc_ldvae.fit import unfolded

    source = fitted_counts(adata, stored, layer)
    return Scorable(unfolded([stored.folded]), Cells(source, annotations_of_record(adata, stored).arrays()))


def annotations_of_record(adata: AnnData, stored: Record) -> Annotations:
    """What a fit knows of each cell, for the cells of `adata`."""
    sizes = size_factors_of(adata, stored)
    return Annotations(obs_of(adata), stored.design, stored.labels, *sizes, stored.has_library)


def fitted_counts(
    adata: AnnData, stored: Record, layer: str | Unset | None, missing_genes: MissingGenes = "error"
) -> Source:
    """Checked counts of the fitted genes, in the order of the fit."""
    check_cells(adata)
    check_genes(adata)
    genes = stored.genes
    positions = stored.positions_in(adata.var_names)
    found = positions >= 0
    _check_genes(genes[~found], len(genes), missing_genes)
    layer = stored.param("layer") if isinstance(layer, Unset) else layer
    source = counts_of(adata, layer, positions[found], may_be_empty=not stored.has_library)
    return source if found.all() else WithColumns(source, np.flatnonzero(found), len(genes))


def _check_genes(missing: np.ndarray, n_genes: int, missing_genes: MissingGenes) -> None:
    if not len(missing):
        return
    what = f"{len(missing)} of the {n_genes} genes of the fit are not among var_names ({examples(missing)})"
    if len(missing) == n_genes:
        msg = f"{what}: the fit is of another gene set. Are the genes named in another way, such as by Ensembl ids?"
        raise ValueError(msg)
    if missing_genes == "error":
        msg = f"{what}. Add them; to map cells as if they had no counts there, pass missing_genes='zero' to tl.project."
        raise ValueError(msg)
    _log.warning("%s. Their counts are taken for zero.", what)


def size_factors_of(adata: AnnData, stored: Record) -> tuple[np.ndarray | None, float]:
    """Size factors of the cells, where the fit has some, and the library that one of them stands for."""
    key, unit = stored.param("size_factor_key"), stored.size_factor_unit
    if key is None:
        return None, 1.0
    if unit is None:
        msg = (
            f"uns[{stored.keys.uns!r}] was written by an older version, which did not store the scale of the size "
            "factors. Fit again, or take the object of the fit."
        )
        raise ValueError(msg)
    return size_factors(obs_of(adata), key), unit
