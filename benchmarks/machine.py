"""What a measurement ran on, and the memory of this process."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "torch",
    "numba",
    "scvi-tools",
    "lightning",
    "scanpy",
    "scikit-learn",
    "numpy",
    "anndata",
    "h5py",
    "annbatch",
)
_STATUS = Path("/proc/self/status")


def description(threads: int) -> str:
    """One line: processor, cores, threads in use, versions."""
    versions = []
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return (
        f"{_processor()}, {os.cpu_count()} cores, {threads} threads, {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def peak_megabytes() -> float:
    """Largest resident memory since the start, or since `forget_peak` where the system can forget it."""
    if _STATUS.exists():
        # Not getrusage: on Linux it starts from the memory of the process that started this one.
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def resident_megabytes() -> float:
    """Resident memory now (Linux), else the peak so far."""
    return _status("VmRSS") if _STATUS.exists() else peak_megabytes()


def forget_peak() -> None:
    """Let the peak start anew from what is resident now (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def idle() -> dict[str, float]:
    """Peak of a process that has loaded torch and done nothing."""
    import torch

    torch.zeros(1)
    return {"peak_megabytes": peak_megabytes()}


def _status(field: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].strip()
    return platform.processor() or platform.machine()
