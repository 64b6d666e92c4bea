"""The likelihoods that have a fused row function, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sc_ldvae.kernels import _bernoulli, _negative_binomial, _poisson, _zero_inflation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

# From the values of the parts that have one per group (groups x genes each) to what `row_loss` takes.
TERMS: dict[str, Callable[[Sequence[NDArray[np.floating[Any]]]], Any]] = {
    "nb": _negative_binomial.terms,
    "zinb": _zero_inflation.terms,
    "poisson": _poisson.terms,
    "bernoulli": _bernoulli.terms,
}
