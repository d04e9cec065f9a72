"""Holes through a surface that the views do not show, closed.

In: a closed mesh and the views that it was built of. Out: likewise. Where drawn views disagree, what is built
of them has tunnels and strands: a barrel a hole at its foot, the base of a cone two dozen. A mesh with such
handles is grown and shrunk again by as much, which fills what is narrower than twice that (a morphological
closing; Serra, 1982). What two views see background through stays open: the gap between two pickets.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

from recon.cleanup import clean
from recon.consensus import genus, outside_of
from recon.fusion import DepthMaps, Volume, depth_maps, march
from recon.projection import raycasting_scene
from recon.topology import is_closed_manifold, vertex_normals
from render.gbuffer import ViewSet
from render.scene import Mesh

_REACH_PX = 4.0
"""Half the width of what is filled, in pixels of the views."""
_THROUGH_PX = 1.0
_THROUGH_VIEWS = 2
"""Views that see so much background at a place keep it open."""
_VOXEL = 0.9
"""Of the mesh's edges."""
_MOST_VOXELS = 256
"""Along the mesh."""
_ROUNDING = 0.3
"""In voxels: what is filled by less is but the grid."""


def without_holes(mesh: Mesh, views: ViewSet) -> Mesh:
    """The mesh without the handles that views do not show; itself if it has none.

    views: with depth, from several sides.
    """
    if views.gbuffer.depth is None or genus(mesh) == 0:
        return mesh
    maps = depth_maps(views.cameras, views.gbuffer)
    reach = _REACH_PX * maps.footprint
    distance = _signed_distance(mesh, reach)
    origin, voxel = distance.origin, distance.voxel
    grown = march(Volume(distance.values - np.float32(reach), origin, voxel))
    near = (distance.values > 0) & (distance.values < reach)
    places = (origin + voxel * np.argwhere(near)).astype(np.float32)
    closed = np.float32(reach) - raycasting_scene(*grown).compute_distance(places).numpy()
    filled = closed < distance.values[near] - _ROUNDING * voxel
    filled[filled] = ~_seen_through(places[filled], maps)
    values = distance.values.copy()
    values[near] = np.where(filled, closed, distance.values[near])
    vertices, faces = clean(*march(Volume(values, origin, voxel)))
    if not is_closed_manifold(faces):
        return mesh
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def _signed_distance(mesh: Mesh, reach: float) -> Volume:
    """Distances from the mesh, negative inside, exact from two voxels inside to `reach` outside."""
    corners = mesh.vertices[mesh.faces]
    edge = float(np.median(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)))
    voxel = max(_VOXEL * edge, float(np.ptp(mesh.vertices, axis=0).max()) / _MOST_VOXELS)
    origin = mesh.vertices.min(0) - np.float32(reach + 3 * voxel)
    size = np.ceil((mesh.vertices.max(0) - origin + reach + 3 * voxel) / voxel).astype(int) + 1
    grid = (origin + voxel * np.moveaxis(np.indices(size), 0, -1)).astype(np.float32)
    scene = raycasting_scene(mesh.vertices, mesh.faces)
    inside = scene.compute_occupancy(grid, nsamples=3).numpy() > 0.5
    rough = np.where(inside, -distance_transform_edt(inside), distance_transform_edt(~inside)) * voxel
    band = (rough > -2 * voxel) & (rough < reach + 2 * voxel)
    exact = scene.compute_distance(grid[band]).numpy()
    rough[band] = np.where(inside[band], -exact, exact)
    return Volume(rough.astype(np.float32), origin, voxel)


def _seen_through(points: Float[np.ndarray, "n 3"], maps: DepthMaps) -> Bool[np.ndarray, " n"]:
    no_surface = np.zeros_like(maps.depth), np.ascontiguousarray(maps.outside_px)
    beside = outside_of(points, maps, no_surface) > _THROUGH_PX * maps.footprint
    seen: Bool[np.ndarray, " n"] = beside.sum(1) >= _THROUGH_VIEWS
    return seen
