"""Map cells into the factors of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sc_ldvae._typing import Data


@door
def project(
    query: Data,
    reference: Data,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: inputs.Layer = UNSET,
    missing_genes: inputs.MissingGenes = "error",
    key_added: str | None = None,
    copy: bool = False,
    progress: bool = True,
) -> Data | None:
    """Map cells into the factors of a fit, without fitting again.

    The stored encoder reads the counts of the cells: the reference's own cells get the latent that they have, bit for
    bit. Genes are matched by name, in any order; genes that the fit does not know are ignored. Afterwards the query
    carries the whole fit, so that everything that works on the reference works on it.

    The encoder does not look at batches and covariates: cells of new batches can be mapped. What decodes them needs a
    batch that the fit has seen; where it can be chosen, name one (`batch` of :func:`normalized_expression`).

    Parameters
    ----------
    query
        AnnData with raw counts, or MuData with such a `modality`; for a joint fit a MuData that may lack some of its
        modalities, in all or in some of the cells.
    reference
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit. It may have no counts.
    key
        The `key_added` of the fit.
    modality
        Modality of what is a MuData.
    layer
        Layer of the query with raw counts, X for None; the layer of the fit by default. Of a joint fit also one for
        each modality.
    missing_genes
        What to do if the query lacks genes of the fit: ``'error'``, or ``'zero'`` to take their counts for zero and
        report how many they are through logging.
    key_added
        Name of the results; that of the fit by default.
    copy
        Return a changed copy and leave `query` as it is.
    progress
        Show a progress bar.

    Returns
    -------
    None, or the copy. The query gets the entries that :func:`ldvae` describes: latent (n_obs x n_latent) and its
    posterior variance in `obsm`, the library and the mark of held-out cells (all of them: the fit has not seen them) in
    `obs`, loadings in `varm`, the record in `uns`.

    Raises
    ------
    ValueError
        If there is no such fit, if genes are missing, or if the counts are not counts. `query` is not changed.

    Examples
    --------
    >>> import numpy as np, sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> reference, query = adata[:150].copy(), adata[150:, ::-1].copy()
    >>> sc_ldvae.tl.ldvae(reference, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.project(query, reference, progress=False)
    >>> query.obsm["X_ldvae"].shape
    (50, 3)
    """
    from tqdm import tqdm

    from sc_ldvae import fit

    inputs.check_key(key_added)
    if modality is not None and not any(map(inputs.is_mudata, (query, reference))):
        msg = f"modality={modality!r} was given, but query and reference are AnnData. Leave it out, or pass a MuData."
        raise ValueError(msg)
    cells, fitted, stored = _found(query, reference, key, modality)
    keys = stored.keys if key_added is None else record.Keys.named(key_added)
    with inputs.told_whose(query, cells):
        scorable = _scorable(cells, stored, keys, layer, missing_genes)
    with scorable.scorer() as scorer, tqdm(total=cells.n_obs, unit="cell", disable=not progress) as bar:
        state = fit.posterior(scorable.model, scorer, scorable.cells, scorable.everyone, bar)

    held_out = record.held_out(cells, stored) if cells is fitted else np.ones(cells.n_obs, dtype=bool)
    result = inputs.copied(query) if copy else query
    if isinstance(stored, record.JointRecord):
        record.write_joint_state(cast("MuData", result), stored, keys, state, held_out)
    else:
        record.write_projected(_anndata(result, modality), stored, keys, state, held_out)
    return result if copy else None


def _found(
    query: Data, reference: Data, key: str, modality: str | None
) -> tuple[Any, Data, record.Record | record.JointRecord]:
    """What the cells are mapped in, what was fitted, and the fit."""
    if modality is None and all(map(inputs.is_mudata, (query, reference))) and record.joint_fits_in(reference):
        return query, reference, record.read_joint(reference, key)
    adata, fitted = (_anndata(data, modality) for data in (query, reference))
    return adata, fitted, record.read(fitted, key)


def _scorable(
    cells: Any,  # noqa: ANN401  either of two
    stored: record.Record | record.JointRecord,
    keys: record.Keys,
    layer: inputs.Layer,
    missing_genes: inputs.MissingGenes,
) -> inputs.Scorable:
    """Cells that the encoders can be asked about: of a joint fit by those modalities that they have."""
    if not isinstance(stored, record.JointRecord):
        return inputs.for_encoder(cells, stored, inputs.layer_of(layer), missing_genes)
    inputs.check_free(cells, keys.uns, [name for name in stored.modalities if name in cells.mod])
    return inputs.for_joint_encoder(cells, stored, layer, missing_genes)


def _anndata(data: Data, modality: str | None) -> AnnData:
    return inputs.pick_modality(data, modality if inputs.is_mudata(data) else None)
