"""The encoders on arrays, with their gradients in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_ldvae.engine._flat import Rooms
from sc_ldvae.kernels import (
    head_backward,
    head_forward,
    hidden_backward,
    hidden_forward,
    matmul,
    matmul_transposed,
    multiply,
    n_slices,
)
from sc_ldvae.nn import BATCH_NORM_EPS, VARIANCE_FLOOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._flat import Flat, Stretch
    from sc_ldvae.kernels import SparseRows
    from sc_ldvae.nn import LDVAE, Encoder, Layer

    Moments = tuple[Floats, Floats]


class SparseGradient(NamedTuple):
    """The gradient of a first layer's weights, genes x units, as a product of sparse counts and another gradient."""

    weight: Stretch
    indptr: NDArray[np.int64]
    cells: NDArray[np.int32]
    seen: Floats
    """What the encoders see, by gene."""
    d_h: Floats
    """Gradient by what the layer gives, n_cells x units."""

    @property
    def n_slices(self) -> int:
        """Into how many slices the product is cut."""
        return _n_slices(self.cells, self.d_h)

    def fill(self) -> None:
        """Write it where gradients stand."""
        multiply(self.n_slices, self.indptr, self.cells, self.seen, self.d_h, self.weight.gradient)


class FusedHidden:
    """BatchNorm, ReLU and dropout of one layer, or of the first layers of several encoders side by side."""

    def __init__(self, layers: Sequence[Layer], flat: Flat) -> None:
        self.bias = flat.place(*(layer.linear.bias for layer in layers))
        self.gamma = flat.place(*(layer.norm.weight for layer in layers))
        self.beta = flat.place(*(layer.norm.bias for layer in layers))
        number = self.bias.value.dtype.type
        self._momentum, self._eps = number(layers[0].norm.momentum or 0.0), number(BATCH_NORM_EPS)
        self._running = _side_by_side(layers)
        self._rates = np.array([layer.dropout_rate for layer in layers])
        self._moments, self._rooms = np.empty((3, len(self.bias.value)), number), Rooms(number)

    def train(self, h: Floats, seeds: NDArray[np.int64]) -> Floats:
        """Output for `h`, the linear layer's output without its bias, which BatchNorm cancels."""
        self._kept, self._normalised, self._out = self._rooms("hidden", 3, *h.shape)
        hidden_forward(
            h,
            self.bias.value,
            self.gamma.value,
            self.beta.value,
            self._eps,
            self._momentum,
            seeds,
            self._rates,
            self._running,
            self._moments,
            self._kept,
            self._normalised,
            self._out,
        )
        return self._out

    def apply(self, h: Floats) -> Floats:
        """Output with running moments and without dropout."""
        mean, variance = self._running
        scale = self.gamma.value / np.sqrt(variance + self._eps)
        return np.maximum(h * scale + (self.beta.value + (self.bias.value - mean) * scale), 0)

    def backward(self, d_out: Floats) -> None:
        """Turn the gradient by the output into that by `h`; that by the bias stays zero."""
        hidden_backward(
            d_out,
            self._out,
            self._kept,
            self._normalised,
            self.gamma.value,
            self._moments[2],
            self.gamma.gradient,
            self.beta.gradient,
        )


