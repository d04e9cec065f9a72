"""What `recon.fit` needs from score distillation; `pipeline.distillation` provides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from render.cameras import Cameras
from render.gbuffer import GBuffer

Objective = Callable[[GBuffer], Tensor]
"""Scalar loss of a render from the cameras that the objective was made for; differentiable."""


@runtime_checkable
class Guidance(Protocol):
    """An opinion about views that nobody has drawn."""

    def objective(
        self, rendered: GBuffer, cameras: Cameras, fraction: float, generator: torch.Generator
    ) -> Objective:
        """Look at `rendered` once (the costly part) and say what later renders from `cameras` should be.

        `fraction` in [0, 1] is how far the refinement is, for annealing. The result may
        be asked for several steps.
        """
        ...

    def loss(
        self, rendered: GBuffer, cameras: Cameras, fraction: float, generator: torch.Generator
    ) -> Tensor:
        """Scalar, differentiable in `rendered`: `objective(...)(rendered)`."""
        ...
