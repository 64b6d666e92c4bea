"""Beyond these numbers nothing that a model says is looked for in data, and single precision ends soon."""

from __future__ import annotations

# A negative binomial with so large an inverse dispersion is Poisson; with so small a one it is all zeros.
LARGEST_LOG_THETA = 20.0
