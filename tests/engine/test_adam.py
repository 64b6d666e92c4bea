from __future__ import annotations

import torch

from sc_ldvae.engine import Adam


def test_adam_is_torchs() -> None:
    start, options = torch.randn(50, generator=torch.Generator().manual_seed(0)), {"betas": (0.9, 0.95), "eps": 1e-8}
    values, gradient, parameter = start.clone(), torch.zeros(50), torch.nn.Parameter(start.clone())
    adam, reference = Adam(values, gradient, **options), torch.optim.Adam([parameter], **options)
    for step in range(20):
        gradient.copy_(torch.sin(values + step))
        parameter.grad = torch.sin(parameter.detach() + step)
        reference.param_groups[0]["lr"] = lr = 0.1 / (step + 1)
        adam.step(lr)
        reference.step()
    torch.testing.assert_close(values, parameter.detach(), rtol=1e-5, atol=1e-6)
