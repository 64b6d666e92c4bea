"""The same fit again, on other cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae.fit._fit import trained
from sc_ldvae.fit._fold import canonical_decoder
from sc_ldvae.fit._scan import of_sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

    from sc_ldvae._typing import Floats
    from sc_ldvae.fit._request import Request
    from sc_ldvae.fit._resample import Resampled


def refits(request: Request, samples: Iterable[Resampled], rng: np.random.Generator) -> Iterator[list[Floats]]:
    """Loadings of a fit to each sample of the cells, n_genes x n_latent for each modality."""
    for sample in samples:
        asked, held_out = of_sample(request, sample)
        views = trained(asked, held_out, rng).model.views
        yield [canonical_decoder(view).log_proportion.loadings for view in views]
