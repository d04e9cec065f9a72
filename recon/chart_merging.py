"""Small charts joined to their neighbours, where that neither stretches nor covers anything.

xatlas leaves a chart of a few triangles at every bump that its growing charts cannot take in: of a stool made
of pictures, 742 of 838 charts held 4 % of the surface. Here a small chart is laid beside a neighbour as a
whole, by the rotation that fits the shared border best (Kabsch, 1976), and sewn to it. It stays where every
triangle keeps its side and its shape, and where nothing lies close to it that is far from it on the surface.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from recon.relax import neighbour_faces
from recon.topology import face_components

_STRETCH = 2.5
"""Largest stretch of a triangle that is laid, either way, beside the mesh's usual texel density."""
_LARGEST = 0.01
"""Charts of more than this part of the area are left alone."""
_CANDIDATES = 6
"""Neighbours that are tried, those with the longest shared border first."""
_PASSES = 4
_GAP = 1.5
"""Free space between parts that are not close on the surface, in units of `uvs`: texels of a size of 512."""
_CLOSE = 3.0
"""Times that two triangles may be as far apart on the surface as in the texture, to be close there."""


def merged(
    vertices: Float[np.ndarray, "V 3"],
    source: Int[np.ndarray, " U"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "U 2"],
) -> tuple[Int[np.ndarray, "F 3"], Float[np.ndarray, "U 2"]]:
    """Faces and UVs (in texels, of one density) of fewer charts; chart vertices that were sewn on are unused.

    source: vertex of every chart vertex. Deterministic.
    """
    faces, uvs = faces.copy(), uvs.astype(np.float64)
    welded = source[faces].astype(np.int32)
    beside = neighbour_faces(welded)
    corners = vertices[welded].astype(np.float64)
    shape, places = _Shape(corners), uvs[faces]
    drawn = _areas(places)
    if not shape.real.any():
        return faces, uvs.astype(np.float32)
    usual = float(np.sqrt(np.median(np.abs(drawn[shape.real]) / shape.area[shape.real])))
    centers = usual * corners.mean(1)
    count, label = face_components(faces)
    order = np.argsort(label, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(label, minlength=count))[:-1])
    size, turn = np.bincount(label, shape.area, count), np.bincount(label, drawn, count)
    most = _LARGEST * size.sum()
    for _ in range(_PASSES):
        before = int((size > 0).sum())
        for chart in np.argsort(size, kind="stable").tolist():
            own = members[chart]
            if size[chart] > most or len(own) == 0:
                continue
            for other, border in _neighbours(own, label, beside, shape.lengths):
                rest = members[other]
                for sewn in (border, border[:1]) if len(border) > 1 else (border,):
                    ids, spots = _laid(own, sewn, faces, uvs, welded, beside)
                    fits = shape.kept(own, spots, usual, bool(turn[other] < 0))
                    if fits and not _collide(spots, own, rest, places, welded, centers):
                        break
                else:
                    continue
                faces[own] = ids
                uvs[ids] = places[own] = spots
                label[own] = other
                members[other], members[chart] = np.concatenate([rest, own]), own[:0]
                size[other] += size[chart]
                turn[other] += _areas(spots).sum()
                size[chart] = 0.0
                break
        if int((size > 0).sum()) == before:
            break
    return faces, uvs.astype(np.float32)


class _Shape:
    """Triangles in space: areas (twice), lengths of the edges, and what takes their planes to UVs."""

    def __init__(self, corners: Float[np.ndarray, "F 3 3"]) -> None:
        along, beside = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        self.lengths: Float[np.ndarray, "F 3"] = np.linalg.norm(np.roll(corners, -1, 1) - corners, axis=2)
        self.area: Float[np.ndarray, " F"] = np.linalg.norm(np.cross(along, beside), axis=1)
        self.real = self.area > 1e-12 * self.area.max(initial=0.0)
        base = np.maximum(self.lengths[:, 0], 1e-30)
        height = np.maximum(self.area / base, 1e-30)
        self._base, self._height = base, height
        self._skew = (along * beside).sum(1) / base

    def kept(
        self, which: Int[np.ndarray, " n"], uvs: Float[np.ndarray, "n 3 2"], usual: float, mirrored: bool
    ) -> bool:
        """Whether triangles laid so have this side up and are stretched by `_STRETCH` at most."""
        if not self.real[which].all():
            return False
        x = (uvs[:, 1] - uvs[:, 0]) / self._base[which, None]
        y = (uvs[:, 2] - uvs[:, 0] - self._skew[which, None] * x) / self._height[which, None]
        # Singular values of the matrix with columns x and y.
        turned, flipped = (
            np.hypot(x[:, 0] + y[:, 1], x[:, 1] - y[:, 0]) / 2,
            np.hypot(x[:, 0] - y[:, 1], x[:, 1] + y[:, 0]) / 2,
        )
        if mirrored:
            turned, flipped = flipped, turned
        return bool(
            (turned - flipped >= usual / _STRETCH).all() and (turned + flipped <= usual * _STRETCH).all()
        )


