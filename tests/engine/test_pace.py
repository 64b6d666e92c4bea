from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae.engine import Pace

if TYPE_CHECKING:
    import pytest


def test_the_faster_number_of_threads_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now, used = [0.0], []
    monkeypatch.setattr("sc_ldvae.engine._pace.numba.get_num_threads", lambda: 4)
    monkeypatch.setattr("sc_ldvae.engine._pace.numba.set_num_threads", used.append)
    monkeypatch.setattr("sc_ldvae.engine._pace.perf_counter", lambda: now[0])
    pace = Pace()
    for step in range(200):
        with pace.step():
            # In the first round something keeps a core busy.
            now[0] += {1: 2.0, 4: 50.0 if step < 100 else 1.0}[used[-1]]
    assert used[:8] == [4, 4, 4, 4, 1, 1, 1, 1]
    assert set(used[8:128]) == {1}
    assert set(used[136:]) == {4}
