"""Which surface extraction is better: volume fusion (`tsdf`) or screened Poisson.

    python -m bench.surface [--props FOLDER] [--count N]

For synthetic shapes and, with `--props`, objects of a data folder that holds
`props.py`: renders a mesh from all around as a field would be rendered, clean and
with noise (depth and normals by smooth noise per view, silhouettes wobbling by
1 to 2 pixels), extracts with both methods and prints for each: share of watertight
results, F-score at 1 % of the bounding box's diagonal, mean normal error and seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from recon.surface import Method, SurfaceConfig, extract_surface
from recon.topology import face_vectors, is_closed_manifold, nonmanifold_vertices, weld
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Mesh


@dataclass(frozen=True)
class MeshField:
    """Renders a mesh as if it were a field, with errors like those of generated views."""

    vertices: np.ndarray
    faces: np.ndarray
    depth_sigma: float = 0.0
    normal_sigma: float = 0.0
    wobble_px: float = 0.0
    """Of a 128-pixel view."""
    seed: int = 0

    def render(self, cameras: Cameras) -> GBuffer:
        fragments = rasterize(self.vertices, self.faces, cameras)
        normals = face_vectors(self.vertices, self.faces)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
        normal = normals[fragments.face].astype(np.float32)
        back = cameras.c2w[:, :3, 2].numpy()
        facing = np.einsum("chwi,ci->chw", normal, back)
        normal = np.where(facing[..., None] < 0, -normal, normal)
        alpha = (fragments.face >= 0).astype(np.float32)
        depth = fragments.depth
        if self.depth_sigma or self.wobble_px:
            alpha, depth, normal = self._disturb(alpha, depth, normal, cameras)
        alpha = alpha * (depth > 0)
        return GBuffer(
            alpha=torch.from_numpy(alpha[..., None]).float(),
            normal=torch.from_numpy((normal * alpha[..., None]).astype(np.float32)),
            depth=torch.from_numpy((depth * alpha)[..., None].astype(np.float32)),
        )

    def _disturb(
        self, alpha: np.ndarray, depth: np.ndarray, normal: np.ndarray, cameras: Cameras
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Noise correlated over a few pixels, as networks and splats make it."""
        height, width = alpha.shape[1:]
        grain = width / 128
        rows, columns = np.mgrid[:height, :width].astype(np.float64)
        for c in range(len(alpha)):
            rng = np.random.default_rng([self.seed, int(1000 * (1 + cameras.c2w[c, 0, 2])), c])

            def smooth(sigma: float, rng: np.random.Generator = rng) -> np.ndarray:
                noise = gaussian_filter(rng.standard_normal((height, width)), sigma * grain)
                return noise / max(float(noise.std()), 1e-9)

            at = [rows + self.wobble_px * grain * smooth(3), columns + self.wobble_px * grain * smooth(3)]
            alpha[c] = map_coordinates(alpha[c], at, order=0)
            depth[c] = map_coordinates(depth[c], at, order=0)
            normal[c] = np.stack([map_coordinates(normal[c, ..., i], at, order=0) for i in range(3)], -1)
            depth[c] = np.where(depth[c] > 0, depth[c] + self.depth_sigma * smooth(1.5), 0)
            normal[c] += self.normal_sigma * np.stack([smooth(1.5) for _ in range(3)], -1)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        return alpha, depth.astype(np.float32), normal.astype(np.float32)


