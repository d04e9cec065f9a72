"""A small object and posed views of it, for the tests of reconstruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.posed_set import Channel, render_views
from render.rigs import RigConfig
from render.scene import Material, Mesh, Part, Scene
from tests.conftest import barrel


def barrel_scene(scale: float = 0.4) -> Scene:
    """The barrel, 0.6 units high, half red and half blue, away from the origin."""
    mesh = barrel()
    vertices = (mesh.vertices * scale + np.array([0.3, 1.0, -0.2])).astype(np.float32)
    colors = np.where(mesh.vertices[:, :1] > 0, [[0.8, 0.2, 0.1]], [[0.1, 0.2, 0.7]]).astype(np.float32)
    material = Material(
        np.ones((1, 1, 3), np.float32), np.zeros((1, 1), np.float32), np.full((1, 1), 0.6, np.float32)
    )
    part = Part(
        Mesh(vertices, mesh.faces.astype(np.int32), np.asarray(mesh.vertex_normals, np.float32),
             colors_srgb=colors),
        material,
    )  # fmt: skip
    return Scene((part,))


def barrel_set(
    out: Path,
    *,
    count: int = 12,
    size: int = 64,
    fov_deg: float | None = 40.0,
    channels: tuple[Channel, ...] = ("depth", "normal"),
    color: str = "base_color",
) -> Path:
    """A folder of views of it."""
    render_views(
        barrel_scene(),
        out,
        RigConfig(count=count, size_px=size, fov_deg=fov_deg),
        color="base_color" if color == "base_color" else "shaded",
        channels=channels,
        supersample=2,
    )
    return out
