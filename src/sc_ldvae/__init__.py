"""Interpretable factor analysis of single-cell counts with the linearly decoded VAE."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# From here on forks are noticed.
from sc_ldvae import _forks  # noqa: F401

if TYPE_CHECKING:
    from sc_ldvae import datasets, get, io, nn, pl, tl

    __version__: str

__all__ = ["__version__", "datasets", "get", "io", "nn", "pl", "tl"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  a module, or an error
    # torch, scanpy and matplotlib load with the room that needs them, not with the package.
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if name == "__version__":
        return _version()
    return import_module(f"{__name__}.{name}")


def _version() -> str:
    # Tags are what says it, so only what was installed knows it; source that is merely on the path does not.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sc-ldvae")
    except PackageNotFoundError:
        return "0.0.0+not.installed"


def __dir__() -> list[str]:
    return __all__
