"""A step of Adam (Kingma and Ba 2015) as one pass over all parameters.

With gradient g: ``m += (1 - beta1) (g - m)``, ``v += (1 - beta2) (g^2 - v)``,
``p -= step m / (sqrt(v) / root_correction + eps)``.
"""

from __future__ import annotations

import numpy as np

from sc_ldvae.kernels._parallel import parallel_kernel


@parallel_kernel
def adam_update(which, n_slices, values, gradient, mean, square, step_size, root_correction, beta1, beta2, eps):
    """Move the moving averages of gradient and squared gradient, then the values."""
    n = len(values)
    one = values.dtype.type(1)
    own = slice(which * n // n_slices, (which + 1) * n // n_slices)
    p, g, m, v = values[own], gradient[own], mean[own], square[own]
    for i in range(len(p)):
        m[i] += (one - beta1) * (g[i] - m[i])
        v[i] += (one - beta2) * (g[i] * g[i] - v[i])
        p[i] -= step_size * m[i] / (np.sqrt(v[i]) / root_correction + eps)
