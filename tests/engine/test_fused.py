"""The fused engine against the module itself: same weights, same draws, autograd."""

from __future__ import annotations

from copy import deepcopy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from sc_ldvae.engine import FusedElbo, Shown
from sc_ldvae.kernels import SparseRows, sparse_rows
from sc_ldvae.nn import LDVAE

N_CELLS, N_GENES, N_BATCH, N_LABELS = 21, 37, 3, 2
KL_WEIGHT, PRIOR_WEIGHT = 0.3, 0.05

MODES = [
    pytest.param(
        {
            "gene_likelihood": likelihood,
            "dispersion": dispersion,
            "latent_distribution": latent,
            "use_observed_lib_size": observed,
            "use_batch_norm": norm,
            "bias": bias,
            "n_layers_encoder": n_layers,
        },
        id=f"{likelihood}-{dispersion}-{latent}-{'observed' if observed else 'latent'}"
        f"{'-norm' if norm else ''}{'-bias' if bias else ''}-{n_layers}",
    )
    for likelihood, dispersion, latent, observed, norm, bias, n_layers in product(
        ("nb", "zinb", "poisson"),
        ("gene", "gene-batch", "gene-label", "gene-cell"),
        ("normal", "ln"),
        (False, True),
        (True, False),
        (True, False),
        (1, 3),
    )
    # Half of them: each likelihood and dispersion meets all combinations of any four of the others.
    if ((latent == "ln") + observed + norm + bias + (n_layers == 3)) % 2 == 0
] + [
    pytest.param({"gene_likelihood": "bernoulli", "use_observed_lib_size": observed}, id=f"bernoulli-{library}")
    for library, observed in (("latent", False), ("observed", True))
]


MODES += [
    pytest.param({"gene_likelihood": "bernoulli", "latent_distribution": latent}, id=f"bernoulli-{latent}")
    for latent in ("normal", "ln")
]

MODES += [
    pytest.param(
        {"gene_likelihood": "nb_background", "dispersion": dispersion, **options}, id=f"background-{dispersion}"
    )
    for dispersion, options in (
        ("gene", {}),
        ("gene-batch", {"use_batch_norm": False, "bias": True}),
        ("gene-cell", {"latent_distribution": "ln"}),
    )
]


def counts(dtype: torch.dtype) -> torch.Tensor:
    rng = np.random.default_rng(0)
    x = rng.negative_binomial(0.4, 0.2, (N_CELLS, N_GENES)).astype(float)
    # Counts beyond every table, a gene that no cell has, a cell with one count.
    x[0, :3], x[:, 4], x[1] = (9, 40, 3000), 0, 0
    x[1, 5] = 1
    return torch.as_tensor(x, dtype=dtype)


def annotations(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "batch_index": torch.arange(N_CELLS) % N_BATCH,
        "labels": torch.arange(N_CELLS) % N_LABELS,
        "cat_covs": torch.randint(2, (N_CELLS, 1), generator=generator),
        "cont_covs": torch.randn(N_CELLS, 1, generator=generator).to(dtype),
    }


def model_of(mode: dict[str, Any], dtype: torch.dtype, x: torch.Tensor) -> LDVAE:
    generator = torch.Generator().manual_seed(1)
    model = LDVAE(
        N_GENES,
        n_batch=N_BATCH,
        n_labels=N_LABELS,
        n_hidden=16,
        n_latent=4,
        n_cats_per_cov=(2,),
        n_continuous_cov=1,
        generator=generator,
        **mode,
    ).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(dtype))
    model.set_library_prior(x.sum(1), annotations(dtype)["batch_index"])
    return model


def rows_of(x: torch.Tensor, model: LDVAE) -> SparseRows:
    matrix = sparse.csr_matrix(x.numpy())
    pointers, genes = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    return sparse_rows(pointers, genes, matrix.data, x.shape[1], log_variational=model.log_variational)


def check(mode: dict[str, Any], dtype: torch.dtype, *, training: bool = True, tolerance: float) -> None:
    x, own = counts(dtype), annotations(dtype)
    reference = model_of(mode, dtype, x).train(training)
    model = deepcopy(reference)
    shown = Shown.all(rows_of(x, model), {name: values.numpy() for name, values in own.items()})
    got = FusedElbo(model)(
        len(x),
        [shown],
        kl_weight=KL_WEIGHT,
        prior_weight=PRIOR_WEIGHT,
        generator=torch.Generator().manual_seed(3),
    )
    expected = reference(x, **own, generator=torch.Generator().manual_seed(3))
    for term, other in zip(got, expected, strict=True):
        torch.testing.assert_close(term, other.detach(), rtol=tolerance, atol=10 * tolerance)
    for (name, buffer), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        if "num_batches" not in name:
            torch.testing.assert_close(buffer, other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
    if not training:
        return
    (-expected.per_cell(KL_WEIGHT).mean() - PRIOR_WEIGHT * reference.log_prior()).backward()
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(
            parameter.grad, other.grad, rtol=tolerance, atol=tolerance * (1 + scale), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("mode", MODES)
def test_values_and_gradients_in_double_precision(mode: dict[str, Any]) -> None:
    check(mode, torch.float64, tolerance=1e-9)


# The same code; what single precision adds is its rounding.
@pytest.mark.parametrize("mode", MODES[::3])
def test_values_and_gradients_in_single_precision(mode: dict[str, Any]) -> None:
    check(mode, torch.float32, tolerance=2e-4)


@pytest.mark.parametrize("mode", MODES)
def test_values_in_evaluation_mode(mode: dict[str, Any]) -> None:
    check(mode, torch.float64, training=False, tolerance=1e-9)
