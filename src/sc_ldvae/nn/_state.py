"""What a program has set in torch for itself, and we go without."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sc_ldvae._forks import lost_threads
from sc_ldvae._restored import restored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        _multiply_exactly(undo)
        if lost_threads():
            undo.append(partial(torch.set_num_threads, torch.get_num_threads()))
            torch.set_num_threads(1)
        yield


def _multiply_exactly(undo: list[Callable[[], object]]) -> None:
    """Products of matrices in the precision of their numbers, which is torch's default, but no program's duty."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:
        # Lowered in the newer of two ways (torch 2.9), of which the older one does not speak.
        precision = None
    if precision == "highest":
        return
    # The newer way's settings are moved by the older one, and are put back after it.
    undo.append(partial(torch.set_float32_matmul_precision, precision or "highest"))
    for backend in (torch.backends.cuda, torch.backends.mkldnn):
        newer: Any = getattr(backend, "matmul", None)
        if hasattr(newer, "fp32_precision"):
            undo.append(partial(setattr, newer, "fp32_precision", newer.fp32_precision))
    torch.set_float32_matmul_precision("highest")