def shapes() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Closed shapes that are hard in different ways, scaled into the ball of radius 0.95."""
    made = {
        "sphere": trimesh.creation.icosphere(4),
        "torus": trimesh.creation.torus(0.7, 0.2),
        "box": trimesh.creation.box((1, 1.2, 0.8)),
        "blade": trimesh.util.concatenate(
            [
                trimesh.creation.box((0.18, 1.5, 0.03)),
                trimesh.creation.box((0.6, 0.08, 0.1)).apply_translation((0, -0.6, 0)),
            ]
        ),
        "chair": trimesh.util.concatenate(
            [trimesh.creation.box((1, 0.08, 1)).apply_translation((0, 0, 0))]
            + [
                trimesh.creation.box((0.07, 0.9, 0.07)).apply_translation((x, -0.45, z))
                for x in (-0.45, 0.45)
                for z in (-0.45, 0.45)
            ]
            + [trimesh.creation.box((1, 0.9, 0.08)).apply_translation((0, 0.45, -0.46))]
        ),
        "three balls": trimesh.util.concatenate(
            [trimesh.creation.icosphere(3, 0.3).apply_translation((0.8 * i, 0.2 * i, 0)) for i in (-1, 0, 1)]
        ),
        "cup": trimesh.creation.revolve(
            np.array([[0, 0], [0.5, 0], [0.6, 1.2], [0.54, 1.2], [0.44, 0.08], [0, 0.08]]), sections=48
        ),
    }
    for name, mesh in made.items():
        yield name, *normalised(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def normalised(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    center = (vertices.min(0) + vertices.max(0)) / 2
    moved = vertices - center
    return (moved * (0.95 / np.linalg.norm(moved, axis=1).max())).astype(np.float32), faces.astype(np.int32)


def props(folder: Path, count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    sys.path.insert(0, str(folder))
    import props as data  # type: ignore[import-not-found]

    everything = list(data.load_props())
    for prop in everything[:: max(1, len(everything) // count)][:count]:
        yield prop.meta["caption"], *normalised(np.asarray(prop.vertices, np.float64), np.asarray(prop.faces))


def visible_samples(
    vertices: np.ndarray, faces: np.ndarray, cameras: Cameras
) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals on the surface that can be seen from outside."""
    fragments = rasterize(vertices, faces, cameras)
    seen = fragments.face >= 0
    face, weights = fragments.face[seen], fragments.barycentric[seen]
    points = np.einsum("nk,nki->ni", weights, vertices[faces[face]])
    normals = face_vectors(vertices, faces)[face]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    back = np.repeat(cameras.c2w[:, :3, 2].numpy(), seen.reshape(len(seen), -1).sum(1), axis=0)
    normals = np.where((normals * back).sum(1, keepdims=True) < 0, -normals, normals)
    return points, normals


def compare(truth: tuple[np.ndarray, np.ndarray], mesh: Mesh) -> tuple[float, float]:
    """F-score at 1 % of the diagonal over what is visible, and mean normal error in degrees."""
    cameras = orbit_cameras([0, 60, 120, 180, 240, 300, 0, 0], [20, -20, 20, -20, 20, -20, 90, -90], 96)
    points, normals = visible_samples(*truth, cameras)
    found, found_normals = visible_samples(mesh.vertices, mesh.faces, cameras)
    if len(found) == 0:
        return 0.0, 180.0
    limit = 0.01 * float(np.linalg.norm(np.ptp(truth[0], axis=0)))
    to_found, index = cKDTree(found).query(points)
    to_truth, _ = cKDTree(points).query(found)
    precision, recall = float((to_truth < limit).mean()), float((to_found < limit).mean())
    cosine = np.clip((normals * found_normals[index]).sum(1), -1, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9), float(np.rad2deg(np.arccos(cosine)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--props", type=Path, help="data folder with props.py")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--each", action="store_true", help="print every shape")
    arguments = parser.parse_args()
    cases = list(shapes())
    if arguments.props:
        cases += list(props(arguments.props, arguments.count))
    methods: tuple[Method, ...] = ("tsdf", "poisson")
    print(f"{len(cases)} shapes; F at 1 % of the diagonal")
    for label, noise in (
        ("clean", (0.0, 0.0, 0.0)),
        ("noise 0.01, wobble 1 px", (0.01, 0.15, 1.0)),
        ("noise 0.02, wobble 2 px", (0.02, 0.25, 2.0)),
    ):
        rows: dict[str, list[tuple[float, ...]]] = {method: [] for method in methods}
        for name, vertices, faces in cases:
            field = MeshField(vertices, faces, *noise)
            dummy = orbit_cameras([0.0], [0.0], 8)
            views = ViewSet(dummy, field.render(dummy))
            for method in methods:
                start = time.perf_counter()
                mesh = extract_surface(field, views, SurfaceConfig(method=method))
                seconds = time.perf_counter() - start
                f_score, normal_error = compare((vertices, faces), mesh)
                _, welded = weld(mesh.vertices, mesh.faces)
                sound = is_closed_manifold(welded) and nonmanifold_vertices(welded) == 0
                rows[method].append((float(sound), f_score, normal_error, seconds))
                if arguments.each:
                    numbers = f"F {f_score:.3f} n {normal_error:5.1f} {seconds:.2f} s"
                    print(f"  {name[:40]:40} {method:8} {sound!s:5} {numbers}")
        for method in methods:
            sound, f_score, normal_error, seconds = np.mean(rows[method], axis=0)
            worst = min(row[1] for row in rows[method])
            print(
                f"{label:24} {method:8} watertight {100 * sound:5.1f} %  F {f_score:.3f} (worst {worst:.3f})"
                f"  normals {normal_error:5.1f} deg  {seconds:.2f} s"
            )


if __name__ == "__main__":
    main()
