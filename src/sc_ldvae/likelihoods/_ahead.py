"""The kernels of a likelihood, compiled before there is a model that calls them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from sc_ldvae.likelihoods._likelihood import Contrasts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sc_ldvae._typing import Floats
    from sc_ldvae.likelihoods._likelihood import Likelihood

_CODE = "from sc_ldvae.likelihoods import compile_ahead; compile_ahead({modes!r}, {{}})"


class Mode(NamedTuple):
    """What the machine code of a likelihood's kernels depends on."""

    gene_likelihood: str
    of_cells: bool
    """Whether dispersions depend on the cell (`dispersion='gene-cell'`)."""


@contextmanager
def compiled_together(modes: Sequence[Mode], tell: Callable[[str], None]) -> Iterator[None]:
    """Where kernels have to be compiled, a second process compiles those of these modes, while this one does others.

    `tell` is told what is waited for, and that nothing is any more.
    """
    from sc_ldvae.kernels import Compilation, compiled_with

    code = _CODE.format(modes=[tuple(mode) for mode in modes])
    with compiled_with(Compilation(tell, code, list(_KERNELS))):
        yield


def compile_ahead(modes: Sequence[tuple[str, bool]], names: Sequence[str]) -> None:
    """Compile the named kernels for these modes, or load what was kept of them."""
    from sc_ldvae.likelihoods import LIKELIHOODS

    for name in names:
        for gene_likelihood, of_cells in modes:
            _KERNELS[name](LIKELIHOODS[gene_likelihood], of_cells)


# The smallest counts that have every kind of argument: two cells, three genes, one factor.
_N_CELLS, _N_GENES = 2, 3


def _count_loss(likelihood: Likelihood, of_cells: bool) -> None:  # noqa: FBT001  the second part of a mode
    from sc_ldvae.kernels import TERMS, count_loss

    if likelihood.name not in TERMS:
        return
    linear = [part for part in likelihood.parts if _is_linear(part.depends_on, of_cells=of_cells)]
    grouped = [_zeros(1, _N_GENES) for _ in range(len(likelihood.parts) - len(linear))]
    u, maps = _zeros(_N_CELLS, 2), _zeros(1 + len(linear), 2, _N_GENES)
    counts = _counts()
    count_loss(
        1,
        counts.indptr.astype(np.int64),
        counts.indices,
        counts.data,
        _zeros(_N_CELLS),
        u,
        np.ascontiguousarray(u.T),
        maps,
        np.zeros(_N_CELLS, np.int64),
        TERMS[likelihood.name](grouped),
        np.float32(1),
        _zeros(_N_CELLS),
        _zeros(*u.shape[::-1]),
        _zeros(_N_CELLS),
        _zeros(1, *maps.shape),
        _zeros(1, len(grouped), 1, _N_GENES),
    )


def _is_linear(depends_on: str, *, of_cells: bool) -> bool:
    return depends_on == "factors" or (depends_on == "dispersion" and of_cells)


def _deviances(likelihood: Likelihood, _of_cells: bool) -> None:  # noqa: FBT001  as above
    likelihood.expected_totals(_contrasts(), _linear(likelihood))
    likelihood.deviances(_counts(), _contrasts(), _linear(likelihood))


# Those that take longest, in the order in which a fit needs them.
_KERNELS: dict[str, Callable[[Likelihood, bool], None]] = {
    "count_loss": _count_loss,
    "deviances": _deviances,
}


def _counts() -> csr_matrix:
    return csr_matrix(np.ones((_N_CELLS, _N_GENES), np.float32))


def _contrasts() -> Contrasts:
    eta, loadings = np.zeros((_N_CELLS, _N_GENES)), np.zeros((1, _N_GENES))
    none = np.zeros((1, 1), dtype=bool)
    return Contrasts(np.ones(_N_CELLS), eta[0], eta, np.zeros((_N_CELLS, 1)), loadings, none, loadings)


def _linear(likelihood: Likelihood) -> Mapping[str, Floats]:
    return {part.name: np.zeros((_N_CELLS, _N_GENES)) for part in likelihood.parts}


def _zeros(*shape: int) -> Floats:
    return np.zeros(shape, np.float32)
