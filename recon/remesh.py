"""New, even triangles or quads over a surface: remeshing with Instant Meshes.

Remeshing (Jakob et al., "Instant Field-Aligned Meshes", 2015) is for people who edit the mesh further;
for rendering, decimation (`recon.simplify`) follows the shape better with the same number of triangles.
The extra `remesh` installs it (BSD-3).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from recon.simplify import simplify
from recon.topology import is_closed_manifold, vertex_normals, weld
from render.errors import InputError
from render.scene import Mesh

RemeshKind = Literal["triangles", "quads"]

_CREASE_DEG = 30.0
_TIMEOUT_S = 900
_SCRIPT = """
import sys
import numpy as np
import pyinstantmeshes
source, target, wanted, rosy, posy, crease = sys.argv[1:]
with np.load(source) as data:
    vertices, faces = data["vertices"], data["faces"]
vertices, faces = pyinstantmeshes.remesh(
    vertices, faces, target_vertex_count=int(wanted), rosy=int(rosy), posy=int(posy),
    crease_angle=float(crease), deterministic=True, pure_quad=posy == "4",
)
np.savez(target, vertices=vertices, faces=faces)
"""
_ROUNDS = 4


def remesh(mesh: Mesh, polycount: int, kind: RemeshKind = "triangles") -> Mesh:
    """At most `polycount` triangles of even size and shape; `quads` come as pairs of triangles.

    Sharp edges (over 30 degrees) are followed. Without UVs. `InputError` when the library is missing or
    fails.
    """
    if polycount < 24:
        raise InputError(f"polycount is {polycount}; remeshing needs at least 24 triangles")
    if importlib.util.find_spec("pyinstantmeshes") is None:
        raise InputError("Remeshing needs Instant Meshes: pip install 'maquette[remesh]'")
    vertices, faces = weld(mesh.vertices, mesh.faces)
    # Two triangles a vertex on a closed surface, and pure quads are split once more, into four each; the
    # library only comes near the number asked for.
    wanted = round(0.49 * polycount if kind == "triangles" else 0.11 * polycount)
    for _ in range(_ROUNDS):
        points, triangles = _instant_meshes(vertices, faces, wanted, kind)
        if 0.9 * polycount <= len(triangles) <= polycount:
            break
        wanted = max(12, round(0.97 * wanted * polycount / len(triangles)))
    made = Mesh(points, triangles)
    if len(triangles) > polycount:
        return simplify(made, polycount, close=is_closed_manifold(faces))
    return replace(made, normals=vertex_normals(points, triangles))


def _instant_meshes(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], wanted: int, kind: RemeshKind
) -> tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "G 3"]]:
    """One run, in a process of its own: the library prints, and ends its process on what it cannot do."""
    with tempfile.TemporaryDirectory(prefix="maquette-remesh-") as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, vertices=vertices.astype(np.float32), faces=faces.astype(np.int32))
        options = [str(wanted), "4" if kind == "quads" else "6", "4" if kind == "quads" else "3"]
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(source), str(target), *options, str(_CREASE_DEG)],
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        if done.returncode != 0 or not target.is_file():
            raise InputError("Instant Meshes failed on this mesh; clean it or raise the polycount")
        with np.load(target) as data:
            points, corners = data["vertices"].astype(np.float32), data["faces"]
    triangles = _triangles(corners)
    if len(triangles) == 0:
        raise InputError("Instant Meshes found no faces: the mesh may be too coarse; raise the polycount")
    return points, triangles


def _triangles(faces: np.ndarray) -> np.ndarray:
    """Quads (a triangle among them repeats a corner or ends in -1) as triangles."""
    if faces.shape[1] == 3:
        return faces.astype(np.int32)
    whole = (faces[:, 3] >= 0) & (faces[:, 3] != faces[:, 2]) & (faces[:, 3] != faces[:, 0])
    quads = faces[whole]
    pairs = np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)
    out = np.concatenate([faces[~whole][:, :3], pairs]).astype(np.int32)
    proper = (out != np.roll(out, 1, axis=1)).all(1)
    return np.ascontiguousarray(out[proper])
