"""All parameters of a model, and their gradients, in one buffer each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sc_ldvae._typing import Floats


class Stretch(NamedTuple):
    """Values and gradients of one or more parameters, as arrays that share the memory of the buffers."""

    value: Floats
    gradient: Floats


class Flat:
    """Moves parameters into one buffer, in the layout that kernels read; to the module they look as before."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = list(model.parameters())
        size = sum(parameter.numel() for parameter in self._parameters)
        self.values = torch.zeros(size, dtype=self._parameters[0].dtype, device="cpu")
        self.gradient = torch.zeros_like(self.values)
        self._used = 0

    @torch.no_grad()
    def place(self, *parameters: Tensor, transposed: bool = False) -> Stretch:
        """Lay parameters one after the other, stacked along their first axis; matrices transposed on request."""
        lengths, rest = [len(p) for p in parameters], parameters[0].shape[1:]
        axis = -1 if transposed else 0
        shape = (*rest, sum(lengths)) if transposed else (sum(lengths), *rest)
        end = self._used + sum(p.numel() for p in parameters)
        value, gradient = (buffer[self._used : end].view(shape) for buffer in (self.values, self.gradient))
        self._used = end
        for parameter, own, own_gradient in zip(
            parameters, torch.split(value, lengths, axis), torch.split(gradient, lengths, axis), strict=True
        ):
            place, gradient_place = (own.T, own_gradient.T) if transposed else (own, own_gradient)
            place.copy_(parameter)
            parameter.data = place
            parameter.grad = gradient_place
        return Stretch(value.numpy(), gradient.numpy())
