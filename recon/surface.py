"""Field and views -> dense, watertight, outward-facing mesh.

Two methods: `poisson` is Open3D's screened Poisson reconstruction (Kazhdan and
Hoppe, 2013) of the oriented points of the field's pictures; `tsdf` fuses their
depth, normals and silhouettes into a signed volume (`recon.fusion`) and extracts
it with marching cubes. Both then lose their floaters, are relaxed and checked.

Poisson is the default, because it is steadier where views disagree, and generated
views do. `python -m bench.surface --props FOLDER --count 5` (7 synthetic shapes, 5
props; F-score at 1 % of the diagonal, mean, with the worst in brackets; normals):

    clean                     tsdf 0.996 (0.978)  5.0 deg    poisson 0.999 (0.992)  5.4 deg
    depth 0.01, wobble 1 px   tsdf 0.982 (0.898) 17.7 deg    poisson 0.991 (0.923) 11.1 deg

All were watertight and manifold. On fields seeded from ten such views `tsdf` also
leaves dozens of small handles where `poisson` has the right genus. On clean views
of thin things and sharp edges `tsdf` has the truer normals, and it keeps the edges: `poisson` rounds them by
about a pixel, which the silhouettes show (`bench/reconstruct.py`). So `auto` takes `tsdf` for views whose own
depths agree within a part of a pixel, as measured ones do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from recon.cleanup import clean
from recon.consensus import outside_of
from recon.crisp import CrispConfig
from recon.field import Renderable
from recon.fusion import (
    DepthMaps,
    depth_maps,
    drop_mixed_pixels,
    fuse,
    march,
    survey_cameras,
)
from recon.quiet import without_lines
from recon.relax import relax
from recon.topology import face_components, is_closed_manifold, used_only, vertex_normals
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent
from render.scene import Mesh

Method = Literal["tsdf", "poisson"]

_AGREE_PX = 0.25
"""Noise of depths up to which views count as measured. Views of four sample assets have 0.003 at most,
and 0.5 once every view is shifted by a pixel (standard deviation)."""


_GHOST_PX = 3.0
_GHOST_SHARE = 0.2
"""A part is a ghost when this share of all views looks through its median point, by so many pixels."""


@dataclass(frozen=True)
class SurfaceConfig:
    """How the surface is extracted."""

    method: Literal["auto", "tsdf", "poisson"] = "auto"
    """`auto`: `tsdf` where the views' own depths are used and agree, else `poisson`."""
    view_size: int = 192
    """Side in pixels of the pictures that the field is rendered to."""
    measured_size: int = 384
    """Largest side in pixels of posed views whose own depth is used; less where there are many."""
    matching_size: int = 128
    """Side in pixels of posed views without depth when colours are matched (`recon.picture_surface`)."""
    max_voxels: int = 2_000_000
    """Samples of the volume (tsdf). A million is a cube of 100."""
    poisson_depth: int = 7
    """Octree depth (poisson); 7 is a cube of 128. Slender things get one more, which costs them little."""
    votes: int = 2
    """Cameras that must see a voxel empty before it is carved (tsdf)."""
    relax_rounds: int = 8
    """Rounds of normal filtering; 0 switches smoothing off. A quarter of them where `auto` takes `tsdf`:
    there is little noise, and each round costs a little of the edges."""
    min_component: float = 0.002
    """Parts of less than this fraction of the largest part's area are floaters."""
    crisp: CrispConfig = field(default_factory=CrispConfig)
    """Of drawn views alone: how the surface is made flat and sharp after that."""

    def __post_init__(self) -> None:
        ranges = {
            "view_size": (32, 1024),
            "measured_size": (32, 1024),
            "matching_size": (32, 512),
            "max_voxels": (20_000, 50_000_000),
            "poisson_depth": (4, 10),
            "votes": (1, 8),
            "relax_rounds": (0, 100),
            "min_component": (0.0, 1.0),
        }
        if self.method not in ("auto", "tsdf", "poisson"):
            raise InputError(f"surface.method is {self.method!r}; it must be auto, tsdf or poisson")
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"surface.{name} is {value}; it must be from {low} to {high}")


def extract_surface(
    field: Renderable | None, views: ViewSet, config: SurfaceConfig, *, progress: Progress = silent
) -> Mesh:
    """The object's surface, with smooth normals: closed, manifold, outward, in the field's units.

    Without a field the views' own depth is used. Raises `InputError` when there is nothing to see.
    """
    maps = observe(field, views, config, progress)
    if not (maps.depth > 0).any():
        raise InputError("the views show no object: no surface could be extracted")
    progress(0.4, "fusing")
    method, rounds = config.method, config.relax_rounds
    if method == "auto":
        agree = field is None and depth_noise_px(maps) < _AGREE_PX
        method, rounds = ("tsdf", rounds // 4) if agree else ("poisson", rounds)
    match method:
        case "tsdf":
            vertices, faces, unit = _from_volume(maps, config)
        case "poisson":
            vertices, faces, unit = _poisson(maps, config)
            vertices, faces = without_ghosts(vertices, faces, maps)
    progress(0.7, "smoothing")
    vertices, faces = clean(vertices, faces, min_component=config.min_component)
    if len(faces) == 0:
        raise InputError("the views show no object: no surface could be extracted")
    if rounds:
        moved = relax(vertices, faces, normal_rounds=rounds, limit=unit)
        again_vertices, again_faces = clean(moved, faces, min_component=config.min_component)
        if is_closed_manifold(again_faces):
            vertices, faces = again_vertices, again_faces
    progress(1.0, "surface")
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def observe(
    field: Renderable | None, views: ViewSet, config: SurfaceConfig, progress: Progress = silent
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
    extent = np.ptp(points, axis=0)
    slender = extent.prod() < 0.08 * extent.max(initial=0.0) ** 3
    depth = config.poisson_depth + int(slender)
    unit = 1.15 * float(extent.max()) / 2**depth
    points, normals = averaged(points, normals, 0.75 * unit)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    # The Poisson solver was seen to print this now and then, with a sound mesh all the same.
    with without_lines(b"bad average roots"):
        mesh, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
            cloud, depth=depth, scale=1.15, linear_fit=False, n_threads=1
        )
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.triangles, np.int32), unit


