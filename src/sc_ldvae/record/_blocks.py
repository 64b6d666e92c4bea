"""The blocks of a record: stretches of genes with a likelihood each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.likelihoods import LIKELIHOODS, Block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

BLOCK_COLUMNS = {"modality": str, "start": int, "stop": int, "gene_likelihood": str, "dispersion": str}


def blocks_of(content: Mapping[str, Any]) -> tuple[Block, ...]:
    """The stored blocks; before format 4, the one that the parameters tell.

    Raises
    ------
    ValueError
        If a likelihood is none that this version knows.
    """
    if "blocks" in content:
        rows = zip(*(content["blocks"][name].tolist() for name in BLOCK_COLUMNS), strict=True)
        blocks = tuple(Block(*(kind(v) for kind, v in zip(BLOCK_COLUMNS.values(), row, strict=True))) for row in rows)
    else:
        likelihood, dispersion = (str(content["params"].get(name)) for name in ("gene_likelihood", "dispersion"))
        blocks = (Block("", 0, len(content["genes"]), likelihood, dispersion),)
    unknown = [block.gene_likelihood for block in blocks if block.gene_likelihood not in LIKELIHOODS]
    if unknown:
        known = ", ".join(map(repr, LIKELIHOODS))
        msg = f"The fit has the likelihood {unknown[0]!r}, but this version knows {known}. Update sc-ldvae."
        raise ValueError(msg)
    return blocks


def table_of(blocks: Sequence[Block]) -> dict[str, NDArray[Any]]:
    """Blocks as a file keeps them."""
    return {
        name: np.array([getattr(block, name) for block in blocks], dtype=kind) for name, kind in BLOCK_COLUMNS.items()
    }
