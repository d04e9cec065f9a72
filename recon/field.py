"""What surface extraction and baking ask of a field: that it can be looked at from anywhere.

Narrower than `recon.fields.Field`, so that a mesh can stand in for a field.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from render.cameras import Cameras
from render.gbuffer import GBuffer


@runtime_checkable
class Renderable(Protocol):
    """Anything with pictures of itself."""

    def render(self, cameras: Cameras) -> GBuffer:
        """Channels at every pixel: alpha and depth always, normal and colours where there are any."""
        ...
