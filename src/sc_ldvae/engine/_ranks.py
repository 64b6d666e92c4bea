"""Processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from sc_ldvae.nn import Model

_Made = TypeVar("_Made")
# Not all of it has types.
_c10d: Any = distributed
# Groups so far, of which all processes make the same.
_count = count()


class Ranks:
    """One process, alone. What several do differently, `Together` does."""

    rank = 0
    n = 1

    def average(self, *values: Tensor | NDArray[Any]) -> None:
        """Replace the values by their means over all processes."""

    def mean(self, value: float, weight: float) -> float:  # noqa: ARG002  of one value
        """Weighted mean over all processes."""
        return value

    def gathered(self, values: Tensor) -> Tensor:
        """The values of every process, n x their shape, on the CPU."""
        return values[None]

    def shared(self, make: Callable[[], _Made]) -> _Made:
        """What the first process makes, or the error in which that ends, for all."""
        return make()


class Together(Ranks):
    """One of the processes of a group.

    Sums are taken in double precision, in which the order of the processes does not matter to what is kept in single
    precision: so any number of them gives the bits of one that does the work of all.
    """

    def __init__(self, group: Any, device: torch.device) -> None:  # noqa: ANN401  torch's groups have no public type
        self._group, self._device = group, device
        self.rank, self.n = distributed.get_rank(group), distributed.get_world_size(group)

    def forget(self) -> None:
        """Let go of the connections."""
        self._group = None

    def average(self, *values: Tensor | NDArray[Any]) -> None:
        """Replace the values by their means over all processes, in one message."""
        tensors = [torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in values]
        flat = torch.cat([one.detach().reshape(-1).to(self._device, torch.float64) for one in tensors])
        with _told():
            distributed.all_reduce(flat, group=self._group)
        flat /= self.n
        for tensor, own in zip(tensors, torch.split(flat, [one.numel() for one in tensors]), strict=True):
            tensor.detach().copy_(own.reshape(tensor.shape))

    def mean(self, value: float, weight: float) -> float:
        """Weighted mean over all processes."""
        sums = torch.tensor([value * weight, weight], dtype=torch.float64, device="cpu")
        self.average(sums)
        return float(sums[0] / sums[1])

    def gathered(self, values: Tensor) -> Tensor:
        """The values of every process, n x their shape, on the CPU."""
        own = values.to(self._device)
        every = [torch.empty_like(own) for _ in range(self.n)]
        with _told():
            distributed.all_gather(every, own, group=self._group)
        return torch.stack(every).cpu()

    def shared(self, make: Callable[[], _Made]) -> _Made:
        """What the first process makes, or the error in which that ends, for all."""
        made: list[Any] = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except Exception as error:  # noqa: BLE001  the others are to raise the same
                made[1] = error
        first = distributed.get_global_rank(self._group, 0)
        with _told():
            distributed.broadcast_object_list(made, first, group=self._group, device=self._device)
        if made[1] is not None:
            raise made[1]
        result: _Made = made[0]
        return result


def moments_of(model: Model) -> list[Tensor]:
    """Numbers of a model that steps move beside its parameters."""
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def place() -> tuple[int, int]:
    """Number of this process, from 0, among those that fit together, and how many they are."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if distributed.is_torchelastic_launched():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process, where each has one and none was named by its number."""
    if str(device) == "cuda" and distributed.is_torchelastic_launched():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextmanager
def ranks_of(device: torch.device) -> Iterator[Ranks]:
    """All processes that torchrun has started, or those of the group that the program has made; else this one alone.

    They talk through gloo, or through nccl where the model is on GPUs. At the end the connections are closed, so that
    where one process ends in an error, the others do not wait for it.
    """
    rank, n = place()
    if n == 1:
        yield Ranks()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _told():
        if distributed.is_initialized():
            group = _c10d.new_group(backend=backend)
        else:
            # Under a name of its own: what processes have left of a group before is no address any more.
            store = _c10d.PrefixStore(f"sc-ldvae-{next(_count)}", _store())
            distributed.init_process_group(backend, store=store, rank=rank, world_size=n)
            group = _c10d.group.WORLD
    together = Together(group, device)
    try:
        yield together
        # What the last message says has reached all before its connections are closed.
        with _told():
            _c10d.barrier(group)
    finally:
        distributed.destroy_process_group(group)
        # Frames of an error that somebody keeps would keep the connections open, and the others waiting.
        together.forget()
        del group


@cache
def _store() -> Any:  # noqa: ANN401  torch's stores have no public type
    """Where the processes of torchrun find each other."""
    return next(rendezvous("env://"))[0]


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        said = str(error).splitlines()[0]
        msg = f"Another process of this fit has failed, was killed or can't be reached ({said}). Look at what it said."
        raise ConnectionError(msg) from error
