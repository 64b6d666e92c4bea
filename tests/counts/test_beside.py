"""Modalities beside each other, against dense arrays; and which of them a step hides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from sc_ldvae.counts import PRESENT, Beside, Cells, InMemory, Minibatch, View
from sc_ldvae.counts._beside import Between
from sc_ldvae.fit._hide import hidden

if TYPE_CHECKING:
    from sc_ldvae.counts import Source

N_CELLS, WIDTHS = 30, (9, 4, 12)


@pytest.fixture(scope="module")
def present() -> np.ndarray:
    rng = np.random.default_rng(1)
    present = rng.random((N_CELLS, 3)) < 0.6
    present[present.sum(1) == 0, 2] = True
    return present


@pytest.fixture(scope="module")
def dense(present: np.ndarray) -> np.ndarray:
    """Counts of all cells in all modalities, zero where a cell lacks one; one cell has one and no counts in it."""
    rng = np.random.default_rng(2)
    parts = [rng.poisson(0.8, (N_CELLS, width)) * has[:, None] for width, has in zip(WIDTHS, present.T, strict=True)]
    parts[1][np.flatnonzero(present[:, 1])[0]] = 0
    return np.hstack(parts).astype(np.float32)


@pytest.fixture(scope="module")
def places(present: np.ndarray) -> np.ndarray:
    """Each modality has its cells in an order of its own."""
    rng, places = np.random.default_rng(3), np.full(present.shape, -1)
    for i, has in enumerate(present.T):
        places[has, i] = rng.permutation(has.sum())
    return places


@pytest.fixture(scope="module")
def beside(dense: np.ndarray, places: np.ndarray) -> Beside:
    parts, sources = np.split(dense, np.cumsum(WIDTHS)[:-1], axis=1), []
    for part, own in zip(parts, places.T, strict=True):
        ordered = np.flatnonzero(own >= 0)[np.argsort(own[own >= 0])]
        sources.append(InMemory(sparse.csr_matrix(part[ordered])))
    return Beside(tuple(sources), places)


def check(source: Source, expected: np.ndarray) -> None:
    """Rows in any order and again, totals, and what is kept."""
    assert (source.n_obs, source.n_vars) == expected.shape
    np.testing.assert_array_equal(source.totals, expected.astype(float).sum(1))
    assert source.totals.dtype == np.float64
    n = len(expected)
    for cells in (np.arange(n), np.arange(n)[::-1], np.array([n - 1, n // 2, n // 2, 0]), np.array([], dtype=int)):
        rows = source.rows(cells)
        assert rows.has_canonical_format
        np.testing.assert_array_equal(rows.toarray(), expected[cells], strict=True)
        kept = source.kept(cells)
        np.testing.assert_array_equal(kept.rows(np.arange(len(cells))).toarray(), expected[cells], strict=True)
        np.testing.assert_array_equal(kept.totals, expected[cells].astype(float).sum(1))


def test_beside_each_other(beside: Beside, dense: np.ndarray) -> None:
    check(beside, dense)
    assert beside.nonzeros_per_cell == pytest.approx((dense > 0).sum() / N_CELLS)


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (9, 13), (13, 25), (5, 20)])
def test_genes_between(start: int, stop: int, beside: Beside, dense: np.ndarray) -> None:
    check(Between(beside, start, stop), dense[:, start:stop])


def cells_of(beside: Beside, present: np.ndarray) -> Cells:
    sizes = np.where(present, np.arange(3 * N_CELLS).reshape(N_CELLS, 3) + 1.0, np.nan).astype(np.float32)
    return Cells(beside, {PRESENT: present, "size_factor": sizes, "batch_index": np.arange(N_CELLS) % 4})


@pytest.mark.parametrize("chosen", [None, [3, 29, 3, 0, 11, 12, 25]], ids=["all", "subset"])
def test_views_have_the_cells_of_a_modality(
    chosen: list[int] | None, beside: Beside, dense: np.ndarray, present: np.ndarray
) -> None:
    cells, own = cells_of(beside, present), np.arange(N_CELLS)
    if chosen is not None:
        own = np.array(chosen)
        cells = cells.subset(own)
    sizes, start = cells_of(beside, present).annotations["size_factor"], 0
    for i, (view, width) in enumerate(zip(cells.views(WIDTHS), WIDTHS, strict=True)):
        places = np.flatnonzero(present[own, i])
        np.testing.assert_array_equal(view.places, places)
        check(view.cells.source, dense[own[places], start : start + width])
        known = view.cells.annotations
        assert set(known) == {"size_factor", "batch_index"}
        np.testing.assert_array_equal(known["size_factor"], sizes[own[places], i])
        np.testing.assert_array_equal(known["batch_index"], own[places] % 4)
        np.testing.assert_array_equal(view.cells.library(np.arange(len(places))), sizes[own[places], i])
        start += width


def test_the_view_of_what_has_one_modality_is_itself(beside: Beside) -> None:
    cells = Cells(beside, {"batch_index": np.arange(N_CELLS)})
    (view,) = cells.views([sum(WIDTHS)])
    assert view.cells is cells
    np.testing.assert_array_equal(view.places, np.arange(N_CELLS))


def test_a_minibatch_has_these_views(beside: Beside, dense: np.ndarray, present: np.ndarray) -> None:
    own = np.array([7, 1, 20, 4])
    minibatch = cells_of(beside, present).minibatch(own)
    np.testing.assert_array_equal(minibatch.counts.toarray(), dense[own])
    for i, (places, known) in enumerate(minibatch.views()):
        np.testing.assert_array_equal(places, np.flatnonzero(present[own, i]))
        np.testing.assert_array_equal(known["batch_index"], own[places] % 4)
        assert known["size_factor"].shape == (len(places),)


@pytest.mark.parametrize(
    "places", [[0, 1, 2, 3], [2, 5, 6, 11], [11], [0, 11], []], ids=["first", "some", "last", "ends", "none"]
)
def test_positions_among_those_of_a_modality(places: list[int]) -> None:
    view = View(Cells(InMemory(sparse.csr_matrix((len(places), 3), dtype=np.float32))), np.array(places, dtype=int))
    for chosen in (range(12), [11, 3, 2], [5, 5, 0], []):
        expected = [places.index(cell) for cell in chosen if cell in places]
        assert view.among(np.array(chosen, dtype=int)).tolist() == expected


def minibatch_of(present: np.ndarray) -> Minibatch:
    return Minibatch(sparse.csr_matrix((len(present), 5), dtype=np.float32), {PRESENT: present, "other": present[:, 0]})


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_share_of_the_cells_shows_one_modality(share: float) -> None:
    n, rng = 4000, np.random.default_rng(0)
    present = rng.random((n, 3)) < 0.8
    present[present.sum(1) == 0, 0] = True
    before = present.copy()
    shown = hidden(minibatch_of(present), share, torch.Generator().manual_seed(0)).annotations[PRESENT]
    np.testing.assert_array_equal(present, before)
    # Of what a cell has, one or all, and never none.
    assert not (shown & ~present).any()
    several, n_shown = present.sum(1) > 1, shown.sum(1)
    alone = n_shown[several] == 1
    assert ((n_shown == 1) | (n_shown == present.sum(1))).all()
    assert stats.binomtest(int(alone.sum()), int(several.sum()), share).pvalue > 1e-3
    if share:
        # Which one is a matter of chance: each as often as the others, where a cell has all.
        which = shown[(present.sum(1) == 3) & (n_shown == 1)].sum(0)
        assert stats.chisquare(which).pvalue > 1e-3


def test_draws_are_those_of_the_generator() -> None:
    present = np.ones((50, 2), dtype=bool)
    one, again, other = (
        hidden(minibatch_of(present), 0.5, torch.Generator().manual_seed(seed)).annotations[PRESENT]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_modality_of_one_cell_is_hidden() -> None:
    present = np.array([[True, True, True], [True, False, True], [True, False, False]])
    minibatch = minibatch_of(present)
    shown = hidden(minibatch, 0.0, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(shown.annotations[PRESENT], present & [True, False, True])
    assert shown.counts is minibatch.counts
    assert shown.annotations["other"] is minibatch.annotations["other"]


def test_fits_of_one_modality_hide_and_draw_nothing() -> None:
    minibatch = Minibatch(sparse.csr_matrix((4, 5), dtype=np.float32), {"batch_index": np.zeros(4, int)})
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert hidden(minibatch, 0.9, generator) is minibatch
    assert torch.equal(generator.get_state(), state)
