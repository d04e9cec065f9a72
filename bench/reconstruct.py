"""How well posed views become assets, for each field and kind of input.

    python -m bench.reconstruct FILE.glb ... [--fields gaussians,nerf] [--inputs rgb,gbuffer]
                                [--preset draft] [--count 32] [--size 256] [--out FOLDER]

Renders `--count` views of every file (a sphere of perspective cameras): `rgb` are shaded, with alpha and
nothing else; `gbuffer` are base colour, depth, normals, metallic and roughness. Reconstructs them as
`maquette reconstruct` does and compares the GLB that comes out with the file:

* F-score at 1 and 0.5 % of the bounding box's diagonal and Chamfer distance (mean of both directions, in % of
  it), of 60,000 points on what the training cameras and a rig turned by half a step can see;
* angle between normals, by 16 unseen views, where both show a surface;
* PSNR (over black) and IoU of the GLB's base colour at those views, against the file's base colour
  (`gbuffer`) or its picture in the same light (`rgb`: the light is baked into that texture);
* wall seconds, processor seconds and peak memory of the run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from pipeline.config import changed, plain
from pipeline.posed_set import in_unit_ball, render_views
from pipeline.preset import Preset, load_preset
from pipeline.reconstruct import reconstruct
from render.cameras import Cameras
from render.errors import MaquetteError
from render.framing import placement_of
from render.gbuffer import GBuffer
from render.glb import load_scene
from render.preview import PreviewRenderer
from render.rigs import RigConfig, rig_cameras
from render.scene import Scene
from render.scene_gbuffer import gbuffer_of

POINTS = 60_000
UNSEEN = 16


@dataclass(frozen=True)
class Row:
    """One reconstruction."""

    asset: str
    field: str
    input: str
    f_score_1: float
    f_score_05: float
    chamfer_percent: float
    normal_deg: float
    psnr_db: float
    iou: float
    watertight: bool
    triangles: int
    seconds: float
    cpu_s: float
    peak_mb: float
    error: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--fields", default="gaussians,nerf")
    parser.add_argument("--inputs", default="rgb,gbuffer")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--set", action="append", default=[], help="group.key=JSON of the preset")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", type=Path, help="keep assets, and rows.json")
    arguments = parser.parse_args()
    preset = changed(load_preset(arguments.preset), "preview.turntable_frames", 0)
    for item in arguments.set:
        path, _, value = item.partition("=")
        preset = changed(preset, path, json.loads(value))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for file in arguments.files:
            for kind in arguments.inputs.split(","):
                for field in arguments.fields.split(","):
                    out = (arguments.out or Path(temporary)) / f"{file.stem}-{field}-{kind}".lower()
                    row = measure(file, field, kind, preset, arguments.count, arguments.size, out)
                    rows.append(row)
                    print(line(row), flush=True)
                    if arguments.out:
                        text = json.dumps([plain(row) for row in rows], indent=1)
                        (arguments.out / "rows.json").write_text(text, encoding="utf-8")
    return int(any(row.error for row in rows))


def measure(file: Path, field: str, kind: str, preset: Preset, count: int, size: int, out: Path) -> Row:
    """Views, reconstruction and comparison of one file."""
    truth = load_scene(file)
    rig = RigConfig(count=count, size_px=size)
    with tempfile.TemporaryDirectory() as folder:
        views = Path(folder)
        render_views(
            truth,
            views,
            rig,
            color="shaded" if kind == "rgb" else "base_color",
            channels=() if kind == "rgb" else ("depth", "normal", "material"),
        )
        start, cpu = time.perf_counter(), time.process_time()
        try:
            result = reconstruct(
                views, out=out, preset=preset, field="nerf" if field == "nerf" else "gaussians"
            )
        except MaquetteError as error:
            bad = float("nan")
            return Row(file.stem, field, kind, bad, bad, bad, bad, bad, bad, False, 0, 0, 0, 0, str(error))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert result.glb is not None
    assert result.report.reconstruction is not None
    made = in_place(load_scene(result.glb), truth, result.directory)
    return compare(
        made,
        truth,
        kind,
        Row(
            file.stem,
            field,
            kind,
            *[0.0] * 6,
            watertight=bool(result.report.asset["watertight"]),
            triangles=int(str(result.report.asset["triangles"])),
            seconds=seconds,
            cpu_s=cpu,
            peak_mb=result.report.peak_mb,
        ),
        rig,
    )


def in_place(made: Scene, truth: Scene, directory: Path) -> Scene:
    """The asset in the file's own world: the pivot is undone as `report.json` says where the ball was."""
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    # Sizes are those of the views' world; only the floor's centre is moved to the origin by the export.
    from pipeline.artifacts import load_mesh

    dense = next((directory / ".stages").glob("mesh-*")) / "mesh.safetensors"
    vertices = load_mesh(dense).vertices.astype(np.float64)
    low, high = vertices.min(0), vertices.max(0)
    pivot = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    posed = report["reconstruction"]
    shift = pivot * posed["radius"] + np.array(posed["center"])
    parts = []
    for part in made.parts:
        moved = (part.mesh.vertices.astype(np.float64) + shift).astype(np.float32)
        parts.append(dataclasses.replace(part, mesh=dataclasses.replace(part.mesh, vertices=moved)))
    return Scene(tuple(parts))


