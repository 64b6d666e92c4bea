"""What both ways of the exchange with scvi-tools need."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from sc_ldvae.nn import Encoder

# Of ours, those that LinearSCVI has.
LIKELIHOODS = ("nb", "zinb", "poisson")
# Our history, that of scvi-tools (which minimises), and the sign between them.
HISTORY = (("elbo", "elbo_train", -1), ("elbo_held_out", "elbo_validation", -1), ("kl_weight", "kl_weight", 1))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps the warnings of scvi-tools in, and the global generators as they were.

    Importing scvi-tools, registering data and building a module draw from them.
    """
    import torch

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  it is the global one that is kept
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002  the same


def linear_scvi_class(function: str) -> Any:  # noqa: ANN401  scvi-tools may be missing
    try:
        import scvi
    except ImportError as error:
        msg = f"{function} needs scvi-tools: pip install 'sc-ldvae[scvi]'."
        raise ImportError(msg) from error
    return scvi.model.LinearSCVI


def beside(theirs: Any, ours: Encoder) -> list[tuple[nn.Module, nn.Module]]:  # noqa: ANN401  scvi-tools may be missing
    """Parts of their encoder beside ours, which hold the same parameters under the same names."""
    hidden = zip(theirs.encoder.fc_layers, ours.hidden(), strict=True)
    pairs = [pair for their, our in hidden for pair in ((their[0], our.linear), (their[1], our.norm))]
    return [*pairs, (theirs.mean_encoder, ours.mean), (theirs.var_encoder, ours.log_variance)]
