"""`maquette generate`: a prompt, an image, or both to an asset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands import Out, Quiet, Resumable, names_of, print_line, stage_bar
from render.errors import InputError

if TYPE_CHECKING:
    from pipeline.delivery import Result
    from pipeline.preset import Preset


def generate(
    out: Out,
    prompt: Annotated[str | None, typer.Argument(help="What to make, in English.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="A picture of it: PNG, JPEG or WebP; alone or with the prompt.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What it should not be.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="draft, standard, high, or a .yaml file.  [default: standard]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another asset.  [default: 0]")] = None,
    variants: Annotated[
        int | None, typer.Option(help="Draw this many seeds, go on with the most consistent.  [default: 1]")
    ] = None,
    polycount: Annotated[int | None, typer.Option(help="Most triangles.  [default: the preset's]")] = None,
    height_m: Annotated[
        float | None, typer.Option("--height-m", help="Height of the asset in metres.  [default: 1.0]")
    ] = None,
    texture_size: Annotated[int | None, typer.Option(help="In pixels.  [default: the preset's]")] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            help="Of glb, gltf, obj, usdz, fbx, blend, stl, 3mf, ply, splat, splat32, spz.  [default: glb]"
        ),
    ] = None,
    lods: Annotated[
        int | None, typer.Option(help="Levels of detail, the finest included.  [default: the preset's]")
    ] = None,
    collider: Annotated[
        bool | None, typer.Option("--collider/--no-collider", help="Convex hulls for physics engines.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.  [default: auto]")] = None,
    lora: Annotated[
        str | None, typer.Option(help="A LoRA of maquette finetune: NAME or NAME:WEIGHT, weight 0 to 2.")
    ] = None,
    sign: Annotated[
        bool, typer.Option("--sign", help="Give every file content credentials (C2PA; see maquette verify).")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last run in --out; options given here change it.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make an asset of a prompt, an image, or both."""
    if not resume and not (prompt or "").strip() and image is None:
        raise InputError("The prompt is empty. Say what to make, such as: a wooden barrel, or give --image.")
    if device not in (None, "auto", "cpu", "cuda"):
        raise InputError(f"--device must be auto, cpu or cuda, not {device!r}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder.")
    options: dict[str, Any] = {
        "image": image,
        "negative": negative,
        "preset": preset,
        "seed": seed,
        "variants": variants,
        "polycount": polycount,
        "height_m": height_m,
        "texture_size": texture_size,
        "formats": None if formats is None else names_of(formats),
        "device": device,
        "lora": lora,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with stage_bar(quiet) as bar, Resumable(out):
        from pipeline import run

        if lods is not None or collider is not None:
            given["preset"] = _packaged(out, preset, resume, lods, collider)
        if resume:
            result = run.resume(out, prompt=prompt, observer=bar, **given)
        else:
            result = run.generate(prompt or "", out=out, observer=bar, **given)
    print_result(result)
    if sign:
        from pipeline.credentials import sign_result

        for path in sign_result(result):
            print_line(f"signed {path}")


def _packaged(out: Path, preset: str | None, resume: bool, lods: int | None, collider: bool | None) -> Preset:
    """The preset (of the last run, when that goes on) with these levels and collider."""
    from pipeline.config import changed
    from pipeline.preset import load_preset
    from pipeline.run import last_request

    chosen = last_request(out)[0].preset if resume and preset is None else load_preset(preset or "standard")
    if lods is not None:
        chosen = changed(chosen, "package.lods", lods)
    if collider is not None:
        chosen = changed(chosen, "package.collider", collider)
    return chosen


def print_result(result: Result) -> None:
    """The files of a run, and what it cost."""
    report = result.report
    if len(report.variants) > 1:
        for variant in sorted(report.variants, key=lambda variant: -variant.score):
            mark = "  <- kept" if variant.seed == report.seed else ""
            print_line(f"seed {variant.seed}  score {variant.score:.3f}{mark}")
    for name in sorted(result.files):
        print_line(str(result.files[name]))
    print_line(f"seed {report.seed}, {report.total_s:.0f} s, {report.peak_mb:.0f} MB")
