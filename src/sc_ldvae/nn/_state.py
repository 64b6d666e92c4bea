"""What a program has set in torch for itself, and we go without."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sc_ldvae._forks import lost_threads
from sc_ldvae._restored import restored

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of every tensor that does not follow another one: neither torch's default type nor its default device.
FACTORY: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Gradients can be taken, nothing is computed in lower precision, no thread is waited for that is not there."""
    with (
        restored() as undo,
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        if lost_threads():
            undo.append(partial(torch.set_num_threads, torch.get_num_threads()))
            torch.set_num_threads(1)
        yield
