"""Visual hull: what the silhouettes alone say of an object (Laurentini, 1994), and where the object is.

In: views with alpha, in any units. Out: the ball around the object (`locate`), a signed volume of the hull
(`carve`), and how well silhouettes (`agreement`) and depths (`seen_through`) agree, which tells wrong poses
from right ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from recon.fusion import Volume, silhouette_distance
from render.errors import InputError
from render.framing import Placement
from render.gbuffer import GBuffer, ViewSet

_CELLS = 56
_FILL = 0.94
"""Radius that the object's ball has after placing: margins of surfaces and cameras lie around it."""

_THROUGH_PX = 8.0
_THROUGH_POINTS = 2_000


@dataclass(frozen=True)
class Silhouettes:
    """What carving reads of the views, as arrays."""

    w2c: Float[np.ndarray, "C 4 4"]
    intrinsics: Float[np.ndarray, "C 4"]
    perspective: bool
    outside_px: Float[np.ndarray, "C H W"]
    """Signed distance to the silhouette in pixels, positive outside."""
    cut: NDArray[np.bool_]
    """Per view: the silhouette reaches the picture's border, so beside the picture there may be more."""


def silhouettes(views: ViewSet) -> Silhouettes:
    """Signed silhouette distances of all views."""
    alpha = views.gbuffer.alpha[..., 0].cpu().numpy().astype(np.float32)
    inside = alpha > 0.5
    border = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], 1)
    return Silhouettes(
        views.cameras.w2c.cpu().numpy().astype(np.float32),
        views.cameras.intrinsics.cpu().numpy().astype(np.float32),
        views.cameras.projection == "perspective",
        silhouette_distance(inside, alpha),
        np.asarray(border.any(1)),
    )


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _carve(
    origin: NDArray[np.float32],
    voxel: float,
    w2c: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    outside_px: NDArray[np.float32],
    cut: NDArray[np.bool_],
    tolerated: int,
    values: NDArray[np.float32],
) -> None:
    count, height, width = outside_px.shape
    nx, ny, nz = values.shape
    for i in numba.prange(nx):
        largest = np.empty(tolerated + 1, np.float32)
        for j in range(ny):
            for k in range(nz):
                x, y, z = origin[0] + i * voxel, origin[1] + j * voxel, origin[2] + k * voxel
                largest[:] = -np.inf
                for c in range(count):
                    m = w2c[c]
                    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                    cz = -(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
                    w = cz if perspective else np.float32(1.0)
                    if w <= 1e-4:
                        continue
                    fx, fy = intrinsics[c, 0] / w, intrinsics[c, 1] / w
                    px = fx * cx + intrinsics[c, 2] - np.float32(0.5)
                    py = -fy * cy + intrinsics[c, 3] - np.float32(0.5)
                    qx = min(max(px, np.float32(0.0)), np.float32(width - 1.001))
                    qy = min(max(py, np.float32(0.0)), np.float32(height - 1.001))
                    beside = np.sqrt((px - qx) ** 2 + (py - qy) ** 2)
                    if beside > 0.6 and cut[c]:
                        continue
                    u, v = int(qx), int(qy)
                    tx, ty = qx - u, qy - v
                    value = (
                        outside_px[c, v, u] * (1 - tx) * (1 - ty)
                        + outside_px[c, v, u + 1] * tx * (1 - ty)
                        + outside_px[c, v + 1, u] * (1 - tx) * ty
                        + outside_px[c, v + 1, u + 1] * tx * ty
                    )
                    value = (value + beside) / fx
                    # Insertion into the few largest, which are kept in falling order.
                    for t in range(tolerated + 1):
                        if value > largest[t]:
                            value, largest[t] = largest[t], value
                values[i, j, k] = largest[tolerated] if np.isfinite(largest[tolerated]) else np.float32(1.0)


def carve(
    seen: Silhouettes,
    low: Float[np.ndarray, "3"],
    voxel: float,
    shape: tuple[int, int, int],
    tolerated: int = 0,
) -> Volume:
    """The hull as a signed volume: at every sample the largest distance by which a silhouette excludes it.

    Negative inside. `tolerated` views may be wrong anywhere: the next largest value counts then. The distance
    is that in the pictures, at the sample's depth: right across the nearest edge, else a lower bound.
    """
    values = np.empty(shape, np.float32)
    origin = np.asarray(low, np.float32)
    _carve(
        origin,
        voxel,
        seen.w2c,
        seen.intrinsics,
        seen.perspective,
        seen.outside_px,
        seen.cut,
        tolerated,
        values,
    )
    return Volume(values, origin, voxel)


def hull_volume(views: ViewSet, cells: int, half_extent: float = 1.05, tolerated: int = 0) -> Volume:
    """The hull on a cube of `cells` samples a side around the unit ball."""
    voxel = 2 * half_extent / (cells - 1)
    low = np.full(3, -half_extent, np.float32)
    return carve(silhouettes(views), low, voxel, (cells, cells, cells), tolerated)


def locate(views: ViewSet) -> Placement:
    """The ball around the object, in the views' units; placed by it, the object fills 94 % of the unit ball.

    From depth where there is any, else from the hull. `InputError` when the cameras look past each other,
    away from the object, or along one direction only.
    """
    center, radius = _first_guess(views)
    if views.gbuffer.depth is not None:
        points = _surface_points(views)
        # A thousandth at each end may be background that a mask let in.
        low, high = np.quantile(points, 0.001, axis=0), np.quantile(points, 0.999, axis=0)
        middle = (low + high) / 2
        reach = np.quantile(np.linalg.norm(points - middle, axis=1), 0.999) * 1.005
        return Placement(middle.astype(np.float32), float(reach) / _FILL)
    for _ in range(3):
        guess = Placement(center, radius)
        volume = hull_volume(placed(views, guess), _CELLS, 1.3)
        inside = np.argwhere(volume.values < 0.5 * volume.voxel)
        if len(inside) == 0:
            raise InputError(
                "The silhouettes of the views have no point in common: the poses do not belong to the "
                "pictures, or are not camera-to-world in OpenGL's axes (+X right, +Y up, looking along -Z)."
            )
        points = inside * volume.voxel + volume.origin
        middle = (points.min(0) + points.max(0)) / 2
        reach = float(np.linalg.norm(points - middle, axis=1).max()) + 0.5 * volume.voxel
        center = (center + middle * radius).astype(np.float32)
        radius *= reach
    return Placement(center, radius / _FILL)


def placed(views: ViewSet, placement: Placement) -> ViewSet:
    """The views in the units of the unit ball, depth too."""
    channels = views.gbuffer.channels()
    if "depth" in channels:
        channels["depth"] = channels["depth"] / placement.radius
    return ViewSet(placement.cameras(views.cameras), GBuffer(**channels))


def widened(views: ViewSet, share: float = 0.45) -> ViewSet:
    """Views with alpha, depth and normals, and empty space around: fusion learns nothing of what lies beside
    a picture, and pictures that are cut to the object have nothing there.
    """
    cameras, seen = views.cameras, views.gbuffer
    pad = int(share * max(cameras.width, cameras.height))
    channels = {
        name: value for name, value in seen.channels().items() if name in ("alpha", "depth", "normal")
    }
    wide = {
        name: torch.nn.functional.pad(value, (0, 0, pad, pad, pad, pad)) for name, value in channels.items()
    }
    larger = replace(
        cameras,
        intrinsics=cameras.intrinsics + cameras.intrinsics.new_tensor([0.0, 0.0, pad, pad]),
        width=cameras.width + 2 * pad,
        height=cameras.height + 2 * pad,
    )
    return ViewSet(larger, GBuffer(**wide))


def agreement(views: ViewSet, volume: Volume) -> Float[np.ndarray, " C"]:
    """Per view: the share of the silhouette that the hull's samples cover when they are projected into it.

    1 when all silhouettes are of one object seen from these poses (up to the grid); a view whose pose is
    wrong has a silhouette that the others have carved away in part.
    """
    found = np.argwhere(volume.values < 0.5 * volume.voxel)
    points = torch.from_numpy((found * volume.voxel + volume.origin).astype(np.float32))
    small = views.cameras.resized(64, 64)
    alpha = torch.nn.functional.interpolate(
        views.gbuffer.alpha.permute(0, 3, 1, 2), size=(64, 64), mode="area"
    )[:, 0]
    shares = []
    for c in range(len(small)):
        pixels, _ = small[c].project(points)
        column, row = pixels[0].floor().long().unbind(-1)
        hit = torch.zeros(64, 64)
        known = (column >= 0) & (column < 64) & (row >= 0) & (row < 64)
        hit[row[known], column[known]] = 1
        hit = torch.nn.functional.max_pool2d(hit[None, None], 3, 1, 1)[0, 0]
        solid = alpha[c] > 0.5
        shares.append(float((solid & (hit > 0)).sum() / solid.sum().clamp_min(1)))
    return np.array(shares)


def seen_through(views: ViewSet) -> Float[np.ndarray, " C"]:
    """Per view with depth: the share of its points that lie where others look through.

    A point counts when a quarter of the other views that have it in their picture see nothing there, or a
    surface farther away by more than `_THROUGH_PX`. Near 0 when poses and depths belong to each other.
    """
    cameras, seen = views.cameras, views.gbuffer
    assert seen.depth is not None
    solid, depth = seen.alpha[..., 0] > 0.5, seen.depth[..., 0]
    which = torch.arange(len(views))[:, None]
    shares = []
    for c in range(len(views)):
        rows, columns = (solid[c] & (depth[c] > 0)).nonzero().unbind(-1)
        step = 1 + len(rows) // _THROUGH_POINTS
        rows, columns = rows[::step], columns[::step]
        if len(rows) == 0:
            shares.append(0.0)
            continue
        pixels = torch.stack([columns + 0.5, rows + 0.5], -1)[None]
        points = cameras[c].unproject(pixels, depth[c, rows, columns][None])[0]
        place, away = cameras.project(points)
        column, row = place.floor().long().unbind(-1)
        known = (column >= 0) & (column < cameras.width) & (row >= 0) & (row < cameras.height) & (away > 0)
        known[c] = False
        column, row = column.clamp(0, cameras.width - 1), row.clamp(0, cameras.height - 1)
        there = depth[which, row, column]
        pixel = (away if cameras.projection == "perspective" else 1.0) / cameras.intrinsics[:, :1]
        through = known & (~solid[which, row, column] | (there - away > _THROUGH_PX * pixel))
        shares.append(float((through.sum(0) > 0.25 * known.sum(0)).float().mean()))
    return np.array(shares)


def _surface_points(views: ViewSet) -> Float[np.ndarray, "n 3"]:
    assert views.gbuffer.depth is not None
    pixels = views.cameras.pixel_centers().reshape(1, -1, 2).expand(len(views), -1, -1)
    points = views.cameras.unproject(pixels, views.gbuffer.depth.flatten(1))
    good = ((views.gbuffer.alpha > 0.5) & (views.gbuffer.depth > 0)).flatten(1)
    if not bool(good.any()):
        raise InputError("The depth files hold no positive value where the masks show the object.")
    return points[good].double().numpy()


def _first_guess(views: ViewSet) -> tuple[Float[np.ndarray, "3"], float]:
    """The point nearest to all cameras' axes through the middle of their silhouettes, and a radius."""
    cameras = views.cameras
    centre, half = _middles(views.gbuffer)
    near = cameras.unproject(centre[:, None], torch.ones(len(cameras), 1))[:, 0].double().numpy()
    back = cameras.c2w[:, :3, 2].double().numpy()
    if cameras.projection == "perspective":
        origin = cameras.c2w[:, :3, 3].double().numpy()
        direction = near - origin
    else:
        origin, direction = near, -back
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    matrix = across.sum(0)
    if np.linalg.eigvalsh(matrix)[0] < 1e-3 * len(cameras):
        raise InputError("All cameras look along one line; a shape needs views from several sides.")
    center = np.linalg.solve(matrix, (across @ origin[:, :, None]).sum(0)[:, 0])
    point = torch.from_numpy(center.astype(np.float32))[None]
    _, depth = cameras.project(point)
    depth = depth[:, 0]
    behind = (depth <= 0).nonzero()[:, 0].tolist()
    if cameras.projection == "perspective" and len(behind) > len(cameras) // 10:
        raise InputError(
            f"{len(behind)} of {len(cameras)} cameras look away from the object that the others see. Poses "
            "must be camera-to-world in OpenGL's axes (+X right, +Y up, looking along -Z)."
        )
    w = depth.clamp_min(1e-6) if cameras.projection == "perspective" else torch.ones_like(depth)
    reach = (half / cameras.intrinsics[:, 0] * w).numpy()
    return center.astype(np.float32), float(np.median(reach)) * 1.5


def _middles(gbuffer: GBuffer) -> tuple[Float[torch.Tensor, "C 2"], Float[torch.Tensor, " C"]]:
    """Middle (x, y) of each silhouette's box in pixels, and half of the box's diagonal."""
    middles, halves = [], []
    for alpha in gbuffer.alpha[..., 0]:
        rows, columns = (alpha > 0.5).nonzero().unbind(-1)
        if len(rows) == 0:
            raise InputError("A view shows nothing: its mask is empty.")
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        middles.append((box[:2] + box[2:]) / 2)
        halves.append((box[2:] - box[:2]).norm() / 2)
    return torch.stack(middles), torch.stack(halves)
