"""Differences in expression between groups of cells, under the posterior, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_ldvae.decode._log_proportions import LogProportions
from sc_ldvae.kernels import compare, n_slices, own_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_ldvae._typing import Bar, Floats, Positions
    from sc_ldvae.record import Record, State

# Bins of log2 expression are at most so wide.
_WIDEST_BIN = 1 / 32
# No count is larger, and so no expression in counts.
_LARGEST_COUNT = 2.0**31
# Genes between two steps of the progress bar.
_GENES = 256


@dataclass(frozen=True)
class Comparison:
    """Results for each test and gene, n_tests x n_genes each."""

    up: Floats
    """Probability that the log2 fold change is at least the threshold."""
    down: Floats
    """Probability that it is at most minus the threshold."""
    greater: Floats
    """Probability that it is above zero."""
    mean: Floats
    """Its mean."""
    variance: Floats
    proportion: Floats
    """Mean proportion of the counts in the group; without a library mean expression."""
    proportion_reference: Floats
    """The same in the reference."""


class Compared(NamedTuple):
    """Groups of cells, and which of them are compared."""

    groups: NDArray[np.int64]
    """Group of each cell, n_obs."""
    tests: NDArray[np.int64]
    """Group and reference group of each test, n_tests x 2; the reference -1 is all other cells."""


def compared(
    cells: LogProportions,
    asked: Compared,
    genes: Positions,
    bar: Bar,
    *,
    delta: float,
    pseudocount: float,
    largest: float = 1.0,
) -> Comparison:
    """Log2 fold changes ``log2(rho_a + pseudocount) - log2(rho_b + pseudocount)`` over all pairs of cells a, b.

    Parameters
    ----------
    cells
        n_obs.
    asked
        Groups of the cells, and which of them are compared.
    genes
        Positions of the genes to compare.
    bar
        Told of every gene.
    delta
        Threshold of the log2 fold change.
    pseudocount
        Added to the proportions.
    largest
        What no proportion is above.
    """
    u, scale, centres = (np.ascontiguousarray(part.T) for part in (cells.u, cells.scale, cells.centres))
    decoder, loadings = cells.decoder, cells.decoder[: len(scale)]
    groups, tests = asked
    lag = int(np.ceil(delta / _WIDEST_BIN))
    out = np.empty((len(tests), len(genes), len(fields(Comparison))))
    with own_threads():
        for start in range(0, len(genes), _GENES):
            chosen = genes[start : start + _GENES]
            part = np.empty((len(tests), len(chosen), out.shape[2]))
            compare(
                n_slices(u.size * len(chosen)),
                u,
                scale,
                centres,
                np.ascontiguousarray(decoder.T[chosen]),
                np.ascontiguousarray(loadings.T[chosen]),
                cells.competing,
                cells.log_sums,
                groups,
                np.bincount(groups),
                tests,
                float(pseudocount),
                largest,
                delta / lag,
                lag,
                part,
            )
            out[:, start : start + _GENES] = part
            bar.update(len(chosen))
    return Comparison(*np.moveaxis(out, -1, 0))


def mixture(parts: Sequence[Comparison]) -> Comparison:
    """The comparison of values that come from each part equally often."""
    means = {field.name: np.mean([getattr(part, field.name) for part in parts], axis=0) for field in fields(Comparison)}
    squares = np.mean([part.variance + part.mean**2 for part in parts], axis=0)
    return Comparison(**means | {"variance": squares - means["mean"] ** 2})


def mean_comparison(
    stored: Record,
    state: State,
    designs: Sequence[Floats],
    asked: Compared,
    genes: Positions,
    bar: Bar,
    **thresholds: float,
) -> Comparison:
    """The comparison over a mixture of settings of the covariates (`designs`, n_obs x columns each)."""
    # Groups in the order of their cells: those of one group stay together in the kernel's cache.
    order = np.argsort(asked.groups, kind="stable")
    state, asked = state.rows(order), asked._replace(groups=asked.groups[order])
    largest, parts = 1.0 if stored.has_library else _LARGEST_COUNT, []
    for design in designs:
        cells = LogProportions.of(stored, state, design[order])
        parts.append(compared(cells, asked, genes, bar, largest=largest, **thresholds))
    return mixture(parts)
