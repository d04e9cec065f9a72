"""UV charts packed into one square texture, and the normals that go with them.

Charts come from xatlas (Young, after Lévy et al., 2002); small ones are joined to their neighbours
(`recon.chart_merging`). Its packer aims at a resolution but does not keep it, so the charts are packed again
at the largest scale at which all of them fit into exactly one square: four to five packings of 0.2 s each,
which give 15 to 20 % more texels per unit than the first one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from recon.chart_merging import merged
from recon.topology import corner_fans, face_vectors, weld
from render.errors import InputError
from render.scene import Mesh

MAX_TRIANGLES = 500_000
"""For a smooth ring xatlas took 19 s (50,000 triangles) and 57 s (100,000): millions would take hours."""
_MAX_COST = 8.0
"""xatlas' limit for growing a chart; its default of 2 takes half as long again for a tenth more charts."""
_NORMAL_DEVIATION_WEIGHT = 1.0
"""Half of xatlas' default: generated surfaces are bumpy, and bumps should not become charts."""

_MIN_DENSITY = 0.1
"""A triangle with fewer texels per unit than this part of the median is laid flat by itself."""


def unwrap(mesh: Mesh, texture_size: int, padding_px: int | None = None, *, crease_deg: float = 40.0) -> Mesh:
    """The mesh with UVs for a texture of `texture_size` and normals; vertices are split at seams and creases.

    padding_px: free texels between charts; by default 1/256 of the size, so that four mip levels
    down charts still do not touch. crease_deg: edges sharper than this are shaded hard. `InputError` beyond
    `MAX_TRIANGLES`.
    """
    if len(mesh.faces) > MAX_TRIANGLES:
        raise InputError(
            f"UVs for {len(mesh.faces):,} triangles would take hours; they are made for up to "
            f"{MAX_TRIANGLES:,}. Reduce them first: maquette simplify"
        )
    if not 16 <= texture_size <= 16384:
        raise InputError(f"texture_size is {texture_size}; it must be from 16 to 16384")
    padding = max(2, texture_size // 256) if padding_px is None else padding_px
    vertices, faces = weld(mesh.vertices, mesh.faces)
    source, uv_faces, chart_uvs, size = _charts(vertices, faces)
    source, uv_faces, chart_uvs = _unfolded(vertices, source, uv_faces, chart_uvs)
    uv_faces, chart_uvs = merged(vertices, source, uv_faces, chart_uvs)
    again, packed_faces, uvs = _pack(chart_uvs, uv_faces, size, texture_size, padding)
    source = source[again]
    if not np.array_equal(source[packed_faces], faces):
        raise RuntimeError("xatlas returned other faces than it was given")
    return _with_normals(vertices, source, packed_faces, uvs, crease_deg)


def _charts(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Int[np.ndarray, " U"], Int[np.ndarray, "F 3"], Float[np.ndarray, "U 2"], tuple[int, int]]:
    """Source vertex of every chart vertex, faces, UVs in texels of a first packing, and its size."""
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    chart = xatlas.ChartOptions()
    chart.max_iterations = 1
    chart.max_cost = _MAX_COST
    chart.normal_deviation_weight = _NORMAL_DEVIATION_WEIGHT
    pack = xatlas.PackOptions()
    pack.resolution = 512
    pack.padding = 1
    pack.bruteForce = False
    atlas.generate(chart, pack)
    source, uv_faces, uvs = atlas[0]
    size = (int(atlas.width), int(atlas.height))
    return source.astype(np.int64), uv_faces.astype(np.int32), uvs * np.array(size, np.float32), size


def _unfolded(
    vertices: Float[np.ndarray, "V 3"],
    source: Int[np.ndarray, " U"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "U 2"],
) -> tuple[Int[np.ndarray, " W"], Int[np.ndarray, "F 3"], Float[np.ndarray, "W 2"]]:
    """The charts with every triangle that its chart folds to nothing in a chart of its own, laid flat.

    Such triangles stand upright on the plane that xatlas projects a chart to, or are needles that it
    leaves out; the texture of the whole triangle would be a line or a point of some other chart.
    """
    area = np.linalg.norm(face_vectors(vertices, source[faces]), axis=1)
    flat = np.concatenate([uvs, np.zeros((len(uvs), 1), uvs.dtype)], 1)
    density = np.sqrt(np.linalg.norm(face_vectors(flat, faces), axis=1) / np.maximum(area, 1e-30))
    real = area > 1e-12 * area.max(initial=0.0)
    if not real.any():
        return source, faces, uvs
    usual = float(np.median(density[real]))
    folded = np.nonzero(real & (density < _MIN_DENSITY * usual))[0]
    if len(folded) == 0:
        return source, faces, uvs
    corners = source[faces[folded]]
    a, b, c = (vertices[corners[:, k]].astype(np.float64) for k in range(3))
    along = np.linalg.norm(b - a, axis=1)
    x = ((c - a) * (b - a)).sum(1) / np.maximum(along, 1e-30)
    y = area[folded] / np.maximum(along, 1e-30)
    zero = np.zeros_like(x)
    laid = usual * np.stack([np.stack([zero, zero], 1), np.stack([along, zero], 1), np.stack([x, y], 1)], 1)
    # xatlas gives a needle of no area to speak of no place at all: those get half a texel.
    needle = y * along * usual**2 < 1.0
    laid[needle] = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    # Apart from each other and from all charts, or they would be taken for parts of one.
    step = 2.0 * float(np.abs(laid).max()) + 1.0
    laid[..., 0] += float(uvs.max()) + step * (1 + np.arange(len(folded)))[:, None]
    again = faces.copy()
    again[folded] = len(uvs) + np.arange(3 * len(folded)).reshape(-1, 3)
    joined = np.concatenate([uvs, laid.reshape(-1, 2).astype(np.float32)])
    return np.concatenate([source, corners.ravel()]), again, joined


def _pack(
    uvs: Float[np.ndarray, "U 2"],
    faces: Int[np.ndarray, "F 3"],
    size: tuple[int, int],
    texture_size: int,
    padding: int,
) -> tuple[Int[np.ndarray, " W"], Int[np.ndarray, "F 3"], Float[np.ndarray, "W 2"]]:
    """Charts in the unit square at the largest scale found: index into `uvs`, faces, UVs.

    Very bumpy meshes have so many charts that their padding alone fills a small texture. They are
    packed for a larger one, that is with less than the padding asked for: colours may bleed over a
    seam there, which is better than no asset.
    """
    for _ in range(12):
        found = _pack_square(uvs, faces, size, texture_size, padding)
        if found is not None:
            return found
        texture_size *= 2
    raise InputError("the mesh's charts cannot be packed: its triangles may be degenerate")


def _pack_square(
    uvs: Float[np.ndarray, "U 2"],
    faces: Int[np.ndarray, "F 3"],
    size: tuple[int, int],
    texture_size: int,
    padding: int,
) -> tuple[Int[np.ndarray, " W"], Int[np.ndarray, "F 3"], Float[np.ndarray, "W 2"]] | None:
    """`_pack` for exactly this texture; None where no scale fits."""
    import xatlas

    def attempt(scale: float) -> xatlas.Atlas | None:
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(np.ascontiguousarray(uvs, np.float32), faces.astype(np.uint32))
        pack = xatlas.PackOptions()
        pack.resolution = texture_size
        pack.padding = padding
        pack.texels_per_unit = scale
        pack.bilinear = True
        pack.bruteForce = False
        atlas.generate(xatlas.ChartOptions(), pack)
        fits = atlas.atlas_count == 1 and max(atlas.width, atlas.height) <= texture_size
        return atlas if fits else None

    scale = texture_size / max(size)
    low, high = 0.0, np.inf
    best: xatlas.Atlas | None = None
    failures = 0
    for _ in range(16):
        atlas = attempt(scale)
        if atlas is None:
            high = scale
            # Far too large charts are halved, so that a texture too small for any scale costs little.
            scale = scale * (0.9 if failures < 4 else 0.6) if best is None else (low + scale) / 2
            failures += 1
        else:
            best, low = atlas, scale
            scale = scale * 1.06 if high == np.inf else (scale + high) / 2
        if best is not None and high / low < 1.02:
            break
    if best is None:
        return None
    index, packed_faces, packed = best[0]
    packed = packed * (np.array([best.width, best.height], np.float32) / texture_size)
    return index.astype(np.int64), packed_faces.astype(np.int32), np.clip(packed, 0, 1).astype(np.float32)


def _with_normals(
    vertices: Float[np.ndarray, "V 3"],
    source: Int[np.ndarray, " U"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "U 2"],
    crease_deg: float,
) -> Mesh:
    """Split UV vertices where a crease runs and give every vertex the mean normal of its smooth fan.

    Fans are found on the welded surface: both sides of a UV seam get the same normal.
    """
    welded = source[faces]
    cross = face_vectors(vertices, welded)
    unit = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)
    count, fans = corner_fans(welded, unit, crease_deg)
    p = vertices[welded].astype(np.float64)
    normals = np.zeros((count, 3))
    for k in range(3):
        a, b = p[:, (k + 1) % 3] - p[:, k], p[:, (k + 2) % 3] - p[:, k]
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        angle = np.arccos(np.clip((a * b).sum(1) / np.maximum(lengths, 1e-30), -1, 1))
        for axis in range(3):
            # A little area weight keeps thin triangles from bending the normals of flat faces.
            normals[:, axis] += np.bincount(fans[:, k], angle * cross[:, axis], count)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(length > 1e-20, normals / np.maximum(length, 1e-20), [0.0, 1.0, 0.0])
    pairs = np.stack([faces.ravel(), fans.ravel()], 1).astype(np.int64)
    _, first, inverse = np.unique(pairs[:, 0] * count + pairs[:, 1], return_index=True, return_inverse=True)
    uv_vertex, fan = pairs[first, 0], pairs[first, 1]
    unit_normals = normals[fan].astype(np.float32)
    unit_normals /= np.linalg.norm(unit_normals, axis=1, keepdims=True)
    return Mesh(
        vertices=vertices[source[uv_vertex]].astype(np.float32),
        faces=inverse.reshape(-1, 3).astype(np.int32),
        normals=unit_normals,
        uvs=uvs[uv_vertex],
    )
