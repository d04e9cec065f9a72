"""A mesh bent as a whole until it is what the views show.

In: a mesh that is nearly right and views with alpha, and depth where they have it. Out: the same faces, moved
by a smooth field of displacements. A fit to drawn views and what flattens it lose corners, tips and steps
that all views have. Moved one by one by what the outlines ask, vertices dent what is smooth; so here space
is bent, as a lattice with a little stiffness (free-form deformation, Sederberg and Parry, 1986), by least
squares over what all views ask:

* the mesh's outline in each view lies on the view's, and the view's on the mesh's (both ways, so that a tip
  reaches as far as its picture);
* where both show surface, the mesh lies at the view's depth;
* the whole fills the unit ball: it touches it, and its bounding box has its middle there. So the model's
  objects are made, and what is lost of a tip, or drawn on one side only, would scale and shift the rest.

Squared errors are taken by the measure of Geman and McClure (1985): what one view shows and the mesh lacks
altogether pulls little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree

from recon.hull import Silhouettes, silhouettes
from recon.outlines import pixel_size
from recon.topology import vertex_normals
from render.cameras import Cameras
from render.gbuffer import ViewSet
from render.rasterize import Fragments, rasterize
from render.scene import Mesh

_NODES = 16
"""Of the lattice, a side."""
_MARGIN = 0.15
"""Of the lattice around the mesh, in world units."""
_BENDING, _STRETCHING = 1e-5, 1e-6
"""Weights of the field's squared second and first derivatives, integrated over space, beside the mean of the
squared errors; in world units. With a third of the first, smooth things are dented."""
_ROUNDS = 6
_FINE = 2
_REACH_PX = 10.0
"""Outlines farther apart are of different parts."""
_SAME_PX = 0.75
"""Nearer ones are the same: the steps of pixels would push everything sideways."""
_OUTLINE_PX, _BACK_PX, _DEPTH_PX = 3.0, 6.0, 2.0
"""Errors above these count less and less: of the mesh's outlines, of the views', of depths."""
_LEAST_ACROSS = 0.3
"""Of a normal, the share across a view from which it tells of the outline, or along it, of the depth."""
_EVERY = 2
"""Pixels between those whose depth counts."""
_BALL = 0.1
"""Weight of the unit ball, and of the box's middle along each axis."""
_FAR = 0.1
"""What lacks or sticks out by more, in world units, counts less and less."""
_OUTERMOST, _END = 0.06, 0.03
"""What lies so near to the farthest point, or to an end of the box, moves with it."""


@dataclass(frozen=True)
class _Asked:
    """Points that should move by `by` in the directions `along`, all in world units."""

    at: Float[np.ndarray, "N 3"]
    along: Float[np.ndarray, "N 3"]
    by: Float[np.ndarray, " N"]
    weight: Float[np.ndarray, " N"]


@dataclass(frozen=True)
class _Lattice:
    """Trilinear between nodes over a cube."""

    low: Float[np.ndarray, "3"]
    step: float

    @staticmethod
    def around(vertices: Float[np.ndarray, "V 3"]) -> _Lattice:
        low, high = vertices.min(0) - _MARGIN, vertices.max(0) + _MARGIN
        half = float((high - low).max()) / 2
        return _Lattice((low + high) / 2 - half, 2 * half / (_NODES - 1))

    def shares(self, points: Float[np.ndarray, "N 3"]) -> sparse.csr_matrix:
        """[N, nodes]: what of each node's displacement comes to each point."""
        at = np.clip((points - self.low) / self.step, 0, _NODES - 1 - 1e-6)
        cell = at.astype(np.int64)
        part = at - cell
        columns, values = [], []
        for corner in np.ndindex(2, 2, 2):
            x, y, z = (cell + corner).T
            columns.append((x * _NODES + y) * _NODES + z)
            values.append(np.where(corner, part, 1 - part).prod(1))
        rows = np.tile(np.arange(len(points)), 8)
        shape = (len(points), _NODES**3)
        return sparse.csr_matrix((np.concatenate(values), (rows, np.concatenate(columns))), shape)

    def stiffness(self) -> sparse.csr_matrix:
        """[nodes, nodes], of one coordinate of the displacements."""
        one = sparse.identity(_NODES)
        first = sparse.diags([-1.0, 1.0], [0, 1], (_NODES - 1, _NODES))
        second = sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], (_NODES - 2, _NODES))

        def of(x: sparse.spmatrix, y: sparse.spmatrix, z: sparse.spmatrix) -> sparse.csr_matrix:
            difference = sparse.kron(sparse.kron(x, y), z).tocsr()
            return (difference.T @ difference).tocsr()

        straight = of(second, one, one) + of(one, second, one) + of(one, one, second)
        mixed = of(first, first, one) + of(first, one, first) + of(one, first, first)
        stretch = of(first, one, one) + of(one, first, one) + of(one, one, first)
        firm = _BENDING / self.step * (straight + 2 * mixed) + _STRETCHING * self.step * stretch
        return (firm + 1e-7 * sparse.identity(_NODES**3)).tocsr()


