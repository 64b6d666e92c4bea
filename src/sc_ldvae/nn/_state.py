"""What a program has set in torch for itself, and we go without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of every tensor that does not follow another one: neither torch's default type nor its default device.
FACTORY: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Gradients can be taken, and nothing is computed in lower precision, whatever surrounds the call."""
    with torch.inference_mode(mode=False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield
