"""A mesh that stands in for a field, and shapes to test with."""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from recon.topology import face_vectors
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Mesh


def known_color(points: np.ndarray) -> np.ndarray:
    """A smooth colour of every point in space, sRGB."""
    return (0.5 + 0.35 * np.sin(points * 4.0 + np.array([0.0, 2.0, 4.0]))).astype(np.float32)


class MeshField:
    """Renders a mesh coloured by `known_color`, metallic by height, with optional noise in depth."""

    def __init__(self, mesh: trimesh.Trimesh, depth_sigma: float = 0.0) -> None:
        self.vertices = np.asarray(mesh.vertices, np.float32)
        self.faces = np.asarray(mesh.faces, np.int32)
        self.depth_sigma = depth_sigma

    def render(self, cameras: Cameras) -> GBuffer:
        found = rasterize(self.vertices, self.faces, cameras)
        seen = found.face >= 0
        alpha = seen.astype(np.float32)[..., None]
        normals = face_vectors(self.vertices, self.faces)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
        points = np.einsum("chwk,chwki->chwi", found.barycentric, self.vertices[self.faces[found.face]])
        noise = self.depth_sigma * np.random.default_rng(0).standard_normal(found.depth.shape)
        depth = np.where(seen, found.depth + noise, 0.0)[..., None]
        color = known_color(points) * alpha

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, np.float32))

        return GBuffer(
            alpha=tensor(alpha),
            base_color_srgb=tensor(color),
            normal=tensor(normals[found.face] * alpha),
            depth=tensor(depth),
            metallic=tensor((points[..., 1:2] > 0) * alpha),
            roughness=tensor(color[..., :1]),
        )


def ten_cameras(size: int = 128) -> Cameras:
    return orbit_cameras([45.0 * i for i in range(8)] + [0.0, 0.0], [15.0] * 8 + [90.0, -90.0], size)


def views_of(field: MeshField, size: int = 128) -> ViewSet:
    cameras = ten_cameras(size)
    return ViewSet(cameras, field.render(cameras))


def as_mesh(mesh: trimesh.Trimesh) -> Mesh:
    return Mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))


def blade() -> trimesh.Trimesh:
    """A thin sword: the hard case for every grid."""
    parts = [
        trimesh.creation.box((0.18, 1.5, 0.04)),
        trimesh.creation.box((0.6, 0.08, 0.1)).apply_translation((0, -0.6, 0)),
    ]
    return trimesh.util.concatenate(parts)


def balls() -> trimesh.Trimesh:
    return trimesh.util.concatenate(
        [trimesh.creation.icosphere(3, 0.25).apply_translation((0.6 * i, 0.1 * i, 0)) for i in (-1, 0, 1)]
    )
