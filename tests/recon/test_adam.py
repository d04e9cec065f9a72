"""Adam is torch's, value for value."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor

from recon.adam import Adam


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(50, 3, generator=generator), torch.randn(7, generator=generator)]
    target = [torch.randn_like(start[0]), torch.randn_like(start[1])]
    ours = [value.clone().requires_grad_() for value in start]
    theirs = [value.clone().requires_grad_() for value in start]
    unused = torch.ones(2, requires_grad=True)
    adam = Adam([(ours[0], 0.1), (ours[1], 0.02), (unused, 0.1)], betas=(0.9, 0.99), eps=1e-12)
    reference = torch.optim.Adam(
        [{"params": [theirs[0]], "lr": 0.1}, {"params": [theirs[1]], "lr": 0.02}],
        betas=(0.9, 0.99),
        eps=1e-12,
    )

    def loss(values: list[Tensor]) -> Tensor:
        return torch.stack([((v - t) ** 4).sum() for v, t in zip(values, target, strict=True)]).sum()

    for _ in range(30):
        loss(ours).backward()
        adam.step()
        adam.decay(0.97)
        loss(theirs).backward()
        reference.step()
        reference.zero_grad()
        for group in reference.param_groups:
            group["lr"] *= 0.97
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-6, rtol=1e-5)
        assert mine.grad is None
    assert unused.tolist() == [1.0, 1.0]


def test_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from recon.adam import Adam; x = torch.ones(2, requires_grad=True);"
        "a = Adam([(x, 0.1)], betas=(0.9, 0.99), eps=1e-8); (x * x).sum().backward(); a.step();"
        "print('torch._dynamo' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