def bent(mesh: Mesh, views: ViewSet) -> Mesh:
    """`mesh`, dense and in the unit ball or near it, after a few rounds; its connectivity stays."""
    if len(mesh.faces) == 0 or not bool((views.gbuffer.alpha > 0.5).any()):
        return mesh
    seen, faces = silhouettes(views), np.ascontiguousarray(mesh.faces, np.int32)
    start = mesh.vertices.astype(np.float64)
    lattice = _Lattice.around(start)
    shares, firm = lattice.shares(start), sparse.block_diag([lattice.stiffness()] * 3, "csr")
    field, vertices = np.zeros(3 * _NODES**3), start
    for _ in range(_ROUNDS):
        asked = [
            *_of_outlines(vertices, faces, seen, views.cameras),
            *_of_depths(vertices, faces, views),
            *_of_ball(vertices),
        ]
        field = field + _answer(asked, lattice, firm, field)
        vertices = start + shares @ field.reshape(3, -1).T
    found = vertices.astype(np.float32)
    return Mesh(found, faces, vertex_normals(found, faces))


def _answer(
    asked: list[_Asked], lattice: _Lattice, firm: sparse.csr_matrix, field: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """What `field` should change by: the nodes' x, then their y, then their z."""
    rows = []
    for one in asked:
        shares = lattice.shares(one.at)
        rows.append(sparse.hstack([shares.multiply(one.along[:, [i]]) for i in range(3)], "csr"))
    system = sparse.vstack(rows, "csr")
    weight = np.concatenate([one.weight for one in asked])
    wanted = system.T @ (weight * np.concatenate([one.by for one in asked])) - firm @ field
    diagonal = system.power(2).T @ weight + firm.diagonal()
    size = (len(field), len(field))
    normal = LinearOperator(size, lambda x: system.T @ (weight * (system @ x)) + firm @ x)
    jacobi = LinearOperator(size, lambda x: x / diagonal)
    change, _ = cg(normal, wanted, rtol=1e-3, maxiter=60, M=jacobi)
    return np.asarray(change)


def _of_outlines(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], seen: Silhouettes, cameras: Cameras
) -> Iterator[_Asked]:
    """What the outlines of the mesh ask, and those of the views."""
    fine = cameras.resized(_FINE * cameras.width, _FINE * cameras.height)
    normals, pixel = vertex_normals(vertices.astype(np.float32), faces), pixel_size(cameras)
    there, back = [], []
    for c in range(len(cameras)):
        shown = rasterize(vertices.astype(np.float32), faces, fine[c])
        edge, outside_px = _edge(shown.face[0] >= 0), _finer(seen.outside_px[c])
        aim = _edge(outside_px < 0)
        if len(edge) == 0 or len(aim) == 0:
            continue
        turn = seen.w2c[c, :3, :3].astype(np.float64)
        scale = (shown.depth[0][tuple(edge.T)] if seen.perspective else 1.0) / seen.intrinsics[c, 0]
        at, normal = (_on(shown, edge, faces, values) for values in (vertices, normals))
        across = normal @ turn.T
        across[:, 2] = 0
        length = np.linalg.norm(across, axis=1)
        # The outline runs half a fine pixel beyond the centre of the last one.
        off = outside_px[tuple(edge.T)] + 0.5 / _FINE
        good = (length > _LEAST_ACROSS) & (np.abs(off) < _REACH_PX)
        along = (across / np.maximum(length, 1e-9)[:, None]) @ turn
        there.append((at[good], along[good], (-off * scale)[good]))
        distance, nearest = cKDTree(edge).query(aim)
        good = (distance > _SAME_PX * _FINE) & (distance < _REACH_PX * _FINE)
        distance, nearest = distance[good], nearest[good]
        down, right = ((aim[good] - edge[nearest]) / distance[:, None]).T
        along = np.stack([right, -down, np.zeros_like(right)], 1) @ turn
        back.append((at[nearest], along, distance / _FINE * np.broadcast_to(scale, len(edge))[nearest]))
    count = sum(len(one[0]) for one in there)
    for rows, soft in ((there, _OUTLINE_PX * pixel), (back, _BACK_PX * pixel)):
        if rows:
            at, along, by = (np.concatenate(parts) for parts in zip(*rows, strict=True))
            yield _Asked(at, along, by, 1 / (1 + (by / soft) ** 2) / max(count, 1))