def _areas(uvs: Float[np.ndarray, "F 3 2"]) -> Float[np.ndarray, " F"]:
    """Twice the signed areas."""
    a, b = uvs[:, 1] - uvs[:, 0], uvs[:, 2] - uvs[:, 0]
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def _neighbours(
    own: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " F"],
    beside: Int[np.ndarray, "F 3"],
    lengths: Float[np.ndarray, "F 3"],
) -> list[tuple[int, Int[np.ndarray, "b 2"]]]:
    """Charts beside the faces `own` and the shared border (face, side), the longest of each first."""
    across = beside[own]
    labels = np.where(across >= 0, label[across], -1)
    row, side = np.nonzero((labels >= 0) & (labels != label[own[0]]))
    found, group = np.unique(labels[row, side], return_inverse=True)
    shared = np.bincount(group.ravel(), lengths[own[row], side], len(found))
    order = np.argsort(-lengths[own[row], side], kind="stable")
    border, group = np.stack([own[row], side], 1)[order], group.ravel()[order]
    longest = np.argsort(-shared, kind="stable")[:_CANDIDATES]
    return [(int(found[k]), border[group == k]) for k in longest]


def _laid(
    own: Int[np.ndarray, " n"],
    border: Int[np.ndarray, "b 2"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "U 2"],
    welded: Int[np.ndarray, "F 3"],
    beside: Int[np.ndarray, "F 3"],
) -> tuple[Int[np.ndarray, "n 3"], Float[np.ndarray, "n 3 2"]]:
    """Chart vertices and UVs of `own` sewn to the faces beyond `border`, the rest turned along."""
    partner: dict[int, int] = {}
    for face, side in border.tolist():
        other = beside[face, side]
        for corner in (side, (side + 1) % 3):
            there = faces[other, np.flatnonzero(welded[other] == welded[face, corner])[0]]
            partner.setdefault(int(faces[face, corner]), int(there))
    mine, theirs = uvs[list(partner)], uvs[list(partner.values())]
    p, q = mine - mine.mean(0), theirs - theirs.mean(0)
    angle = np.arctan2((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum(), (p * q).sum())
    cos, sin = np.cos(angle), np.sin(angle)
    ids = faces[own]
    spots = (uvs[ids] - mine.mean(0)) @ np.array([[cos, sin], [-sin, cos]]) + theirs.mean(0)
    for here, there in partner.items():
        at = ids == here
        spots[at] = uvs[there]
        ids = np.where(at, there, ids)
    return ids, spots


@numba.njit(cache=True)
@no_type_check
def _collide(spots, own, rest, places, corners, centers):
    """Whether any triangle of `own`, laid at `spots`, overlaps another or one of `rest`, at `places`, or
    comes nearer than `_GAP` to one that is not close to it on the surface. Centres are in units of UVs."""
    n = len(own)
    for i in range(n):
        for j in range(i + 1, n + len(rest)):
            g = own[j] if j < n else rest[j - n]
            other = spots[j] if j < n else places[g]
            beside = False
            for axis in range(2):
                a0, a1, a2 = spots[i, 0, axis], spots[i, 1, axis], spots[i, 2, axis]
                b0, b1, b2 = other[0, axis], other[1, axis], other[2, axis]
                beside = beside or min(b0, b1, b2) - _GAP > max(a0, a1, a2)
                beside = beside or max(b0, b1, b2) + _GAP < min(a0, a1, a2)
            if beside:
                continue
            near = False
            for a in range(3):
                for b in range(3):
                    near = near or corners[own[i], a] == corners[g, b]
            if not near:
                drawn2, real2 = 0.0, 0.0
                for axis in range(2):
                    drawn2 += (spots[i, :, axis].sum() - other[:, axis].sum()) ** 2 / 9
                for axis in range(3):
                    real2 += (centers[own[i], axis] - centers[g, axis]) ** 2
                near = real2 < _CLOSE * _CLOSE * drawn2
            needed = -1e-3 if near else _GAP
            if _apart(spots[i], other) < needed and _apart(other, spots[i]) < needed:
                return True
    return False


@numba.njit(cache=True)
@no_type_check
def _apart(a, b):
    """Width of the widest strip along an edge of `a` that parts the triangles; negative without one."""
    turn = (a[1, 0] - a[0, 0]) * (a[2, 1] - a[0, 1]) - (a[1, 1] - a[0, 1]) * (a[2, 0] - a[0, 0])
    best = -1e30
    for k in range(3):
        start, end = a[k], a[(k + 1) % 3]
        nx, ny = end[1] - start[1], start[0] - end[0]
        length = np.sqrt(nx * nx + ny * ny)
        if length < 1e-12:
            continue
        if turn < 0:
            nx, ny = -nx, -ny
        width = 1e30
        for corner in range(3):
            width = min(width, ((b[corner, 0] - start[0]) * nx + (b[corner, 1] - start[1]) * ny) / length)
        best = max(best, width)
    return best
