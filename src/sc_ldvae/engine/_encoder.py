"""The encoders on arrays, with their gradients in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_ldvae.kernels import (
    fill_kept,
    hidden_backward,
    hidden_forward,
    matmul,
    matmul_transposed,
    multiply,
    n_slices,
)
from sc_ldvae.nn import BATCH_NORM_EPS, VARIANCE_FLOOR, seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._flat import Flat
    from sc_ldvae.kernels import SparseRows
    from sc_ldvae.nn import LDVAE, Encoder, Layer

CPU = torch.device("cpu")


class FusedHidden:
    """BatchNorm, ReLU and dropout of one layer, or of the first layers of several encoders side by side."""

    def __init__(self, layers: Sequence[Layer], flat: Flat) -> None:
        self.bias = flat.place(*(layer.linear.bias for layer in layers))
        self.gamma = flat.place(*(layer.norm.weight for layer in layers))
        self.beta = flat.place(*(layer.norm.bias for layer in layers))
        self._momentum = layers[0].norm.momentum or 0.0
        self._running = [[moment.numpy() for moment in layer.norm.buffers()][:2] for layer in layers]
        self._rates = [layer.dropout_rate for layer in layers]

    def train(self, h: Floats, seeds: Sequence[int]) -> Floats:
        """Output for `h`, the linear layer's output without its bias, which BatchNorm cancels."""
        n, width = h.shape
        self._kept, self._normalised, self._out = np.empty((3, n, width), h.dtype)
        mean, variance, self._inverse_sd = np.empty((3, width), h.dtype)
        own = width // len(self._rates)
        for i, (one, rate) in enumerate(zip(seeds, self._rates, strict=True)):
            fill_kept(one, rate, i * own, own, self._kept)
        eps = h.dtype.type(BATCH_NORM_EPS)
        hidden_forward(
            h,
            self.gamma.value,
            self.beta.value,
            eps,
            self._kept,
            mean,
            variance,
            self._inverse_sd,
            self._normalised,
            self._out,
        )
        mean += self.bias.value
        for i, (running_mean, running_variance) in enumerate(self._running):
            units = slice(i * own, (i + 1) * own)
            _drift(running_mean, mean[units], self._momentum)
            _drift(running_variance, variance[units] * (n / (n - 1)), self._momentum)
        return self._out

    def apply(self, h: Floats) -> Floats:
        """Output with running moments and without dropout."""
        mean, variance = (np.concatenate(moments) for moments in zip(*self._running, strict=True))
        scale = self.gamma.value / np.sqrt(variance + variance.dtype.type(BATCH_NORM_EPS))
        return np.maximum(h * scale + (self.beta.value + (self.bias.value - mean) * scale), 0)

    def backward(self, d_out: Floats) -> Floats:
        """Gradient of `h`; that of the bias stays zero."""
        d_h = np.empty_like(d_out)
        hidden_backward(
            d_out,
            self._out,
            self._kept,
            self._normalised,
            self.gamma.value,
            self._inverse_sd,
            d_h,
            self.gamma.gradient,
            self.beta.gradient,
        )
        return d_h


