"""Where a fit lives inside an AnnData."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "ldvae"


@dataclass(frozen=True)
class Keys:
    """Names of everything that a fit writes; `obs`, `obsm` and `varm` entries follow the object's subsetting."""

    uns: str
    """Record: parameters, decoder, encoder, history."""
    latent: str
    """obsm: posterior mean of the latent."""
    variance: str
    """obsm: posterior variance of the latent (before the softmax of 'ln')."""
    loadings: str
    """varm: loadings, zero for genes that were not fitted."""
    loadings_se: str
    """varm: their standard errors, where the fit has some, NaN for genes that were not fitted (before, zero)."""
    library: str
    """obs: library of each cell."""
    held_out: str
    """obs: whether the cell was held out."""
    fit: str
    """obs: fingerprint of the fit that the cell's latent is of."""

    @classmethod
    def named(cls, key_added: str | None) -> Keys:
        """Names for `key_added`; the defaults of the package for None.

        Examples
        --------
        >>> from sc_ldvae.record import Keys
        >>> Keys.named(None).latent, Keys.named("foo").latent
        ('X_ldvae', 'foo')
        """
        stem = DEFAULT if key_added is None else key_added
        return cls(
            uns=stem,
            latent="X_ldvae" if key_added is None else key_added,
            variance=f"X_{stem}_variance" if key_added is None else f"{stem}_variance",
            loadings=f"{stem}_loadings" if key_added is None else key_added,
            loadings_se=f"{stem}_loadings_se" if key_added is None else f"{stem}_se",
            library=f"{stem}_library",
            held_out=f"{stem}_held_out",
            fit=f"{stem}_fit",
        )

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Keys:
        """The names that `to_dict` gave; formats before 3 had none for the standard errors, before 5 for the fit."""
        return cls(**{"loadings_se": f"{stored['loadings']}_se", "fit": f"{stored['uns']}_fit"} | dict(stored))

    def to_dict(self) -> dict[str, str]:
        """Names as plain strings, as the record keeps them."""
        return asdict(self)
