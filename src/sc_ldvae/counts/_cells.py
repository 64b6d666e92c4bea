"""Cells of a fit: their counts and what else the model knows of each, handed out in minibatches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.counts._beside import Beside, Between
from sc_ldvae.counts._order import ALL, Share, buffered, buffers_of
from sc_ldvae.counts._source import in_chunks
from sc_ldvae.counts._subset import Subset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.counts._order import Permuting
    from sc_ldvae.counts._source import Source


# Which modalities a cell has, and what is known of it in each: n_cells x modalities, in joint fits.
PRESENT, OF_VIEWS = "present", ("size_factor",)


@dataclass(frozen=True)
class Minibatch:
    """Some cells, as an engine takes them."""

    counts: csr_matrix
    """Of all modalities, side by side."""
    annotations: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def views(self) -> list[tuple[Positions | None, Mapping[str, NDArray[Any]]]]:
        """For each modality which cells have it, and what is known of these; None where there is one for all."""
        return views_of(self.annotations)


@dataclass(frozen=True)
class Cells:
    """Counts, and annotations by the name of the model's argument; each has one row per cell."""

    source: Source
    annotations: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def beside(
        cls, of_modalities: Sequence[Cells], places: NDArray[np.int64], annotations: Mapping[str, NDArray[Any]]
    ) -> Cells:
        """Cells of several modalities.

        Parameters
        ----------
        of_modalities
            What each has, annotated by the library alone.
        places
            Position of each cell in each modality, -1 where it is not, n_obs x modalities.
        annotations
            What is known of the cells beside.
        """
        library = np.full(places.shape, np.nan, np.float32)
        for own, where, column in zip(of_modalities, places.T, library.T, strict=True):
            column[where >= 0] = own.library(where[where >= 0])
        source = Beside(tuple(own.source for own in of_modalities), places)
        return cls(source, {**annotations, PRESENT: places >= 0, "size_factor": library})

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.source.n_obs

    def library(self, cells: Positions) -> Floats:
        """Observed library of the cells at these positions: total counts, or size factors in counts.

        Of several modalities, n_cells x modalities, missing where a cell lacks one.
        """
        size_factor = self.annotations.get("size_factor")
        return (self.source.totals if size_factor is None else size_factor)[cells].astype(np.float32)

    def views(self, widths: Sequence[int]) -> list[View]:
        """Of each modality with its number of genes, the cells that have it."""
        if PRESENT not in self.annotations:
            return [View(self, np.arange(self.n_obs))]
        views, start = [], 0
        for width, (places, known) in zip(widths, views_of(self.annotations), strict=True):
            own = np.arange(self.n_obs) if places is None else places
            source = Between(Subset(self.source, own), start, start + width)
            views.append(View(Cells(source, known), own))
            start += width
        return views

    def minibatch(self, cells: Positions) -> Minibatch:
        """The cells at these positions."""
        return Minibatch(self.source.rows(cells), self._annotations_of(cells))

    def subset(self, cells: Positions) -> Cells:
        """Cells by position, in which a cell may be repeated."""
        return Cells(Subset(self.source, cells), self._annotations_of(cells))

    def kept(self, cells: Positions) -> Cells:
        """Cells by position, for what reads them again and again."""
        return Cells(self.source.kept(cells), self._annotations_of(cells))

    def chunks(self, cells: Positions, size: int) -> Iterator[Minibatch]:
        """The cells at these positions in their order, so many at a time."""
        for chunk, counts in in_chunks(self.source, cells, size):
            yield Minibatch(counts, self._annotations_of(cells[chunk]))

    def shuffled(
        self, cells: Positions, batch_size: int, rng: Permuting, skipped: int = 0, share: Share = ALL
    ) -> Iterator[Minibatch]:
        """Every cell once, in random order, in minibatches of equal size (to within one cell), without the first ones.

        Equal sizes, so that no minibatch ever holds a single cell, for which BatchNorm has no variance. Of several
        processes each gets as many.
        """
        at_once = buffered(self.source.nonzeros_per_cell)
        buffers = buffers_of(len(cells), n_minibatches(len(cells), batch_size, share.n), at_once, rng, share)
        while buffers and skipped >= len(buffers[0].sizes):
            skipped -= len(buffers.pop(0).sizes)
        for order, sizes in buffers:
            source = self.source.kept(cells[order])
            minibatches = np.split(np.arange(len(order)), np.cumsum(sizes)[:-1])
            for own in minibatches[skipped:]:
                yield Minibatch(source.rows(own), self._annotations_of(cells[order[own]]))
            skipped = 0
            # There is one at a time in memory.
            del source

    def _annotations_of(self, cells: Positions) -> dict[str, NDArray[Any]]:
        return {name: values[cells] for name, values in self.annotations.items()}


@dataclass(frozen=True)
class View:
    """Cells that have a modality, with its counts."""

    cells: Cells
    places: Positions
    """Their positions among all cells, ascending."""

    def among(self, chosen: Positions) -> Positions:
        """Positions here of those of the `chosen` cells (positions among all) that are here."""
        if not len(self.places):
            return chosen[:0]
        if len(self.places) == self.places[-1] + 1:
            # They are the first ones, of which all positions are their own.
            return chosen[chosen < len(self.places)]
        found = np.searchsorted(self.places, chosen)
        found[found == len(self.places)] = 0
        return found[self.places[found] == chosen]


def views_of(annotations: Mapping[str, NDArray[Any]]) -> list[tuple[Positions | None, Mapping[str, NDArray[Any]]]]:
    """As `Minibatch.views` gives them; `present` says which cells have which modality, n_cells x modalities."""
    present = annotations.get(PRESENT)
    if present is None:
        return [(None, annotations)]
    shared = {name: values for name, values in annotations.items() if name not in {PRESENT, *OF_VIEWS}}
    own = {name: annotations[name] for name in OF_VIEWS if name in annotations}
    views: list[tuple[Positions | None, Mapping[str, NDArray[Any]]]] = []
    for view, has in enumerate(present.T):
        places = np.flatnonzero(has)
        of_view = {name: values[places, view] for name, values in own.items()}
        views.append((places, {name: values[places] for name, values in shared.items()} | of_view))
    return views


def n_minibatches(n_cells: int, batch_size: int, n_shares: int = 1) -> int:
    """How many minibatches `Cells.shuffled` makes for each of so many processes."""
    return max(1, min(round(n_cells / (n_shares * batch_size)), n_cells // (2 * n_shares)))


def evenly(cells: Positions, at_most: int) -> Positions:
    """Evenly spaced cells, all of them if they are few."""
    return cells[:: max(1, -(-len(cells) // at_most))]
