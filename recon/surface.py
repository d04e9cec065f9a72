"""Field and views -> dense, watertight, outward-facing mesh.

Two methods: `tsdf` fuses depth, normals and silhouettes into a signed volume
(`recon.fusion`) and extracts it with marching cubes; `poisson` is Open3D's
screened Poisson reconstruction (Kazhdan and Hoppe, 2013) of the oriented points
of the same pictures. Both then lose their floaters, are relaxed and checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from recon.cleanup import clean
from recon.field import Field
from recon.fusion import DepthMaps, depth_maps, drop_mixed_pixels, fuse, march, survey_cameras
from recon.relax import relax
from recon.topology import is_closed_manifold, vertex_normals
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent
from render.scene import Mesh

Method = Literal["tsdf", "poisson"]


@dataclass(frozen=True)
class SurfaceConfig:
    """How the surface is extracted."""

    method: Method = "tsdf"
    view_size: int = 192
    """Side in pixels of the pictures that the field is rendered to."""
    max_voxels: int = 2_000_000
    """Samples of the volume (tsdf). A million is a cube of 100."""
    poisson_depth: int = 7
    """Octree depth (poisson); 7 is a cube of 128."""
    votes: int = 2
    """Cameras that must see a voxel empty before it is carved (tsdf)."""
    relax_rounds: int = 8
    """Rounds of normal filtering; 0 switches smoothing off."""
    min_component: float = 0.002
    """Parts of less than this fraction of the largest part's area are floaters."""

    def __post_init__(self) -> None:
        ranges = {
            "view_size": (32, 1024),
            "max_voxels": (20_000, 50_000_000),
            "poisson_depth": (4, 10),
            "votes": (1, 8),
            "relax_rounds": (0, 100),
            "min_component": (0.0, 1.0),
        }
        if self.method not in ("tsdf", "poisson"):
            raise InputError(f"surface.method is {self.method!r}; it must be tsdf or poisson")
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"surface.{name} is {value}; it must be from {low} to {high}")


def extract_surface(
    field: Field | None, views: ViewSet, config: SurfaceConfig, *, progress: Progress = silent
) -> Mesh:
    """The object's surface, with smooth normals: closed, manifold, outward, in the field's units.

    Without a field the views' own depth is used. Raises `InputError` when there is nothing to see.
    """
    maps = observe(field, views, config, progress)
    progress(0.4, "fusing")
    match config.method:
        case "tsdf":
            vertices, faces, unit = _from_volume(maps, config)
        case "poisson":
            vertices, faces, unit = _poisson(maps, config)
    progress(0.7, "smoothing")
    vertices, faces = clean(vertices, faces, min_component=config.min_component)
    if len(faces) == 0:
        raise InputError("the views show no object: no surface could be extracted")
    if config.relax_rounds:
        moved = relax(vertices, faces, normal_rounds=config.relax_rounds, limit=unit)
        again_vertices, again_faces = clean(moved, faces, min_component=config.min_component)
        if is_closed_manifold(again_faces):
            vertices, faces = again_vertices, again_faces
    progress(1.0, "surface")
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def observe(
    field: Field | None, views: ViewSet, config: SurfaceConfig, progress: Progress = silent
) -> DepthMaps:
    """Depth maps of the field from all around, or of the views themselves."""
    if field is None:
        if views.gbuffer.depth is None:
            raise InputError("views without depth need a field for a surface")
        maps = depth_maps(views.cameras, views.gbuffer)
    else:
        cameras = survey_cameras(config.view_size)
        pieces: list[GBuffer] = []
        with torch.no_grad():
            for first in range(0, len(cameras), 6):
                progress(0.4 * first / len(cameras), "looking from all around")
                pieces.append(field.render(cameras[first : first + 6]).detach())
        joined = {
            name: torch.cat([p.channels()[name] for p in pieces])
            for name in ("alpha", "depth", "normal")
            if name in pieces[0].channels()
        }
        maps = depth_maps(cameras, GBuffer(**joined))
    return drop_mixed_pixels(maps, 4.0 * maps.pixel * (2.0 if maps.perspective else 1.0))


def _from_volume(
    maps: DepthMaps, config: SurfaceConfig
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"], float]:
    volume = fuse(maps, config.max_voxels, votes=config.votes)
    vertices, faces = march(volume)
    return vertices, faces, volume.voxel


def _poisson(
    maps: DepthMaps, config: SurfaceConfig
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"], float]:
    """Screened Poisson; one thread, because with more the sums, and so the bits, depend on scheduling."""
    import open3d as o3d

    points, normals = oriented_points(maps)
    if len(points) < 16:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), 0.0
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    mesh, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        cloud, depth=config.poisson_depth, scale=1.15, linear_fit=False, n_threads=1
    )
    size = float(np.ptp(points, axis=0).max()) * 1.15
    unit = size / 2**config.poisson_depth
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.triangles, np.int32), unit


def oriented_points(maps: DepthMaps) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Surface points and normals (float64) of all pixels that are not seen at a grazing angle."""
    points, normals = [], []
    for c in range(len(maps.depth)):
        depth = maps.depth[c]
        rotation, shift = maps.w2c[c, :3, :3].astype(np.float64), maps.w2c[c, :3, 3].astype(np.float64)
        rows, columns = np.nonzero((depth > 0) & (maps.normal[c] @ rotation[2] > 0.15))
        z = depth[rows, columns].astype(np.float64)
        fx, fy, cx, cy = maps.intrinsics[c].astype(np.float64)
        w = z if maps.perspective else 1.0
        local = np.stack([(columns + 0.5 - cx) / fx * w, -(rows + 0.5 - cy) / fy * w, -z], -1)
        points.append((local - shift) @ rotation)
        normals.append(maps.normal[c][rows, columns].astype(np.float64))
    return np.concatenate(points), np.concatenate(normals)
