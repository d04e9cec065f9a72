"""The protocol of a field: whatever can be rendered from any camera."""

from __future__ import annotations

from typing import Protocol

from render.cameras import Cameras
from render.gbuffer import GBuffer


class Field(Protocol):
    """What surface extraction and baking ask of a field (Gaussians, NeRF, or a mesh in the tests)."""

    def render(self, cameras: Cameras) -> GBuffer:
        """Channels at every pixel: alpha and depth always, normal and colours where the field has them."""
