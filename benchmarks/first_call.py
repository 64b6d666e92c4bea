"""Calls in a process that has imported nothing yet."""

from __future__ import annotations

import resource
import time


def call(gene_likelihood: str, dispersion: str) -> dict[str, float]:
    """Import the package and fit the embedded counts twice, in this process."""
    start = time.perf_counter()
    import sc_ldvae

    options = {"gene_likelihood": gene_likelihood, "dispersion": dispersion, "progress": False}
    first, second = (sc_ldvae.datasets.pbmc68k_counts() for _ in range(2))
    imported, cpu = time.perf_counter(), _cpu_seconds()
    sc_ldvae.tl.ldvae(first, **options)
    called, cpu = time.perf_counter(), _cpu_seconds() - cpu
    sc_ldvae.tl.ldvae(second, **options)
    return {
        "import_seconds": imported - start,
        "call_seconds": called - imported,
        "call_cpu_seconds": cpu,
        "second_seconds": time.perf_counter() - called,
    }


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
