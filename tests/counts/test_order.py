"""The random order of cells that are more than one buffer holds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sc_ldvae.counts import Cells, InMemory
from sc_ldvae.counts._order import buffered, buffers_of

N, AT_ONCE, BATCH = 400_000, 32_768, 128


def order_of(seed: int, n_cells: int = N, at_once: int = AT_ONCE) -> list[np.ndarray]:
    return [order for order, _ in buffers_of(n_cells, n_cells // BATCH, at_once, np.random.default_rng(seed))]


def test_every_cell_comes_once_in_minibatches_of_equal_size() -> None:
    buffers = buffers_of(N + 77, 3125, AT_ONCE, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(np.concatenate([order for order, _ in buffers])), np.arange(N + 77))
    sizes = np.concatenate([sizes for _, sizes in buffers])
    assert len(sizes) == 3125
    assert sizes.max() - sizes.min() <= 1
    assert [len(order) for order, _ in buffers] == [sizes.sum() for _, sizes in buffers]


def test_a_buffer_has_about_as_many_cells_as_it_may() -> None:
    lengths = [len(order) for order in order_of(0)]
    assert len(lengths) == -(-N // AT_ONCE)
    assert max(lengths) <= AT_ONCE + BATCH
    assert max(lengths) - min(lengths) <= 2 * BATCH


def test_the_order_is_a_function_of_the_generator_alone() -> None:
    one, same, other = (np.concatenate(order_of(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.99


def test_cells_of_one_buffer_have_any_order() -> None:
    """As a permutation of all gives it: what fits into one buffer is shuffled as a whole."""
    (order,) = order_of(3, 1000, 1000)
    np.testing.assert_array_equal(order, np.random.default_rng(3).permutation(1000))


def test_buffers_are_filled_from_everywhere_in_blocks_of_neighbours() -> None:
    for order in order_of(0):
        read = np.sort(order)
        stretches = np.flatnonzero(np.diff(read) > 1).size + 1
        # Blocks of 64, of which some happen to be neighbours and two at the ends may be cut.
        assert len(order) / 64 * 0.7 < stretches < len(order) / 64 + 3
        assert abs(read.mean() / N - 0.5) < 0.15
        # Shuffled within: neighbours in the file are not trained on one after the other.
        assert (np.abs(np.diff(order)) < 64).mean() < 0.1


def test_blocks_begin_elsewhere_in_every_epoch() -> None:
    """Else the same neighbours would always meet in one buffer."""
    rng = np.random.default_rng(0)
    firsts = set()
    for _ in range(8):
        (order, *_) = (order for order, _ in buffers_of(N, N // BATCH, AT_ONCE, rng))
        read = np.sort(order)
        firsts |= set((read[1:][np.diff(read) > 1] % 64).tolist())
    assert len(firsts) > 4


def test_cells_with_fewer_nonzeros_fill_larger_buffers_within_limits() -> None:
    assert buffered(0.0) == buffered(100.0) == 65_536
    assert buffered(400.0) == 2**27 // 3200
    assert buffered(5000.0) == 8_192


def test_small_buffers_are_filled_with_small_blocks() -> None:
    """There have to be many of them, for what is next to each other is alike."""
    (order, *_) = order_of(0, at_once=8192)
    read = np.sort(order)
    assert np.flatnonzero(np.diff(read) > 1).size > 0.7 * 512


@pytest.mark.parametrize("n_cells", [70_001])
def test_shuffled_cells_of_several_buffers_bring_their_own_counts_and_annotations(n_cells: int) -> None:
    counts = sparse.csr_matrix(np.arange(1, 2 * n_cells + 1, dtype=np.float32)[:, None])
    cells = Cells(InMemory(counts), {"labels": np.arange(2 * n_cells)})
    chosen = np.arange(n_cells) * 2
    seen = []
    for minibatch in cells.shuffled(chosen, 1024, np.random.default_rng(0)):
        np.testing.assert_array_equal(minibatch.annotations["labels"] + 1, minibatch.counts.toarray()[:, 0])
        seen.append(minibatch.annotations["labels"])
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), chosen)