class FusedEncoders:
    """The encoders of latent and library: posterior mean and variance, latent first, library in the last column."""

    def __init__(self, model: LDVAE, flat: Flat) -> None:
        encoders = [model.z_encoder] if model.l_encoder is None else [model.z_encoder, model.l_encoder]
        firsts = [encoder.hidden()[0] for encoder in encoders]
        self._n_hidden = model.z_encoder.mean.in_features
        self._first_weight = flat.place(*(layer.linear.weight for layer in firsts), transposed=True)
        self._first = FusedHidden(firsts, flat)
        deeper = model.z_encoder.hidden()[1:]
        self._deeper = [(flat.place(layer.linear.weight), FusedHidden([layer], flat)) for layer in deeper]
        self._heads = [_Head(encoder, flat) for encoder in encoders]

    def forward(self, rows: SparseRows, generator: torch.Generator | None, *, training: bool) -> tuple[Floats, Floats]:
        """Mean and variance, both n_cells x variables."""
        self._rows = rows
        weight = self._first_weight.value
        h = np.empty((len(rows.totals), weight.shape[1]), weight.dtype)
        slices = n_slices(len(rows.genes) * weight.shape[1] // 4)
        multiply(slices, rows.indptr, rows.genes, rows.seen, weight, h)
        # The order of the draws is that of the module's: one encoder after the other.
        n_seeds = 1 + len(self._deeper) + (len(self._heads) - 1)
        seeds = [int(seed(generator, CPU)) for _ in range(n_seeds if training else 0)]
        first_seeds = [*seeds[:1], *seeds[1 + len(self._deeper) :]]
        hidden = self._first.train(h, first_seeds) if training else self._first.apply(h)
        own, others = hidden[:, : self._n_hidden], hidden[:, self._n_hidden :]
        self._inputs = []
        for i, (linear, layer) in enumerate(self._deeper):
            self._inputs.append(own)
            h = matmul_transposed(own, linear.value)
            own = layer.train(h, seeds[1 + i : 2 + i]) if training else layer.apply(h)
        moments = [head.forward(x) for head, x in zip(self._heads, (own, others), strict=False)]
        means, variances = zip(*moments, strict=True)
        return np.hstack(means), np.hstack(variances)

    # Backwards, layer by layer. A head ``y = x W' + b`` has d W = d y' x, d b = sum d y, d x = d y W; the variance is
    # exp(y) + floor, so d y = d variance exp(y). A hidden layer takes d h from d out (`hidden_backward`):
    #   out = kept relu(gamma n + beta),  n = (h - mean h) r:  with e = d out kept [out > 0],
    #   d beta = sum e,  d gamma = sum e n,  d h = gamma r (e - mean e - n mean(e n)).
    # The first layer's h = x W has d W = x' d h: the same sparse product, with the nonzeros sorted by gene.
    def backward(self, d_mean: Floats, d_variance: Floats) -> None:
        """Fill the gradients of all parameters."""
        n_latent = self._heads[0].n
        columns = [slice(n_latent), slice(n_latent, None)]
        heads = zip(self._heads, columns, strict=False)
        back = [head.backward(d_mean[:, own], d_variance[:, own]) for head, own in heads]
        for (linear, layer), x in zip(reversed(self._deeper), reversed(self._inputs), strict=True):
            d_h = layer.backward(back[0])
            linear.gradient[:] = matmul(d_h.T, np.ascontiguousarray(x))
            back[0] = matmul(d_h, linear.value)
        d_h = self._first.backward(np.hstack(back))
        rows, weight = self._rows, self._first_weight
        slices = n_slices(len(rows.genes) * weight.value.shape[1] // 4)
        multiply(slices, rows.gene_indptr, rows.cells, rows.seen_by_gene, d_h, weight.gradient)


class _Head:
    def __init__(self, encoder: Encoder, flat: Flat) -> None:
        self.n = encoder.mean.out_features
        self._weight = flat.place(encoder.mean.weight, encoder.log_variance.weight)
        self._bias = flat.place(encoder.mean.bias, encoder.log_variance.bias)

    def forward(self, x: Floats) -> tuple[Floats, Floats]:
        self._x = np.ascontiguousarray(x)
        both = matmul_transposed(self._x, self._weight.value) + self._bias.value
        self._exp = np.exp(both[:, self.n :])
        return both[:, : self.n], self._exp + self._exp.dtype.type(VARIANCE_FLOOR)

    def backward(self, d_mean: Floats, d_variance: Floats) -> Floats:
        d_both = np.hstack([d_mean, d_variance * self._exp])
        self._weight.gradient[:] = matmul(d_both.T, self._x)
        d_both.sum(0, out=self._bias.gradient)
        return matmul(d_both, self._weight.value)


def _drift(running: Floats, now: Floats, momentum: float) -> None:
    """Exponential moving average."""
    running += momentum * (now - running)
