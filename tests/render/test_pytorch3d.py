"""The z-buffer rasteriser against pytorch3d's, where that is installed (it has no wheels for Linux).

Both are given the same triangles in the same pixels: which triangle a pixel shows, how deep and where on it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from render.cameras import Cameras, orbit_cameras
from render.rasterize import Fragments, rasterize
from render.rigs import RigConfig, rig_cameras

SIZE = 96


def rasterize_with_pytorch3d(vertices: np.ndarray, faces: np.ndarray, cameras: Cameras) -> Fragments:
    """`render.rasterize.rasterize` by pytorch3d: two-sided, one face a pixel, no blur; square pictures.

    pytorch3d's screen has +X to the left and +Y up, from -1 to 1, and keeps z as depth.
    """
    pytest.importorskip(
        "pytorch3d", reason="pytorch3d is not installed; it has no wheels for Linux, build it from source"
    )
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    assert cameras.width == cameras.height
    pixels, depth = cameras.project(torch.from_numpy(vertices))
    count = len(cameras)
    screen = torch.cat([1 - 2 * pixels / cameras.width, depth.reshape(count, -1, 1)], -1).float()
    triangles = torch.from_numpy(faces.astype(np.int64)).expand(count, -1, -1)
    meshes = Meshes(list(screen), list(triangles))
    face, zbuf, barycentric, _ = rasterize_meshes(
        meshes,
        image_size=cameras.width,
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=cameras.projection == "perspective",
        cull_backfaces=False,
    )
    hit = face[..., 0] >= 0
    # Faces are numbered on through the batch.
    first = torch.arange(count)[:, None, None] * len(faces)
    # Its areas have 1e-8 added, which a small triangle's coordinates show: they fall short of 1 together.
    whole = barycentric[..., 0, :].sum(-1)
    return Fragments(
        torch.where(hit, face[..., 0] - first, -1).int().numpy(),
        torch.where(hit[..., None], barycentric[..., 0, :] / whole[..., None], 0.0).numpy(),
        torch.where(hit, zbuf[..., 0] / whole, 0.0).numpy(),
    )


def views(projection: str) -> Cameras:
    if projection == "orthographic":
        return orbit_cameras([0.0, 70.0, 200.0], [10.0, -40.0, 60.0], SIZE)
    return rig_cameras(RigConfig(count=3, size_px=SIZE, fov_deg=45.0))


@pytest.mark.parametrize("projection", ["orthographic", "perspective"])
def test_both_see_the_same(projection: str) -> None:
    shape = trimesh.creation.torus(0.6, 0.25, major_sections=40, minor_sections=20)
    vertices, faces = shape.vertices.astype(np.float32), shape.faces.astype(np.int32)
    cameras = views(projection)
    other = rasterize_with_pytorch3d(vertices, faces, cameras)
    ours = rasterize(vertices, faces, cameras)
    same = ours.face == other.face
    # Pixel centres that fall onto an edge may go to either side.
    assert same.mean() > 0.999
    both = same & (ours.face >= 0)
    np.testing.assert_allclose(ours.depth[both], other.depth[both], atol=1e-4)
    np.testing.assert_allclose(ours.barycentric[both], other.barycentric[both], atol=2e-3)
