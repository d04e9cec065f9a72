"""How flat, sharp and true the surface of drawn views becomes, on shapes that are known.

    python -m bench.drawn_surface [--props FOLDER] [--count N] [--each] [--tolerance PX]

Ten views of 128 pixels of each shape (synthetic ones and, with `--props`, objects of the `val` split of a
data folder that holds `props.py`) are disturbed as the views of the multi-view model are: every view bends
by itself by 1.5 and 2.5 pixels over some 8, its depths are off by 0.02 and 0.04 over some 5, its normals
by 6 degrees. From them comes what a run makes of them, without score distillation: registration, common
geometry, field, surface, this with its faces turned (`recon.crisp`), and that fitted to the outlines
(`recon.outlines`). Printed are means over the shapes, of each:

    F        F-score at 1 % of the diagonal
    normals  mean error against the true surface, degrees
    ripple   how far normals within a flat part of the true surface of 2 % of its area or more lie from their
             mean, mean over the area, degrees
    volume   over the true volume, for closed shapes
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from bench.surface import compare, normalised, shapes, visible_samples
from pipeline.preset import Preset, load_preset
from recon.consensus import ConsensusConfig, disagreement_px, harmonise
from recon.crisp import crisp
from recon.fit import fit_views
from recon.fusion import depth_maps
from recon.outlines import fit_outlines, slender_places
from recon.registration import registered
from recon.surface import extract_surface
from recon.topology import face_components, face_vectors, is_closed_manifold, signed_volumes, weld
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Mesh

_FLAT_SHARE = 0.02


@dataclass(frozen=True)
class Noise:
    """Of drawn views; standard deviations."""

    bend_px: float
    depth: float
    normal_deg: float = 6.0


def drawn(vertices: np.ndarray, faces: np.ndarray, noise: Noise, seed: int = 0) -> ViewSet:
    """Ten views of a mesh, each bent and off by itself."""
    cameras = orbit_cameras([45.0 * i for i in range(8)] + [0.0, 0.0], [15.0] * 8 + [89.0, -89.0], 128)
    found = rasterize(vertices, faces, cameras)
    unit = face_vectors(vertices, faces)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-20)
    normal = unit[found.face].astype(np.float32)
    facing = np.einsum("chwi,ci->chw", normal, cameras.c2w[:, :3, 2].numpy())
    normal = np.where(facing[..., None] < 0, -normal, normal)
    alpha, depth = (found.face >= 0).astype(np.float32), found.depth.copy()
    rows, columns = np.mgrid[:128, :128].astype(np.float64)
    for c in range(len(alpha)):
        rng = np.random.default_rng([seed, c])

        def smooth(sigma: float, rng: np.random.Generator = rng) -> np.ndarray:
            values = gaussian_filter(rng.standard_normal((128, 128)), sigma)
            return values / float(values.std())

        at = [rows + noise.bend_px * smooth(8), columns + noise.bend_px * smooth(8)]
        alpha[c] = map_coordinates(alpha[c], at, order=0)
        depth[c] = map_coordinates(depth[c], at, order=0)
        depth[c] = np.where(depth[c] > 0, depth[c] + noise.depth * smooth(5), 0)
        normal[c] = np.stack([map_coordinates(normal[c, ..., i], at, order=0) for i in range(3)], -1)
        # Networks blur an edge over two pixels or three.
        normal[c] = gaussian_filter(normal[c], (1, 1, 0))
        normal[c] += np.deg2rad(noise.normal_deg) * np.stack([smooth(2) for _ in range(3)], -1) / 2**0.5
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    alpha *= depth > 0

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((values * alpha[..., None]).astype(np.float32))

    ones = np.ones_like(alpha)[..., None]
    return ViewSet(
        cameras,
        GBuffer(
            alpha=tensor(ones),
            base_color_srgb=tensor(0.5 * ones.repeat(3, -1)),
            normal=tensor(normal),
            depth=tensor(depth[..., None]),
        ),
    )


def flat_parts(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The flat part that every face belongs to, -1 for faces of small or curved ones."""
    welded, corners = weld(vertices, faces)
    cross = face_vectors(welded, corners)
    area = np.linalg.norm(cross, axis=1)
    unit = cross / np.maximum(area, 1e-20)[:, None]
    offset = (unit * welded[corners[:, 0]]).sum(1)
    keys = np.concatenate([unit, offset[:, None]], 1)
    _, plane = np.unique((keys / 0.02).round().astype(np.int64), axis=0, return_inverse=True)
    out, count = np.full(len(faces), -1), 0
    for one in np.flatnonzero(np.bincount(plane, area) > _FLAT_SHARE * area.sum()):
        chosen = np.flatnonzero(plane == one)
        parts, label = face_components(corners[chosen])
        for part in range(parts):
            if area[chosen[label == part]].sum() > _FLAT_SHARE * area.sum():
                out[chosen[label == part]] = count
                count += 1
    return out