def compare(made: Scene, truth: Scene, kind: str, row: Row, rig: RigConfig) -> Row:
    placement = placement_of(truth)
    made, truth = in_unit_ball(made, placement), in_unit_ball(truth, placement)
    unseen = rig_cameras(dataclasses.replace(rig, count=UNSEEN, turn_deg=57.0))
    a, b = gbuffer_of(made, unseen, 2), gbuffer_of(truth, unseen, 2)
    wanted, alpha = b.base_color_srgb, b.alpha
    assert wanted is not None
    if kind == "rgb":
        pictures = PreviewRenderer(truth, floor=False, fixed_light=True).render(
            unseen, background="transparent", supersample=2
        )
        wanted = torch.from_numpy(pictures[..., :3].astype(np.float32) / 255)
        alpha = torch.from_numpy(pictures[..., 3:].astype(np.float32) / 255)
    assert a.base_color_srgb is not None
    error = (a.alpha * a.base_color_srgb - alpha * wanted).square().mean()
    both = (a.alpha > 0.5) & (b.alpha > 0.5)
    union = (a.alpha > 0.5) | (b.alpha > 0.5)
    assert a.normal is not None
    assert b.normal is not None
    cosine = (a.normal * b.normal).sum(-1, keepdim=True).clamp(-1, 1)
    around = rig_cameras(dataclasses.replace(rig, count=40, size_px=256, turn_deg=31.0))
    ours, theirs = seen_points(made, around), seen_points(truth, around)
    diagonal = extent(truth)
    to_theirs = cKDTree(theirs).query(ours)[0] / diagonal
    to_ours = cKDTree(ours).query(theirs)[0] / diagonal
    return dataclasses.replace(
        row,
        f_score_1=f_score(to_theirs, to_ours, 0.01),
        f_score_05=f_score(to_theirs, to_ours, 0.005),
        chamfer_percent=50 * float(to_theirs.mean() + to_ours.mean()),
        normal_deg=float(torch.rad2deg(cosine.acos())[both].mean()),
        psnr_db=float(-10 * error.log10()),
        iou=float(both.sum() / union.sum()),
    )


def seen_points(scene: Scene, cameras: Cameras) -> np.ndarray:
    """Points on what the cameras see, the same number of every scene."""
    seen: GBuffer = gbuffer_of(scene, cameras, 1)
    assert seen.depth is not None
    pixels = cameras.pixel_centers().reshape(1, -1, 2).expand(len(cameras), -1, -1)
    points = cameras.unproject(pixels, seen.depth.flatten(1))[seen.depth.flatten(1) > 0].numpy()
    chosen = np.random.default_rng(0).permutation(len(points))[:POINTS]
    return points[chosen]


def extent(scene: Scene) -> float:
    vertices = np.concatenate([part.mesh.vertices[np.unique(part.mesh.faces)] for part in scene.parts])
    return float(np.linalg.norm(np.ptp(vertices, axis=0)))


def f_score(a: np.ndarray, b: np.ndarray, threshold: float) -> float:
    precision, recall = float((a < threshold).mean()), float((b < threshold).mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def line(row: Row) -> str:
    if row.error:
        return f"{row.asset} | {row.field} | {row.input} | failed: {row.error}"
    return (
        f"{row.asset} | {row.field} | {row.input} | {row.f_score_1:.3f} | {row.f_score_05:.3f} | "
        f"{row.chamfer_percent:.2f} | {row.normal_deg:.1f} | {row.psnr_db:.1f} | {row.iou:.3f} | "
        f"{'yes' if row.watertight else 'NO'} | {row.triangles} | {row.seconds:.0f} | {row.cpu_s:.0f} | "
        f"{row.peak_mb:.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
