"""Normals of a mesh's faces, made even within flat and curved parts and sharp between them.

`patches` and `flattest` are a Kuwahara filter over the surface (Kuwahara et al., 1976; the guide of Zhang et
al., "Guided Mesh Normal Filtering", 2015), `diffused` a bilateral one (Zheng et al., "Bilateral Normal
Filtering for Mesh Denoising", 2011). Numba kernels: faces `[F, 3]` int32, normals `[F, 3]` float64.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True)
@no_type_check
def patches(faces, centers, normals, around, first, radii, most):
    """CSR of the faces within `radius` of each face, over shared vertices, that do not face away from it."""
    count = len(faces)
    start = np.zeros(count + 1, np.int64)
    out = np.empty(count * most, np.int32)
    seen = np.full(count, -1, np.int32)
    size = 0
    for f in range(count):
        limit = radii[f] * radii[f]
        begin = size
        out[size] = f
        size += 1
        seen[f] = f
        at = begin
        while at < size and size - begin < most:
            g = out[at]
            at += 1
            for corner in range(3):
                v = faces[g, corner]
                for k in range(first[v], first[v + 1]):
                    h = around[k]
                    if seen[h] == f or size - begin >= most:
                        continue
                    seen[h] = f
                    dx = centers[h, 0] - centers[f, 0]
                    dy = centers[h, 1] - centers[f, 1]
                    dz = centers[h, 2] - centers[f, 2]
                    alike = (
                        normals[h, 0] * normals[f, 0]
                        + normals[h, 1] * normals[f, 1]
                        + normals[h, 2] * normals[f, 2]
                    )
                    if dx * dx + dy * dy + dz * dz <= limit and alike > -0.3:
                        out[size] = h
                        size += 1
        start[f + 1] = size
    return start, out[:size].copy()


@numba.njit(cache=True)
@no_type_check
def flattest(normals, weights, start, members, softness):
    """Mean normal of the least varied patches that hold each face; one round."""
    count = len(normals)
    mean = np.zeros((count, 3))
    spread = np.ones(count)
    for f in range(count):
        x, y, z, total = 0.0, 0.0, 0.0, 0.0
        for k in range(start[f], start[f + 1]):
            g = members[k]
            w = weights[g]
            x += w * normals[g, 0]
            y += w * normals[g, 1]
            z += w * normals[g, 2]
            total += w
        length = np.sqrt(x * x + y * y + z * z)
        if length > 1e-12 * total and total > 0.0:
            mean[f, 0], mean[f, 1], mean[f, 2] = x / length, y / length, z / length
            spread[f] = 1.0 - length / total
    out = normals.copy()
    for f in range(count):
        least = 1.0
        for k in range(start[f], start[f + 1]):
            least = min(least, spread[members[k]])
        x, y, z = 0.0, 0.0, 0.0
        for k in range(start[f], start[f + 1]):
            g = members[k]
            w = np.exp(-(spread[g] - least) / softness)
            x += w * mean[g, 0]
            y += w * mean[g, 1]
            z += w * mean[g, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if length > 1e-12:
            out[f, 0], out[f, 1], out[f, 2] = x / length, y / length, z / length
    return out


@numba.njit(cache=True)
@no_type_check
def diffused(guide, anchor, areas, neighbours, inverse_two_sigma2, rounds):
    """Normals that differ little from `guide` where it is trusted and little between alike neighbours."""
    n = guide.copy()
    for _ in range(rounds):
        for f in range(len(n)):
            pull = anchor[f] * areas[f]
            s0, s1, s2 = pull * guide[f, 0], pull * guide[f, 1], pull * guide[f, 2]
            own = 1e-3 * areas[f]
            s0 += own * n[f, 0]
            s1 += own * n[f, 1]
            s2 += own * n[f, 2]
            for side in range(3):
                g = neighbours[f, side]
                if g < 0:
                    continue
                d0, d1, d2 = n[g, 0] - n[f, 0], n[g, 1] - n[f, 1], n[g, 2] - n[f, 2]
                w = areas[g] * np.exp(-(d0 * d0 + d1 * d1 + d2 * d2) * inverse_two_sigma2)
                s0 += w * n[g, 0]
                s1 += w * n[g, 1]
                s2 += w * n[g, 2]
            length = np.sqrt(s0 * s0 + s1 * s1 + s2 * s2)
            if length > 1e-30:
                n[f, 0], n[f, 1], n[f, 2] = s0 / length, s1 / length, s2 / length
    return n