def ripple(vertices: np.ndarray, faces: np.ndarray, mesh: Mesh, cameras: Cameras) -> float:
    """Degrees; nan for shapes without flat parts."""
    part = flat_parts(vertices, faces)
    found = rasterize(vertices, faces, cameras)
    seen = found.face >= 0
    points, _ = visible_samples(vertices, faces, cameras)
    label = part[found.face[seen]]
    have, normals = visible_samples(mesh.vertices, mesh.faces, cameras)
    back = np.repeat(cameras.c2w[:, :3, 2].numpy(), seen.reshape(len(seen), -1).sum(1), axis=0)
    off, index = cKDTree(have).query(points)
    own = normals[index]
    own = np.where((own * back).sum(1, keepdims=True) < -0.2, -own, own)
    total, count = 0.0, 0
    for one in np.unique(label[label >= 0]):
        chosen = own[(label == one) & (off < 0.1)]
        if len(chosen) < 20:
            continue
        mean = np.median(chosen, axis=0)
        mean /= max(float(np.linalg.norm(mean)), 1e-9)
        total += float(np.rad2deg(np.arccos(np.clip(chosen @ mean, -1, 1))).sum())
        count += len(chosen)
    return total / count if count else float("nan")


def held_out(folder: Path, count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    sys.path.insert(0, str(folder))
    import props as data  # type: ignore[import-not-found]

    everything = [prop for prop in data.load_props() if prop.meta["split"] == "val"]
    for prop in everything[:: max(1, len(everything) // count)][:count]:
        yield prop.meta["caption"], *normalised(np.asarray(prop.vertices, np.float64), np.asarray(prop.faces))


STAGES = ("as fitted", "turned", "outlines")


def made(views: ViewSet, preset: Preset, consensus: ConsensusConfig) -> tuple[list[Mesh], float]:
    """The surface after each of `STAGES`, and the views' disagreement."""
    together = registered(views, preset.views.registration)
    common = harmonise(together, consensus)
    field, _ = fit_views(common, preset.seeds, preset.fit, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fitted = extract_surface(field, common, preset.surface)
    turned = crisp(fitted, together, preset.surface.crisp)
    outlined = fit_outlines(turned, together, local=slender_places(turned, together.cameras))
    return [fitted, turned, outlined], disagreement_px(depth_maps(views.cameras, views.gbuffer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--props", type=Path, help="data folder with props.py")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--only", help="shapes whose name holds this")
    parser.add_argument("--each", action="store_true", help="print every shape")
    parser.add_argument("--tolerance", type=float, help="pixels from which views are given one geometry")
    arguments = parser.parse_args()
    preset = load_preset("standard")
    consensus = ConsensusConfig() if arguments.tolerance is None else ConsensusConfig(arguments.tolerance)
    cases = list(shapes())
    if arguments.props:
        cases += list(held_out(arguments.props, arguments.count))
    if arguments.only:
        cases = [case for case in cases if arguments.only in case[0]]
    cameras = orbit_cameras([0, 60, 120, 180, 240, 300, 0, 0], [20, -20, 20, -20, 20, -20, 90, -90], 96)
    for noise in (Noise(1.5, 0.02), Noise(2.5, 0.04)):
        rows: list[list[list[float]]] = []
        for name, vertices, faces in cases:
            meshes, apart = made(drawn(vertices, faces, noise), preset, consensus)
            row = []
            closed = is_closed_manifold(weld(vertices, faces)[1])
            true = abs(float(signed_volumes(vertices, faces, np.zeros(len(faces), int))[0]))
            for mesh in meshes:
                f_score, error = compare((vertices, faces), mesh)
                volume = float(signed_volumes(mesh.vertices, mesh.faces, np.zeros(len(mesh.faces), int))[0])
                row.append(
                    [
                        f_score,
                        error,
                        ripple(vertices, faces, mesh, cameras),
                        volume / true if closed else float("nan"),
                        float(is_closed_manifold(weld(mesh.vertices, mesh.faces)[1])),
                    ]
                )
            rows.append(row)
            if arguments.each:
                all_stages = "   ".join(
                    "F {:.3f} n {:5.1f} ripple {:5.1f} vol {:.2f}".format(*one) for one in row
                )
                print(f"  {name[:28]:28} {apart:.2f} px   {all_stages}", flush=True)
        for label, values in zip(STAGES, np.nanmean(np.array(rows), axis=0), strict=True):
            print(
                f"bend {noise.bend_px} px, depth {noise.depth}: {label:10}"
                "F {:.3f}  normals {:5.1f} deg  ripple {:5.1f} deg  volume {:.3f}  watertight {:.2f}".format(
                    *values
                )
            )


if __name__ == "__main__":
    main()
