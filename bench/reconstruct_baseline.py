"""The plain way from depth views to an asset, which `bench.reconstruct` compares with.

Open3D's TSDF volume of the same depth, its quadric decimation to the same budget, xatlas with its defaults,
and for every texel the colour of the one view that sees it most frontally.
"""

from __future__ import annotations

import numpy as np

from pipeline.posed_views import PosedViews
from recon.texels import texels_of
from recon.topology import face_vectors, vertex_normals
from render.rasterize import rasterize
from render.scene import Material, Mesh, Part, Scene

VOXELS = 256
"""Across the unit ball: a voxel is about a pixel of 256-pixel views."""
_CHUNK = 200_000


def baseline(found: PosedViews, polycount: int, texture_size: int) -> Scene:
    """A textured mesh of views with depth, in the unit ball of `found`."""
    mesh = unwrapped(decimated(fused(found), polycount))
    color = nearest_views(mesh, found, texture_size)
    one = np.ones((1, 1), np.float32)
    return Scene((Part(mesh, Material(color, 0 * one, 0.8 * one), "baseline"),))


def fused(found: PosedViews) -> Mesh:
    """Open3D's TSDF on blocks of voxels."""
    import open3d as o3d

    views = found.views
    assert views.gbuffer.depth is not None
    core, truncation, farthest = o3d.core, 4.0, 100.0
    grid = o3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight"),
        (core.float32, core.float32),
        ((1), (1)),
        voxel_size=2.0 / VOXELS,
        block_resolution=16,
        block_count=10_000,
        device=core.Device("CPU:0"),
    )
    flip = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenCV's axes
    for c in range(len(views)):
        depth = o3d.t.geometry.Image(core.Tensor(np.ascontiguousarray(views.gbuffer.depth[c].numpy())))
        fx, fy, cx, cy = (float(value) for value in views.cameras.intrinsics[c])
        # Open3D's pixels have their centres at whole numbers.
        matrix = core.Tensor(np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]]))
        pose = core.Tensor(np.linalg.inv(views.cameras.c2w[c].double().numpy() @ flip))
        blocks = grid.compute_unique_block_coordinates(depth, matrix, pose, 1.0, farthest, truncation)
        grid.integrate(blocks, depth, matrix, pose, 1.0, farthest, truncation)
    made = grid.extract_triangle_mesh(1.0)
    vertices, faces = made.vertex.positions.numpy(), made.triangle.indices.numpy()
    return Mesh(np.asarray(vertices, np.float32), np.asarray(faces, np.int32))


def decimated(mesh: Mesh, polycount: int) -> Mesh:
    """Open3D's quadric decimation."""
    import open3d as o3d

    made = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
    )
    made = made.simplify_quadric_decimation(polycount)
    return Mesh(np.asarray(made.vertices, np.float32), np.asarray(made.triangles, np.int32))


def unwrapped(mesh: Mesh) -> Mesh:
    """xatlas with its defaults."""
    import xatlas

    source, faces, uvs = xatlas.parametrize(mesh.vertices, mesh.faces.astype(np.uint32))
    normals = vertex_normals(mesh.vertices, mesh.faces)
    return Mesh(mesh.vertices[source], faces.astype(np.int32), normals[source], uvs.astype(np.float32))


def nearest_views(mesh: Mesh, found: PosedViews, size: int) -> np.ndarray:
    """sRGB texture: of each texel the pixel of the view that sees it most frontally, grey where none does."""
    views = found.views
    seen = (
        views.gbuffer.base_color_srgb if views.gbuffer.base_color_srgb is not None else views.gbuffer.rgb_srgb
    )
    assert seen is not None
    pictures, width = seen.numpy(), views.cameras.width
    depth = rasterize(mesh.vertices, mesh.faces, views.cameras).depth
    texels = texels_of(mesh, size)
    chosen = texels.face >= 0
    points = texels.interpolate(mesh.vertices, mesh.faces)
    cross = face_vectors(mesh.vertices, mesh.faces)
    unit = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)
    normals = unit[texels.face[chosen]].astype(np.float32)
    w2c, c2w = views.cameras.w2c.numpy(), views.cameras.c2w.numpy()
    intrinsics = views.cameras.intrinsics.numpy()
    values = np.full((len(points), 3), 0.5, np.float32)
    for first in range(0, len(points), _CHUNK):
        p, n = points[first : first + _CHUNK], normals[first : first + _CHUNK]
        best = np.full(len(p), 0.05, np.float32)
        for c in range(len(views)):
            local = p @ w2c[c, :3, :3].T + w2c[c, :3, 3]
            z = np.maximum(-local[:, 2], 1e-6)
            fx, fy, cx, cy = intrinsics[c]
            column = np.clip((fx * local[:, 0] / z + cx).astype(int), 0, width - 1)
            row = np.clip((-fy * local[:, 1] / z + cy).astype(int), 0, width - 1)
            towards = c2w[c, :3, 3] - p
            cosine = (n * towards).sum(1) / np.linalg.norm(towards, axis=1)
            hit = (cosine > best) & (np.abs(depth[c, row, column] - z) < 0.02)
            best[hit] = cosine[hit]
            values[first : first + _CHUNK][hit] = pictures[c, row[hit], column[hit]]
    image = np.full((size, size, 3), 0.5, np.float32)
    image[chosen] = values
    return image
