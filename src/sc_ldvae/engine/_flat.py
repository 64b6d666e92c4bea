"""All parameters of a model, and their gradients, in one buffer each; memory that steps use again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
    from torch import Tensor

    from sc_ldvae._typing import Floats
    from sc_ldvae.nn import Model


class Stretch(NamedTuple):
    """Values and gradients of one or more parameters, as arrays that share the memory of the buffers."""

    value: Floats
    gradient: Floats
    start: int
    """Where in the buffers they begin."""


class Flat:
    """Moves parameters into one buffer, in the layout that kernels read; to the module they look as before.

    Each of the model's parameter groups is one stretch of the buffers.
    """

    def __init__(self, model: Model) -> None:
        groups = model.parameter_groups()
        self.sizes = {name: sum(parameter.numel() for parameter in group) for name, group in groups.items()}
        self._group_of = {id(parameter): name for name, group in groups.items() for parameter in group}
        self._next, end = dict[str, int](), 0
        for name, size in self.sizes.items():
            self._next[name] = end
            end += size
        self.values = torch.zeros(end, dtype=next(model.parameters()).dtype, device="cpu")
        self.gradient = torch.zeros_like(self.values)

    @torch.no_grad()
    def place(self, *parameters: Tensor, transposed: bool = False) -> Stretch:
        """Lay parameters one after the other, stacked along their first axis; matrices transposed on request."""
        lengths, rest = [len(p) for p in parameters], parameters[0].shape[1:]
        axis = -1 if transposed else 0
        shape = (*rest, sum(lengths)) if transposed else (sum(lengths), *rest)
        group = self._group_of[id(parameters[0])]
        start, end = self._next[group], self._next[group] + sum(p.numel() for p in parameters)
        value, gradient = (buffer[start:end].view(shape) for buffer in (self.values, self.gradient))
        self._next[group] = end
        for parameter, own, own_gradient in zip(
            parameters, torch.split(value, lengths, axis), torch.split(gradient, lengths, axis), strict=True
        ):
            place, gradient_place = (own.T, own_gradient.T) if transposed else (own, own_gradient)
            place.copy_(parameter)
            parameter.data = place
            parameter.grad = gradient_place
        return Stretch(value.numpy(), gradient.numpy(), start)


class Rooms:
    """Memory for arrays that no step leaves to the next: the same one as long as the shape is the same.

    To get as much from the system for each step would cost more than most of what steps do with it.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype, self._arrays = dtype, dict[str, "Floats"]()

    def __call__(self, name: str, *shape: int) -> Floats:
        """The array of this name, with any content."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape, self._dtype)
        return array
