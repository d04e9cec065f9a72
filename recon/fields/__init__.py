"""Fields: what is fitted to the views and turned into a mesh."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from recon.fields.gaussians import GaussianField
from recon.fields.seeding import SeedConfig
from render.cameras import Cameras
from render.gbuffer import GBuffer

__all__ = ["Field", "GaussianField", "SeedConfig"]


@runtime_checkable
class Field(Protocol):
    """A scene representation that can be looked at from anywhere."""

    def render(self, cameras: Cameras) -> GBuffer:
        """What the cameras see; differentiable with respect to `parameters`."""
        ...

    def parameters(self) -> dict[str, Tensor]:
        """The leaf tensors that fitting changes, by name."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `save` writes."""
        ...