def without_ghosts(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], maps: DepthMaps
) -> tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "G 3"]]:
    """The mesh without parts that the views look through; unchanged if that is all of it.

    Where normals point away from each other without a wall between, Poisson closes the space beyond with a
    sheet that nobody saw: half of a table's area, once, on the floor under it.
    """
    count, label = face_components(faces)
    keep = np.ones(count, bool)
    for part in range(count if count > 1 else 0):
        of_part = np.unique(faces[label == part])
        some = of_part[:: max(1, len(of_part) // 400)]
        through = (outside_of(vertices[some], maps) > _GHOST_PX * maps.footprint).mean(1)
        keep[part] = np.median(through) < _GHOST_SHARE
    return (vertices, faces) if keep.all() or not keep.any() else used_only(vertices, faces, keep[label])


def depth_noise_px(maps: DepthMaps, others: int = 4) -> float:
    """Median difference of two views' depths of one point, in pixels: every fourth pixel of each view against
    some other views, where these are smooth and see within 8 pixels' size of it. Infinite without any.
    """
    count, height, width = maps.depth.shape
    found = []
    for c in range(count):
        rows, columns = (index[::4] for index in np.nonzero(maps.depth[c] > 0))
        z = maps.depth[c][rows, columns].astype(np.float64)
        fx, fy, cx, cy = maps.intrinsics[c].astype(np.float64)
        w = z if maps.perspective else 1.0
        local = np.stack([(columns + 0.5 - cx) / fx * w, -(rows + 0.5 - cy) / fy * w, -z], -1)
        points = (local - maps.w2c[c, :3, 3]) @ maps.w2c[c, :3, :3].astype(np.float64)
        for o in sorted({(c + 1 + i * count // others) % count for i in range(others)} - {c}):
            seen = points @ maps.w2c[o, :3, :3].T.astype(np.float64) + maps.w2c[o, :3, 3]
            fx, fy, cx, cy = maps.intrinsics[o].astype(np.float64)
            w = np.maximum(-seen[:, 2], 1e-3) if maps.perspective else np.ones(len(seen))
            x, y = fx * seen[:, 0] / w + cx - 0.5, -fy * seen[:, 1] / w + cy - 0.5
            # Of a thin plate the other may see the other side.
            facing = maps.normal[c][rows, columns] @ maps.w2c[o, 2, :3] > 0.3
            inside = facing & (x >= 0) & (y >= 0) & (x < width - 1) & (y < height - 1)
            x, y, depth, pixel = x[inside], y[inside], -seen[inside, 2], w[inside] / fx
            u, v = x.astype(int), y.astype(int)
            tx, ty = x - u, y - v
            corners = np.stack([maps.depth[o][v + j, u + i] for j in (0, 1) for i in (0, 1)], 1)
            weights = np.stack([(1 - tx) * (1 - ty), tx * (1 - ty), (1 - tx) * ty, tx * ty], 1)
            smooth = (corners.min(1) > 0) & (np.ptp(corners, axis=1) < 4 * pixel)
            off = np.abs((corners * weights).sum(1) - depth) / pixel
            found.append(off[smooth & (off < 8)])
    return float(np.median(np.concatenate(found))) if any(map(len, found)) else float("inf")


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


def averaged(
    points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], cell: float
) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m 3"]]:
    """Mean point and normal of every grid cell of side `cell`, apart for each of six main directions.

    A surface point is seen by ten cameras; their mean has a third of the noise, and Poisson has
    fewer points to solve for. Keeping directions apart keeps the two sides of a thin plate apart.
    """
    axis = np.abs(normals).argmax(1)
    side = 2 * axis + (np.take_along_axis(normals, axis[:, None], 1)[:, 0] > 0)
    index = np.floor((points - points.min(0)) / cell).astype(np.int64)
    span = index.max(0) + 1
    key = ((index[:, 0] * span[1] + index[:, 1]) * span[2] + index[:, 2]) * 6 + side
    _, group, count = np.unique(key, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(group, points[:, i]) / count for i in range(3)], 1)
    normal = np.stack([np.bincount(group, normals[:, i]) / count for i in range(3)], 1)
    length = np.linalg.norm(normal, axis=1)
    good = length > 0.3
    return mean[good], normal[good] / length[good, None]
