"""The entry of a record for genes outside of its fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sc_ldvae.record._covariance import packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.record._decoder import AffineMap

OTHERS = "others"


def of_others(genes: NDArray[Any], log_proportion: AffineMap, covariance: Floats) -> dict[str, Any]:
    """Genes with the map to their log proportions, and the covariance of the estimates of their loadings."""
    return {"genes": genes, **log_proportion.to_dict(), "loadings_covariance": packed(covariance)}
