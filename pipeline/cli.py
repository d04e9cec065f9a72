"""The command line: `maquette generate | render | inspect | replay | train | models`.

Only typer and rich are imported here; torch and the rest load inside the commands, so that
`--help` is quick. Errors are one line on stderr: exit code 2 for what the user can mend, 1 for
anything else, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from render.errors import CanceledError, InputError, MaquetteError

if TYPE_CHECKING:
    from pipeline.progress_bar import StageBar
    from pipeline.run import Result

app = typer.Typer(
    name="maquette",
    help="Text or an image to a textured, game-ready 3D asset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the files; made if it is not there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]


@app.command()
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
        str | None, typer.Option(help="Of glb, obj, stl, ply, splat; with commas.  [default: glb]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.  [default: auto]")] = None,
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
        "formats": None if formats is None else _names(formats),
        "device": device,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with _stage_bar(quiet) as bar, _Resumable(out):
        from pipeline import run

        if resume:
            result = run.resume(out, prompt=prompt, observer=bar, **given)
        else:
            result = run.generate(prompt or "", out=out, observer=bar, **given)
    _print_result(result)


@app.command()
def render(
    asset: Annotated[Path, typer.Argument(help="A GLB or a glTF with embedded buffers.")],
    out: Out,
    environment: Annotated[str, typer.Option(help="Light: studio, sunset or overcast.")] = "studio",
    mode: Annotated[str, typer.Option(help="shaded, clay, normals, wireframe or base_color.")] = "shaded",
    background: Annotated[str, typer.Option(help="gradient, transparent, or #rrggbb.")] = "gradient",
    size: Annotated[int, typer.Option(help="Pixels of the still.")] = 768,
    turntable_size: Annotated[int, typer.Option(help="Pixels of the turntable.")] = 512,
    frames: Annotated[int, typer.Option(help="Frames of the turntable; 0 for none.")] = 48,
    formats: Annotated[str, typer.Option(help="Of mp4, webp, gif, png; with commas.")] = "mp4",
    quiet: Quiet = False,
) -> None:
    """Make a still and a turntable of any GLB."""
    with _stage_bar(quiet) as bar:
        from pipeline.rendering import render_asset

        files = render_asset(
            asset,
            out,
            environment=environment,
            background=background,
            mode=mode,
            size=size,
            turntable_size=turntable_size,
            frames=frames,
            formats=_names(formats),
            progress=lambda fraction, message="": bar.progress("preview", fraction, message),
        )
    for file in files:
        _console().print(str(file), highlight=False, soft_wrap=True)


@app.command()
def inspect(
    asset: Annotated[Path, typer.Argument(help="A GLB or a glTF with embedded buffers.")],
    json_output: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what an asset is like: watertight, triangles, UVs, textures."""
    import json

    from pipeline.config import plain
    from recon.inspect import inspect as inspect_scene
    from render.glb import load_scene

    found = plain(inspect_scene(load_scene(asset)))
    assert isinstance(found, dict)
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    _print_table(found)


@app.command()
def replay(
    receipt: Annotated[Path, typer.Argument(help="A receipt.json; with input.png beside it for images.")],
    out: Out,
    quiet: Quiet = False,
) -> None:
    """Make an asset again from its receipt and compare the bytes."""
    with _stage_bar(quiet) as bar, _Resumable(out):
        from pipeline.replay import replay as replay_receipt

        replayed = replay_receipt(receipt, out, observer=bar)
    console = _console()
    for name, same in replayed.same.items():
        console.print(f"{'same     ' if same else 'DIFFERENT'}  {name}", highlight=False, soft_wrap=True)
    if all(replayed.same.values()):
        return
    for line in replayed.changes:
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    if not replayed.changes:
        console.print("  nothing of what the receipt records has changed", highlight=False)
    raise typer.Exit(1)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A recipe, as configs/train/*.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the multi-view model (needs the data that the recipe names)."""
    from pipeline.training.train import run as train_run

    train_run(config, out=out, resume=resume, device=device)


@app.command()
def models() -> None:
    """List the shipped model and the text encoder: where they are, their hashes, the model card."""
    from pipeline.models import text_encoder_file, verified_model

    model = verified_model()
    console = _console()
    console.print(
        f"{model.name}  {model.bytes / 1e6:.1f} MB  {model.directory}", highlight=False, soft_wrap=True
    )
    for name, digest in model.hashes.items():
        console.print(f"  sha256 {digest}  {name}", highlight=False, soft_wrap=True)
    if model.card is not None:
        console.print(f"  card   {model.card}", highlight=False, soft_wrap=True)
    path, digest = text_encoder_file()
    console.print(f"text encoder all-MiniLM-L6-v2  {path}", highlight=False, soft_wrap=True)
    console.print(f"  sha256 {digest}", highlight=False, soft_wrap=True)


class _Resumable:
    """Says how to go on after Ctrl-C."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt | CanceledError):
            raise CanceledError(
                f"Stopped. Finished stages are kept; go on with: maquette generate --resume --out {self.out}"
            ) from None


def _stage_bar(quiet: bool) -> StageBar:
    from pipeline.progress_bar import StageBar

    return StageBar(Console(stderr=True), quiet)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _console() -> Console:
    return Console()


def _print_result(result: Result) -> None:
    console, report = _console(), result.report
    if len(report.variants) > 1:
        for variant in sorted(report.variants, key=lambda variant: -variant.score):
            mark = "  <- kept" if variant.seed == report.seed else ""
            console.print(f"seed {variant.seed}  score {variant.score:.3f}{mark}", highlight=False)
    for name in sorted(result.files):
        console.print(str(result.files[name]), highlight=False, soft_wrap=True)
    console.print(f"seed {report.seed}, {report.total_s:.0f} s, {report.peak_mb:.0f} MB", highlight=False)


def _print_table(values: dict[str, Any], indent: str = "") -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            typer.echo(f"{indent}{key}:")
            _print_table(value, indent + "  ")
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else value
            typer.echo(f"{indent}{key:<24} {shown}")


def invoke(arguments: list[str] | None = None) -> int:
    """Runs the command line (of the process, unless `arguments` are given); its exit code."""
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except MaquetteError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("Stopped.", 130)
    except BrokenPipeError:
        return 1
    except typer.TyperException as error:
        # A mistake in the options. Without a command typer has printed the help, and has no message.
        message = error.format_message().rstrip(".")
        return _complain(f"{message}. See: maquette --help", 2) if message else 2


def main() -> None:
    """The console script."""
    code = invoke()
    sys.stdout.flush()
    sys.stderr.flush()
    # Leaving torch and Open3D in order costs up to a second and frees nothing that the system does not.
    os._exit(code)


def _complain(message: str, code: int) -> int:
    typer.echo(" ".join(message.split()), err=True)
    return code


if __name__ == "__main__":
    main()
