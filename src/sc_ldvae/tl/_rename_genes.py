"""Genes of an object and its fits under new names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from sc_ldvae._typing import Data


@door
def rename_genes(
    data: Data, names: Mapping[str, str] | str, *, modality: str | None = None, copy: bool = False
) -> Data | None:
    """Give genes other names, in the object and in everything that fits have left there.

    A fit knows its genes by their names. Where `var_names` are changed alone, from Ensembl ids to symbols say, it does
    not find them any more; this changes both. Where that has happened already, rename from the names that the fit has
    to those of now: ``dict(zip(adata.var["gene_ids"], adata.var_names))``.

    Parameters
    ----------
    data
        AnnData, or MuData with a `modality`.
    names
        New names by old ones, or the column of `var` that holds the new name of each gene. Genes that a dict does not
        name keep theirs. Old names are found in `var_names`, in every fit and in every comparison.
    modality
        Modality of a MuData. Call ``mdata.update()`` afterwards.
    copy
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the copy. Fits answer as before: nothing but names is another. `adata.raw` keeps its own.

    Raises
    ------
    ValueError
        If there is no such column, or it lacks names or holds other than text, if genes would share a name, if no gene
        has one of the old names, if a fit is of several modalities (rename before it), or if data is backed by a file
        that is open for writing. `data` is not changed.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.rename_genes(adata, {"gene0": "CD3E", "gene1": "LYZ"})
    >>> sc_ldvae.get.loadings(adata).index[:3].tolist()
    ['CD3E', 'LYZ', 'gene2']
    """
    new = inputs.new_names_of(inputs.pick_modality(data, modality), names)

    def write(adata: AnnData) -> None:
        record.write_renamed(adata, new)

    return inputs.changed(data, modality, write, copy=copy)