class FusedEncoders:
    """The encoders of latent and library: posterior mean and variance of each, that of the latent first."""

    def __init__(self, model: LDVAE, flat: Flat) -> None:
        encoders = [model.z_encoder] if model.l_encoder is None else [model.z_encoder, model.l_encoder]
        firsts = [encoder.hidden()[0] for encoder in encoders]
        self._n_hidden = model.z_encoder.mean.in_features
        self._first_weight = flat.place(*(layer.linear.weight for layer in firsts), transposed=True)
        self._first = FusedHidden(firsts, flat)
        deeper = model.z_encoder.hidden()[1:]
        self._deeper = [(flat.place(layer.linear.weight), FusedHidden([layer], flat)) for layer in deeper]
        self._seeds = torch.empty(len(deeper) + len(encoders), dtype=torch.int64, device="cpu")
        self._seed_array, self._rooms = self._seeds.numpy(), Rooms(self._first_weight.value.dtype)
        self._heads = [_Head(encoder, flat, i * self._n_hidden) for i, encoder in enumerate(encoders)]

    def forward(self, rows: SparseRows, generator: torch.Generator | None, *, training: bool) -> list[Moments]:
        """Mean and variance, both n_cells x variables, of each encoder."""
        self._rows = rows
        weight, n_deeper = self._first_weight.value, len(self._deeper)
        h = self._rooms("h", len(rows.totals), weight.shape[1])
        multiply(_n_slices(rows.genes, weight), rows.indptr, rows.genes, rows.seen, weight, h)
        # The order of the draws is that of the module's: one encoder after the other.
        if training:
            self._seeds.random_(generator=generator)
        seeds = self._seed_array
        first_seeds = np.delete(seeds, slice(1, 1 + n_deeper)) if n_deeper else seeds
        hidden = own = self._first.train(h, first_seeds) if training else self._first.apply(h)
        self._inputs = []
        for i, (linear, layer) in enumerate(self._deeper):
            self._inputs.append(np.ascontiguousarray(own[:, : self._n_hidden]))
            h = matmul_transposed(self._inputs[-1], linear.value)
            own = layer.train(h, seeds[1 + i : 2 + i]) if training else layer.apply(h)
        return [head.forward(x) for head, x in zip(self._heads, (own, hidden), strict=False)]

    # Backwards, layer by layer (`head_backward`, `hidden_backward`). A deeper linear layer ``h = x W'`` has
    # d W = d h' x and d x = d h W.
    # The first layer's h = x W has d W = x' d h: the same sparse product, with the nonzeros sorted by gene.
    def backward(self, gradients: Sequence[Moments]) -> SparseGradient:
        """Fill the gradients of all parameters but one, which is returned, from those by mean and variance."""
        rows, weight = self._rows, self._first_weight
        d_hidden = self._rooms("d_hidden", len(rows.totals), weight.value.shape[1])
        d_own = self._rooms("d_own", len(d_hidden), self._n_hidden) if self._deeper else d_hidden
        for head, moments, d_x in zip(self._heads, gradients, (d_own, d_hidden), strict=False):
            head.backward(*moments, d_x)
        for (linear, layer), x in zip(reversed(self._deeper), reversed(self._inputs), strict=True):
            layer.backward(d_own)
            linear.gradient[:] = matmul(d_own.T, x)
            d_own = matmul(d_own, linear.value)
        if self._deeper:
            d_hidden[:, : self._n_hidden] = d_own
        self._first.backward(d_hidden)
        return SparseGradient(weight, rows.gene_indptr, rows.cells, rows.seen_by_gene, d_hidden)

    def no_gradient(self) -> SparseGradient:
        """Of the first layer, where no cell has the modality."""
        weight = self._first_weight
        n_genes, width = weight.value.shape
        nothing = np.empty((0, width), weight.value.dtype)
        return SparseGradient(weight, np.zeros(n_genes + 1, np.int64), np.empty(0, np.int32), nothing[:, 0], nothing)


class _Head:
    """Mean and variance of an encoder, from a stretch of the hidden units of all."""

    def __init__(self, encoder: Encoder, flat: Flat, first: int) -> None:
        self._n, self._first = encoder.mean.out_features, first
        self._weight = flat.place(encoder.mean.weight, encoder.log_variance.weight)
        self._bias = flat.place(encoder.mean.bias, encoder.log_variance.bias)

    def forward(self, hidden: Floats) -> Moments:
        self._hidden, weight, n = hidden, self._weight.value, len(hidden)
        self._both = np.empty((n, 2 * self._n), weight.dtype)
        mean, variance = np.empty((2, n, self._n), weight.dtype)
        floor = weight.dtype.type(VARIANCE_FLOOR)
        head_forward(hidden, self._first, weight, self._bias.value, floor, self._both, mean, variance)
        return mean, variance

    def backward(self, d_mean: Floats, d_variance: Floats, d_hidden: Floats) -> None:
        head_backward(
            self._hidden,
            self._first,
            self._weight.value,
            self._both,
            d_mean,
            d_variance,
            self._weight.gradient,
            self._bias.gradient,
            d_hidden,
        )


def _n_slices(nonzeros: NDArray[np.int32], rows: Floats) -> int:
    """Of the sparse product."""
    return n_slices(len(nonzeros) * rows.shape[1] // 4)


def _side_by_side(layers: Sequence[Layer]) -> Floats:
    """Running means and variances, 2 x units, of which each layer's module has its own from now on."""
    norms = [layer.norm for layer in layers]
    moments = [torch.cat([norm.get_buffer(name) for norm in norms]) for name in ("running_mean", "running_var")]
    running, start = torch.stack(moments), 0
    for norm in norms:
        own = slice(start, start + norm.num_features)
        norm.running_mean, norm.running_var = running[0, own], running[1, own]
        start = own.stop
    together: Floats = running.numpy()
    return together
