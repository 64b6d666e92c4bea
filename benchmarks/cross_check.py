"""The evaluator must give the number that each package gives itself, for the same weights and the same draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.evaluate import elbo_terms
from benchmarks.exchange import to_ldvae, to_linear_scvi

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from scvi.module import LDVAE as ScviModule  # noqa: N811  ours has the same name

    from benchmarks.count_model import CountModel
    from sc_ldvae.nn import LDVAE

    # ELBO per cell, and the draws of latent and log library that it belongs to.
    Evaluated = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

TOLERANCE = 1e-4


def cross_check(model: CountModel, counts: csr_matrix, module: LDVAE | ScviModule | None = None) -> dict[str, float]:
    """Mean ELBO by each package and by the evaluator, with the package's own draws.

    Parameters
    ----------
    model
        A fitted model, loaded into both packages.
    counts
        Cells x genes.
    module
        The module that was fitted, which is asked, too.

    Raises
    ------
    ValueError
        If a package and the evaluator differ by more than 1e-4 of the ELBO of any cell.
    """
    modules = {"sc_ldvae": to_ldvae(model), "scvi": to_linear_scvi(model)}
    if module is not None:
        modules["fitted"] = module.eval()
    result = {}
    for name, one in modules.items():
        theirs, z, log_library = _of_package(one, counts)
        ours = elbo_terms(model, counts, z, log_library).elbo
        difference = float(np.max(np.abs(theirs / ours - 1)))
        if difference > TOLERANCE:
            msg = f"{name}: the ELBO of a cell differs from the evaluator's by {difference:.1e} of its size."
            raise ValueError(msg)
        result |= {
            name: float(theirs.mean()),
            f"{name}_evaluator": float(ours.mean()),
            f"{name}_difference": difference,
        }
    return result


@torch.no_grad()
def _of_package(module: LDVAE | ScviModule, counts: csr_matrix) -> Evaluated:
    x = torch.tensor(counts.toarray())
    evaluate = _of_linear_scvi if type(module).__module__.startswith("scvi.") else _of_ldvae
    elbo, z, log_library = evaluate(module, x)
    return tuple(part.double().numpy() for part in (elbo, z, log_library[:, 0]))


def _of_ldvae(module: LDVAE, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    posterior = module.encode(x)
    z, log_library = posterior.z.rsample(generator), posterior.log_library.rsample(generator)
    log_likelihood = module.log_prob(x, module.decode(z, None, log_library)).sum(1)
    kl_library = posterior.log_library.kl(*module.library_prior(None))
    return log_likelihood - posterior.z.kl(0.0, 1.0) - kl_library, z, log_library


def _of_linear_scvi(module: ScviModule, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    tensors = {"X": x, "batch": torch.zeros(len(x), 1, dtype=torch.int64), "labels": torch.zeros(len(x), 1)}
    inference, _, loss = module(tensors, loss_kwargs={"kl_weight": 1.0})
    kl = sum(loss.kl_local.values())
    reconstruction = next(iter(loss.reconstruction_loss.values()))
    return -reconstruction - kl, inference["z"], inference["library"]
