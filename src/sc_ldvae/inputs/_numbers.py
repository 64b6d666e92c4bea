"""Plain arguments: numbers, names, seeds, devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from sc_ldvae._options import LoadingsPrior
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    import torch

    from sc_ldvae._typing import Seed, Unset

_DEFAULT_SEED = 0
_SEEDS_OF_TORCH = 2**64
_MOST = 2**31 - 1
# Adam multiplies it by ten and by rates of its own, in single precision.
_LARGEST_LR = 1e30


def check_whole(**numbers: int | None) -> None:
    """Refuse numbers that are given and not whole, below one, or more than anything that can be counted here."""
    for name, number in numbers.items():
        if number is None:
            continue
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            msg = f"{name} must be an integer, but is {number!r}."
            raise TypeError(msg)
        if number < 1:
            msg = f"{name} must be at least 1, but is {number}."
            raise ValueError(msg)
        if number > _MOST:
            msg = f"{name} must be at most {_MOST:,}, but is above that."
            raise ValueError(msg)


def check_lr(lr: float) -> None:
    """Refuse learning rates that are not above zero, or that single precision does not hold."""
    if not 0 < lr <= _LARGEST_LR:
        msg = f"lr must be above 0 and at most {_LARGEST_LR:g}, but is {lr}."
        raise ValueError(msg)


def check_n_latent(n_latent: int, n_genes: int) -> None:
    """Refuse as many factors as genes."""
    if n_latent >= n_genes:
        msg = f"n_latent must be below the number of fitted genes ({n_genes}), but is {n_latent}."
        raise ValueError(msg)


def check_loadings_prior(loadings_prior: str | None) -> None:
    """Refuse names of priors that there are not."""
    if loadings_prior not in (*get_args(LoadingsPrior), None):
        msg = f"loadings_prior={loadings_prior!r} is unknown. Choose 'adaptive' or None."
        raise ValueError(msg)


def check_key(key_added: str | None) -> None:
    """Refuse names that files can't hold."""
    if key_added is not None and (not key_added or "/" in key_added):
        msg = f"key_added={key_added!r} can't name an entry of a file. Give a name without '/'."
        raise ValueError(msg)


def generator_of(rng: Seed | Unset, random_state: Seed | Unset) -> np.random.Generator:
    """The source of randomness: `rng`, or its alias; a fixed seed if neither is given."""
    if rng is not UNSET and random_state is not UNSET:
        msg = "rng and random_state were both given, but mean the same. Pass one of them."
        raise TypeError(msg)
    seed = random_state if rng is UNSET else rng
    return np.random.default_rng(_DEFAULT_SEED if seed is UNSET else seed)


def device_of(device: str | torch.device) -> torch.device:
    """The device: for 'auto' a CUDA GPU if there is one, otherwise the CPU."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        # Such as "meta" has no numbers to give back.
        torch.zeros(1, dtype=torch.float32, device=chosen).cpu()
    # torch raises RuntimeError for unknown and absent devices, AssertionError where it was built without CUDA, others
    # where a device needs a package that is not there.
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        # Of what torch says the first sentence; the next ones may be pages.
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        msg = f"device={str(device)!r} can't be used here ({reason}). Pass 'auto' or 'cpu'."
        raise ValueError(msg) from error
    return chosen


def torch_seed(rng: Seed) -> int:
    """A seed for torch's generator: an integer as it is, else one that the generator draws."""
    if isinstance(rng, int) and rng < _SEEDS_OF_TORCH:
        return rng
    return int(np.random.default_rng(rng).integers(2**63))
