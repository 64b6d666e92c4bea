"""What the halves say of the number of factors: the table, and the rule that recommends one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sc_ldvae.assess import Scan, recommended, scan_table


def scan(elbo: list[list[float]], **parts: Any) -> Scan:
    n = len(elbo)
    cosines = parts.get("cosines", [np.array([0.9])] * n)
    return Scan(np.array(elbo), np.array(parts.get("explained", [0.1] * n)), cosines, np.array([1.0] * n))


def test_table_is_the_mean_over_splits_with_the_paired_error() -> None:
    rng = np.random.default_rng(0)
    cells = rng.normal(-500, 100, 400)
    behind = np.array([3.0, 0.0, 0.5])[:, None]
    noise = rng.normal(0, 2, (2, 3, 400))
    cosines = [[np.array([1.0]), np.array([0.9, 0.5]), np.array([0.8, 0.6, 0.1])]] * 2
    scans = [scan((cells - behind + one).tolist(), cosines=cosines[0], explained=[0.1, 0.2, 0.3]) for one in noise]
    table = scan_table([1, 2, 3], scans)
    per_cell = cells - behind + noise.mean(axis=0)
    np.testing.assert_array_equal(table["n_latent"], [1, 2, 3])
    np.testing.assert_allclose(table["elbo"], per_cell.mean(axis=1))
    np.testing.assert_allclose(table["elbo_behind"], (per_cell[1] - per_cell).mean(axis=1), atol=1e-12)
    expected = [np.std(per_cell[1] - one) / 20 for one in per_cell]
    np.testing.assert_allclose(table["elbo_behind_se"], expected, atol=1e-12)
    # Not that of the cells themselves, which differ far more from each other than numbers of factors do.
    assert table["elbo_behind_se"].max() < 0.2 < np.std(per_cell[0]) / 20
    np.testing.assert_allclose(table["explained_deviance"], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(table["stability"], [1.0, 0.7, 0.5])
    np.testing.assert_allclose(table["n_stable"], [1, 2, 2])
    np.testing.assert_allclose(table["n_active"], [1, 1, 1])


AT_LARGEST = "It is the largest number that was tried: widen the range."
AT_SMALLEST = "It is the smallest number that was tried: widen the range."


@pytest.mark.parametrize(
    ("grid", "behind", "errors", "expected", "parts"),
    [
        pytest.param(
            [2, 4, 6], [5, 0, 1], [1, 0, 1], 4, ["4 factors have the best held-out ELBO; 2 of them come"], id="best"
        ),
        pytest.param(
            [2, 4, 6, 8],
            [5, 0.4, 0, 1],
            [1, 0.5, 0, 1],
            4,
            ["4 factors are the fewest", "within one standard error of the best: 0.40 +- 0.50", "behind 6 factors"],
            id="fewer",
        ),
        pytest.param([2, 4, 6], [0.5, 0.6, 0], [0.5, 0.5, 0], 2, ["2 factors are the fewest", AT_SMALLEST], id="on-it"),
        pytest.param([2, 4, 6], [5, 3, 0], [1, 1, 0], 6, ["6 factors have the best", AT_LARGEST], id="largest"),
        pytest.param([2, 4, 6], [0, 3, 5], [0, 1, 1], 2, ["2 factors have the best", AT_SMALLEST], id="smallest"),
        pytest.param([1, 2], [0, 3], [0, 1], 1, ["1 factors have the best held-out ELBO"], id="one-is-the-end"),
        pytest.param([5], [0], [0], 5, ["5 factors have the best held-out ELBO"], id="alone"),
    ],
)
def test_fewest_within_one_error_of_the_best(
    grid: list[int], behind: list[float], errors: list[float], expected: int, parts: list[str]
) -> None:
    table = {
        "n_latent": np.array(grid),
        "elbo": -500 - np.array(behind, dtype=float),
        "elbo_behind": np.array(behind, dtype=float),
        "elbo_behind_se": np.array(errors, dtype=float),
        "n_stable": np.full(len(grid), 2.0),
    }
    got = recommended(table)
    assert got["recommended"] == expected
    for part in parts:
        assert part in got["reason"]
    assert ("widen the range" in got["reason"]) == any("widen" in part for part in parts)
