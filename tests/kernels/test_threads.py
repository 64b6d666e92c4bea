"""Numbers of threads are put back, whichever line of ours an interrupt strikes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numba
import pytest
import torch

from sc_ldvae import _restored
from sc_ldvae.engine import Pace, engine_of
from sc_ldvae.engine import _engine as engine
from sc_ldvae.engine import _pace as pace
from sc_ldvae.kernels import _threads as threads
from sc_ldvae.kernels import own_threads
from sc_ldvae.nn import LDVAE
from sc_ldvae.nn import _state as state

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

WATCHED = {module.__file__ for module in (_restored, threads, pace, engine, state)}


class Struck(BaseException):
    """As Ctrl-C."""


def strike(at: int, work: Callable[[], None]) -> bool:
    """Raise at the line of ours with that number; whether there was one."""
    seen = 0

    def tracer(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            seen += 1
            if seen == at:
                raise Struck
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        work()
    except Struck:
        pass
    finally:
        sys.settrace(before)
    return seen >= at


def on_others() -> None:
    with own_threads():
        numba.set_num_threads(1)


def in_a_step() -> None:
    with engine_of(LDVAE(5, n_latent=2), 0.1), Pace().step():
        pass


@pytest.mark.parametrize("work", [on_others, in_a_step])
def test_numbers_of_threads_are_put_back(work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    # numba is to be set to another number than it has.
    before, most = torch.get_num_threads(), numba.get_num_threads()
    monkeypatch.setattr(state, "lost_threads", lambda: True)
    torch.set_num_threads(2)
    numbers, at = (2, most), 1
    try:
        while strike(at, work):
            assert (torch.get_num_threads(), numba.get_num_threads()) == numbers, f"struck at line {at}"
            at += 1
    finally:
        torch.set_num_threads(before)
        numba.set_num_threads(most)
    assert at > 10
