"""A stored fit and an object's counts, brought together for what needs both."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy import sparse

from sc_ldvae import fit, record
from sc_ldvae._modality import obs_of
from sc_ldvae._typing import Unset
from sc_ldvae.counts import Cells, Counts
from sc_ldvae.tl import _arguments as door

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from sc_ldvae.fit import Engine
    from sc_ldvae.nn import LDVAE

MissingGenes = Literal["error", "zero"]
_EXAMPLES = 3
_log = logging.getLogger("sc_ldvae")


@dataclass(frozen=True)
class Stored:
    """The model of a record, and cells that it can be asked about."""

    model: LDVAE
    cells: Cells

    @property
    def everyone(self) -> torch.Tensor:
        """Positions of all cells."""
        return torch.arange(self.cells.counts.n_obs)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """What computes."""
        with fit.engine_of(self.model, self.cells) as engine:
            yield engine


def model_of(stored: record.Record) -> LDVAE:
    """The record's model."""
    content = stored.content
    return fit.unfolded(stored.decoder, content["encoder"], content.get("library_prior"), stored.options)


def for_encoder(
    adata: AnnData, stored: record.Record, layer: str | Unset | None, missing_genes: MissingGenes
) -> Stored:
    """The model and cells of which it needs to know nothing but the counts (and the size factor, where it has one)."""
    if missing_genes not in {"error", "zero"}:
        msg = f"missing_genes={missing_genes!r} is unknown. Choose 'error' or 'zero'."
        raise ValueError(msg)
    return encoder_of(adata, stored, fitted_counts(adata, stored, layer, missing_genes))


def encoder_of(adata: AnnData, stored: record.Record, counts: csr_matrix) -> Stored:
    """The same for counts that are at hand, of the fitted genes."""
    sizes = door.Annotations(obs_of(adata), record.Design(), None, *size_factors_of(adata, stored)).tensors()
    return Stored(model_of(stored), Cells(Counts.from_csr(counts), **sizes))


def for_likelihood(adata: AnnData, stored: record.Record, layer: str | Unset | None) -> Stored:
    """The model and cells with all that their likelihood depends on."""
    counts = fitted_counts(adata, stored, layer)
    annotations = door.Annotations(obs_of(adata), stored.design, stored.labels, *size_factors_of(adata, stored))
    return Stored(model_of(stored), Cells(Counts.from_csr(counts), **annotations.tensors()))


def fitted_counts(
    adata: AnnData, stored: record.Record, layer: str | Unset | None, missing_genes: MissingGenes = "error"
) -> csr_matrix:
    """Checked counts of the fitted genes, in the order of the fit."""
    door.check_in_memory(adata)
    genes = stored.genes
    positions = stored.positions_in(adata.var_names)
    found = positions >= 0
    _check_genes(genes[~found], len(genes), missing_genes)
    layer = stored.param("layer") if isinstance(layer, Unset) else layer
    counts = door.counts_of(adata, layer, positions[found])
    if found.all():
        return counts
    columns = np.flatnonzero(found)[counts.indices]
    return sparse.csr_matrix((counts.data, columns, counts.indptr), shape=(adata.n_obs, len(genes)))


def _check_genes(missing: np.ndarray, n_genes: int, missing_genes: MissingGenes) -> None:
    if not len(missing):
        return
    names = ", ".join(map(repr, missing[:_EXAMPLES].tolist())) + (", ..." if len(missing) > _EXAMPLES else "")
    what = f"{len(missing)} of the {n_genes} genes of the fit are not among var_names ({names})"
    if len(missing) == n_genes:
        msg = f"{what}: the fit is of another gene set. Are the genes named in another way, such as by Ensembl ids?"
        raise ValueError(msg)
    if missing_genes == "error":
        msg = f"{what}. Add them; to map cells as if they had no counts there, pass missing_genes='zero' to tl.project."
        raise ValueError(msg)
    _log.warning("%s. Their counts are taken for zero.", what)


def size_factors_of(adata: AnnData, stored: record.Record) -> tuple[np.ndarray | None, float]:
    """Size factors of the cells, where the fit has some, and the library that one of them stands for."""
    key = stored.param("size_factor_key")
    if key is None:
        return None, 1.0
    if "size_factor_unit" not in stored.content:
        msg = (
            f"uns[{stored.keys.uns!r}] was written by an older version, which did not store the scale of the size "
            "factors. Fit again, or take the object of the fit."
        )
        raise ValueError(msg)
    return door.size_factors(obs_of(adata), key), float(stored.content["size_factor_unit"])