def _of_depths(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], views: ViewSet
) -> Iterator[_Asked]:
    """What the views' depths ask."""
    seen, cameras = views.gbuffer, views.cameras
    if seen.depth is None:
        return
    covered, depth = seen.alpha[..., 0].numpy() > 0.9, seen.depth[..., 0].numpy()
    normals = vertex_normals(vertices.astype(np.float32), faces)
    shown = rasterize(vertices.astype(np.float32), faces, cameras)
    rows = []
    for c in range(len(cameras)):
        both = covered[c] & (shown.face[c] >= 0)
        v, u = pixels = _EVERY * np.argwhere(both[::_EVERY, ::_EVERY]).T
        at, normal = (_on(shown, pixels.T, faces, values, c) for values in (vertices, normals))
        turn, (fx, fy, cx, cy) = cameras.c2w[c, :3, :3].numpy(), cameras.intrinsics[c].numpy()
        ray = np.stack([(u + 0.5 - cx) / fx, -(v + 0.5 - cy) / fy, -np.ones(len(u))], 1)
        if cameras.projection != "perspective":
            ray[:, :2] = 0
        facing = (normal * (ray @ turn.T)).sum(1)
        good = np.abs(facing) > _LEAST_ACROSS
        rows.append((at[good], normal[good], ((depth[c, v, u] - shown.depth[c, v, u]) * facing)[good]))
    at, along, by = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    soft = _DEPTH_PX * pixel_size(cameras)
    yield _Asked(at, along, by, 1 / (1 + (by / soft) ** 2) ** 2 / max(len(by), 1))


def _of_ball(vertices: Float[np.ndarray, "V 3"]) -> Iterator[_Asked]:
    """What the unit ball asks."""
    radius = np.linalg.norm(vertices, axis=1)
    farthest = float(radius.max())
    yield _together(
        vertices, radius > farthest - _OUTERMOST, vertices / np.maximum(radius, 1e-9)[:, None], 1 - farthest
    )
    low, high = vertices.min(0), vertices.max(0)
    for axis, along in enumerate(np.eye(3)):
        middle = float(low[axis] + high[axis]) / 2
        for end in (vertices[:, axis] < low[axis] + _END, vertices[:, axis] > high[axis] - _END):
            yield _together(vertices, end, np.broadcast_to(along, vertices.shape), -middle)


def _together(
    vertices: Float[np.ndarray, "V 3"], which: np.ndarray, along: Float[np.ndarray, "V 3"], by: float
) -> _Asked:
    """That some vertices move alike, which together count for `_BALL`."""
    count = int(which.sum())
    weight = _BALL / (1 + (by / _FAR) ** 2) / count
    return _Asked(vertices[which], along[which], np.full(count, by), np.full(count, weight))


def _on(
    shown: Fragments,
    pixels: Int[np.ndarray, "N 2"],
    faces: Int[np.ndarray, "F 3"],
    values: Float[np.ndarray, "V 3"],
    view: int = 0,
) -> Float[np.ndarray, "N 3"]:
    """What the vertices have, at pixels (row, column) of a view that show the mesh."""
    row, column = pixels.T
    corners = values[faces[shown.face[view, row, column]]].astype(np.float64)
    return np.asarray(np.einsum("nk,nkx->nx", shown.barycentric[view, row, column], corners))


def _edge(covered: np.ndarray) -> Int[np.ndarray, "N 2"]:
    """Rows and columns of covered pixels beside pixels that are not."""
    around = np.pad(covered, 1, constant_values=True)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.argwhere(covered & ~inner)


def _finer(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "h w"]:
    """At the centres of the fine pixels."""
    at = [np.clip((np.arange(_FINE * n) + 0.5) / _FINE - 0.5, 0, n - 1.001) for n in values.shape]
    (r, c), (y, x) = ([a.astype(np.int64) for a in at], [a % 1 for a in at])
    upper = values[r] * (1 - y)[:, None] + values[r + 1] * y[:, None]
    return np.asarray(upper[:, c] * (1 - x) + upper[:, c + 1] * x)
