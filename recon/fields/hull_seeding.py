"""First guess of a Gaussian field from pictures alone: discs on the visual hull.

In: views with alpha and colour, no depth. Out: a `GaussianField` on the hull's surface, or on a sphere where
no silhouette says anything (masks that cover everything). Colours are those of the views that see a disc most
frontally, hull against hull (`recon.bake.gather`).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from recon.bake import BakeConfig, gather
from recon.cleanup import clean
from recon.fields.gaussians import GaussianField
from recon.fields.seeding import SeedConfig, quaternions
from recon.fusion import march
from recon.hull import hull_volume
from recon.topology import vertex_normals
from render.gbuffer import ViewSet
from render.scene import Mesh

_CELLS = 112
_SPHERE = 0.94
"""Radius of the sphere; see `recon.hull.locate`."""


def seed_hull(views: ViewSet, config: SeedConfig) -> GaussianField:
    """A field of at most `config.max_gaussians` discs, even over the hull."""
    mesh = hull_mesh(views)
    points, normals, area = _spread(mesh, config.max_gaussians)
    values, _ = gather(mesh, points, normals, views, BakeConfig(sharpness=4.0))
    side = float(np.sqrt(area / len(points)))
    normal = torch.from_numpy(normals)
    helper = torch.eye(3)[normal.abs().argmin(-1)]
    x = torch.nn.functional.normalize(torch.linalg.cross(helper, normal), dim=-1)
    frames = torch.stack([x, torch.linalg.cross(normal, x), normal], -1)
    color = torch.from_numpy(values)
    unseen = color[:, :3].sum(-1, keepdim=True) == 0
    color = torch.where(unseen, color[~unseen[:, 0]].mean(0) if bool((~unseen).any()) else 0.5, color)
    count = len(points)
    logit = float(np.log(config.opacity / (1 - config.opacity)))
    return GaussianField(
        means=torch.from_numpy(points),
        quats=quaternions(frames),
        log_scales=torch.full((count, 2), float(np.log(1.2 * config.spread * side))),
        opacity_logits=torch.full((count,), logit),
        base_color_srgb=color[:, :3].contiguous(),
        metallic=color[:, 3:4].contiguous(),
        roughness=color[:, 4:5].contiguous(),
    )


def hull_mesh(views: ViewSet) -> Mesh:
    """The hull's surface; one silhouette of many may be wrong anywhere."""
    volume = hull_volume(views, _CELLS, tolerated=1 if len(views) >= 24 else 0)
    volume.values[[0, -1]] = volume.values[:, [0, -1]] = volume.values[:, :, [0, -1]] = volume.voxel
    vertices, faces = clean(*march(volume))
    if len(faces) == 0:
        import trimesh

        ball = trimesh.creation.icosphere(5, _SPHERE)
        vertices = np.asarray(ball.vertices, np.float32)
        faces = np.asarray(ball.faces, np.int32)
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def _spread(mesh: Mesh, count: int) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], float]:
    """Points even over the surface (low-discrepancy along the faces' area), normals there, and the area."""
    assert mesh.normals is not None
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    areas = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    ends = np.cumsum(areas)
    number = min(count, 2 * len(areas))
    place = (np.arange(number) + 0.5) / number * ends[-1]
    face = np.searchsorted(ends, place).clip(0, len(areas) - 1)
    # Within a face: the R2 sequence, folded into the triangle.
    index = np.arange(number)
    u, v = (0.5 + 0.7548776662466927 * index) % 1, (0.5 + 0.5698402909980532 * index) % 1
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], 1)[..., None]
    points = (corners[face] * weights).sum(1)
    normals = (mesh.normals[mesh.faces[face]] * weights).sum(1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return points.astype(np.float32), normals.astype(np.float32), float(ends[-1])
