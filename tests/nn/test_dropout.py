from __future__ import annotations

import numpy as np
import pytest
import torch

from sc_ldvae.kernels import fill_kept
from sc_ldvae.nn import _dropout


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_dropout_masks_are_the_same_bits_in_torch_and_in_the_kernel(rate: float) -> None:
    like = torch.empty(40, 16)
    expected = _dropout.kept(like, rate, torch.Generator().manual_seed(5))
    seed = int(_dropout.seed(torch.Generator().manual_seed(5), like.device))
    out = np.full((40, 20), np.nan, np.float32)
    fill_kept(seed, rate, 2, 16, out)
    np.testing.assert_array_equal(out[:, 2:18], expected.numpy())
    assert np.isnan(out[:, :2]).all()


def test_dropout_keeps_the_share_it_should() -> None:
    kept = _dropout.kept(torch.empty(1000, 200), 0.1, torch.Generator().manual_seed(0))
    # The standard error of the share is 0.0007.
    assert float((kept > 0).float().mean()) == pytest.approx(0.9, abs=0.003)
    assert float(kept.max()) == pytest.approx(1 / 0.9)
    # Neighbours know nothing of each other, along rows and columns.
    drop = (kept == 0).float() - 0.1
    for shifted in (drop[1:] * drop[:-1], drop[:, 1:] * drop[:, :-1]):
        assert float(shifted.mean()) == pytest.approx(0, abs=0.001)
