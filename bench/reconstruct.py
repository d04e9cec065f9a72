"""How well posed views become assets, for each field and kind of input.

    python -m bench.reconstruct FILE.glb ... [--props STEM --prop-count 20] [--fields gaussians,nerf]
        [--inputs gbuffer,rgb] [--preset high] [--count 32] [--size 256] [--no-baseline] [--out FOLDER]

Renders `--count` views of every file (a sphere of perspective cameras): `rgb` are shaded, with alpha and
nothing else; `gbuffer` are base colour, depth, normals, metallic and roughness. Reconstructs them as
`maquette reconstruct` does (preset `high`: 20,000 triangles, texture of 2048) and compares the GLB that comes
out with the file, at 16 unseen views (`bench.reconstruct_measures`). `rgb` is compared with pictures in the
same light, which that texture has baked in. For `gbuffer` also the plain way (`bench.reconstruct_baseline`).
`--props` adds objects of the training pack's split `val`, evenly chosen; their colours lie on vertices.

With `--out` assets are kept, `rows.json` is written after each, and `worst.png` shows those of lowest PSNR:
wanted, made, and twice the difference. A run that was broken off goes on with `--resume`: what `rows.json`
has is not measured again. The bars are those of means over the sample assets.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bench.reconstruct_baseline import baseline
from bench.reconstruct_measures import Measures, compare, seam_error, truth_of
from pipeline.artifacts import load_mesh
from pipeline.config import changed, plain
from pipeline.posed_set import in_unit_ball, render_views
from pipeline.posed_views import load_views
from pipeline.preset import Preset, load_preset
from pipeline.reconstruct import reconstruct
from pipeline.training.props import Prop, load_props
from pipeline.transforms_json import read_transforms
from recon.inspect import uv_charts
from render.errors import MaquetteError
from render.framing import Placement, placement_of
from render.glb import load_scene
from render.rigs import RigConfig
from render.scene import Material, Mesh, Part, Scene

SHOWN = 3
"""Assets of `worst.png`, and views of each."""
COLUMNS = (
    "asset | field | input | PSNR dB | SSIM | IoU | F 1 % | F 0.5 % | Chamfer % | normals deg | material | "
    "seam | rims | closed | triangles | charts | wall s | processor s | peak MB | plain way: dB, IoU, F 0.5 %"
)


@dataclass(frozen=True)
class Row:
    """One reconstruction."""

    asset: str
    field: str
    input: str
    measures: Measures | None = None
    watertight: bool = False
    triangles: int = 0
    charts: int = 0
    seam: float = 0.0
    """Mean difference of sRGB colours across seams."""
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    stages_s: dict[str, float] = field(default_factory=dict)
    """Wall seconds of each."""
    plain_way: Measures | None = None
    error: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--props", type=Path, help="the training pack without its endings")
    parser.add_argument("--prop-count", type=int, default=20)
    parser.add_argument("--fields", default="gaussians")
    parser.add_argument("--inputs", default="gbuffer,rgb")
    parser.add_argument("--preset", default="high")
    parser.add_argument("--set", action="append", default=[], help="group.key=JSON of the preset")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--out", type=Path, help="keep assets, rows.json and worst.png")
    parser.add_argument("--resume", action="store_true", help="keep the rows that --out has")
    given = parser.parse_args()
    preset = changed(load_preset(given.preset), "preview.turntable_frames", 0)
    for item in given.set:
        path, _, value = item.partition("=")
        preset = changed(preset, path, json.loads(value))
    rig = RigConfig(count=given.count, size_px=given.size)
    rows = rows_of(given.out) if given.resume and given.out else []
    done = {(row.asset, row.field, row.input) for row in rows}
    print(COLUMNS, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        kept = given.out or Path(temporary)
        for name, scene in scenes(given.files, given.props, given.prop_count):
            for kind in given.inputs.split(","):
                for kind_of_field in given.fields.split(","):
                    if (name, kind_of_field, kind) in done:
                        continue
                    out = folder_of(kept, name, kind_of_field, kind)
                    row, shown = measure(
                        name, scene, kind_of_field, kind, preset, rig, out, plain_way=not given.no_baseline
                    )
                    rows.append(row)
                    print(line(row), flush=True)
                    if given.out:
                        text = json.dumps([plain(row) for row in rows], indent=1)
                        (given.out / "rows.json").write_text(text, encoding="utf-8")
                    if given.out and row.measures is not None:
                        compared(shown).save(out / "compared.png")
                        worst(rows, given.out).save(given.out / "worst.png")
    print(means(rows))
    return int(any(row.error for row in rows))


def scenes(files: list[Path], props: Path | None, count: int) -> Iterator[tuple[str, Scene]]:
    """Names and scenes of files, then of training objects that no model was trained on."""
    for file in files:
        yield file.stem, load_scene(file)
    if props is not None:
        unseen = [prop for prop in load_props(props) if prop.split == "val"]
        for i in range(count):
            index = i * len(unseen) // count
            yield f"val-{index}", prop_scene(unseen[index])


def prop_scene(prop: Prop) -> Scene:
    """One part for each pair of metallic and roughness; colours on vertices, flat faces."""
    pairs, group = np.unique(np.stack([prop.metallic, prop.roughness], 1), axis=0, return_inverse=True)
    parts = []
    for index, (metallic, roughness) in enumerate(pairs):
        used, faces = np.unique(prop.faces[group.ravel() == index], return_inverse=True)
        mesh = Mesh(
            prop.vertices[used].astype(np.float32),
            faces.reshape(-1, 3).astype(np.int32),
            colors_srgb=(prop.colors[used] / 255).astype(np.float32),
        )
        one = np.ones((1, 1), np.float32)
        material = Material(np.ones((1, 1, 3), np.float32), one * metallic, one * roughness)
        parts.append(Part(mesh, material))
    return Scene(tuple(parts))


def measure(
    name: str,
    scene: Scene,
    field: str,
    kind: str,
    preset: Preset,
    rig: RigConfig,
    out: Path,
    *,
    plain_way: bool,
) -> tuple[Row, np.ndarray]:
    """Views, reconstruction and comparison of one scene; pictures of the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        views = Path(folder)
        render_views(
            scene,
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
            return Row(name, field, kind, error=str(error)), np.zeros((0, 0, 3))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        placement = placement_of(scene)
        truth = truth_of(in_unit_ball(scene, placement), kind, rig)
        plain_measures = None
        if plain_way and kind == "gbuffer":
            posed = load_views(read_transforms(views))
            simple = baseline(posed, preset.mesh.polycount, preset.bake.texture_size)
            simple = in_unit_ball(in_world(simple, posed.placement), placement)
            plain_measures, _ = compare(simple, truth, kind)
    assert result.glb is not None
    made = load_scene(result.glb)
    report = json.loads((result.directory / "report.json").read_text(encoding="utf-8"))
    found, shown = compare(in_unit_ball(in_place(made, result.directory, report), placement), truth, kind)
    row = Row(
        name,
        field,
        kind,
        measures=found,
        watertight=bool(result.report.asset["watertight"]),
        triangles=int(str(result.report.asset["triangles"])),
        charts=uv_charts(made.parts[0].mesh),
        seam=seam_error(made.parts[0].mesh, made.parts[0].material.base_color_srgb),
        seconds=seconds,
        cpu_s=cpu,
        peak_mb=result.report.peak_mb,
        stages_s={stage["name"]: stage["seconds"] for stage in report["stages"]},
        plain_way=plain_measures,
    )
    return row, shown


def in_world(made: Scene, placement: Placement) -> Scene:
    """From the unit ball of the views back to their world."""
    return moved(made, placement.radius, placement.center.astype(np.float64))


def in_place(made: Scene, directory: Path, report: dict[str, dict[str, object]]) -> Scene:
    """The asset in the views' world: the pivot is undone as `report.json` says where the ball was."""
    # Sizes are those of the views' world; only the floor's centre is moved to the origin by the export.
    mesh = next((directory / ".stages").glob("mesh-*")) / "mesh.safetensors"
    vertices = load_mesh(mesh).vertices.astype(np.float64)
    low, high = vertices.min(0), vertices.max(0)
    pivot = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    posed = report["reconstruction"]
    return moved(made, 1.0, pivot * float(str(posed["radius"])) + np.array(posed["center"]))


def moved(scene: Scene, scale: float, shift: np.ndarray) -> Scene:
    parts = []
    for part in scene.parts:
        vertices = (part.mesh.vertices.astype(np.float64) * scale + shift).astype(np.float32)
        parts.append(dataclasses.replace(part, mesh=dataclasses.replace(part.mesh, vertices=vertices)))
    return Scene(tuple(parts))


def rows_of(out: Path) -> list[Row]:
    """What an earlier run into `out` measured; failures are tried again."""
    file = out / "rows.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    rows = []
    for data in found:
        measures = {key: Measures(**data[key]) for key in ("measures", "plain_way") if data[key] is not None}
        rows.append(Row(**{**data, **measures}))
    return [row for row in rows if row.measures is not None]


def folder_of(out: Path, asset: str, field: str, kind: str) -> Path:
    return out / f"{asset}-{field}-{kind}".lower()


def compared(shown: np.ndarray) -> Image.Image:
    """The three views of an asset that differ most, beside each other."""
    error = ((shown[:, :, shown.shape[2] * 2 // 3 :] - 0.5) ** 2).mean((1, 2, 3))
    row = np.concatenate(list(shown[np.argsort(-error)[:SHOWN]]), 1)
    return Image.fromarray((row * 255).round().astype(np.uint8))


def worst(rows: list[Row], out: Path) -> Image.Image:
    """The assets of lowest PSNR, the worst on top."""
    lowest = sorted((row.measures.psnr_db, row.asset, row.field, row.input) for row in rows if row.measures)
    return Image.fromarray(
        np.concatenate(
            [np.asarray(Image.open(folder_of(out, *key) / "compared.png")) for _, *key in lowest[:SHOWN]]
        )
    )


def line(row: Row) -> str:
    if row.measures is None:
        return f"{row.asset} | {row.field} | {row.input} | failed: {row.error}"
    m = row.measures
    text = (
        f"{row.asset} | {row.field} | {row.input} | {m.psnr_db:.1f} | {m.ssim:.3f} | {m.iou:.3f} | "
        f"{m.f_score_1:.3f} | {m.f_score_05:.3f} | {m.chamfer_percent:.2f} | {m.normal_deg:.1f} | "
        f"{m.material_error:.3f} | {row.seam:.4f} | {m.rim_share:.2f} | "
        f"{'yes' if row.watertight else 'NO'} | {row.triangles} | {row.charts} | "
        f"{row.seconds:.0f} | {row.cpu_s:.0f} | {row.peak_mb:.0f}"
    )
    if row.plain_way is not None:
        p = row.plain_way
        text += f" | {p.psnr_db:.1f}, {p.iou:.3f}, {p.f_score_05:.3f}"
    return text


def means(rows: list[Row]) -> str:
    """One line per field and input."""
    lines = []
    for key in sorted({(row.field, row.input) for row in rows}):
        chosen = [row for row in rows if (row.field, row.input) == key and row.measures is not None]
        if not chosen:
            continue
        found = [row.measures for row in chosen if row.measures is not None]
        stages = {name: np.mean([row.stages_s[name] for row in chosen]) for name in chosen[0].stages_s}
        better = [
            row.plain_way.psnr_db < row.measures.psnr_db for row in chosen if row.plain_way and row.measures
        ]
        lines.append(
            f"mean of {len(chosen)} | {key[0]} | {key[1]} | "
            + " | ".join(
                f"{name} {np.mean([getattr(m, name) for m in found]):.3f}"
                for name in (
                    "psnr_db",
                    "ssim",
                    "iou",
                    "f_score_1",
                    "f_score_05",
                    "chamfer_percent",
                    "normal_deg",
                )
            )
            + f" | wall s {np.mean([row.seconds for row in chosen]):.0f} ("
            + ", ".join(f"{name} {value:.1f}" for name, value in stages.items())
            + f") | processor s {np.mean([row.cpu_s for row in chosen]):.0f}"
            + (f" | better than the plain way: {sum(better)} of {len(better)}" if better else "")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
