"""A still and a turntable of a scene: of the asset of a run, or of any GLB (`maquette render`)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pipeline.checkpoints import publish
from pipeline.output_directory import checked_directory
from render.errors import InputError
from render.glb import load_scene
from render.preview import Mode
from render.progress import Progress, part_of, silent
from render.scene import Scene
from render.turntable import FrameRenderer, TurntableConfig, turntable

RENDERERS = ("preview", "path")
TURNTABLE_FORMATS = ("mp4", "webp", "gif", "png")


def render_asset(
    asset: Path,
    out: Path,
    *,
    environment: str = "studio",
    background: str = "gradient",
    mode: str = "shaded",
    size: int = 768,
    turntable_size: int = 512,
    frames: int = 48,
    formats: Sequence[str] = ("mp4",),
    renderer: str = "preview",
    samples: int = 64,
    floor: bool = True,
    progress: Progress = silent,
) -> list[Path]:
    """Writes `<stem>.png` and `<stem>-turntable.*` of a GLB into `out`; the paths of the files.

    `renderer` is preview, or path (Mitsuba 3, `samples` paths a pixel, modes shaded and clay); `floor` False
    leaves out its shadow. Of png, one file a frame is written. `frames` 0 leaves the turntable out.
    `InputError` for what cannot be read, drawn or written.
    """
    scene = load_scene(asset)
    for name in formats:
        if name not in TURNTABLE_FORMATS:
            raise InputError(f"--formats: {name!r} is unknown. Known: {', '.join(TURNTABLE_FORMATS)}.")
    if mode not in get_args(Mode):
        raise InputError(f"--mode must be one of {', '.join(get_args(Mode))}, not {mode!r}.")
    if not 16 <= size <= 4096:
        raise InputError(f"--size must be between 16 and 4096, not {size}.")
    if renderer not in RENDERERS:
        raise InputError(f"--renderer must be one of {', '.join(RENDERERS)}, not {renderer!r}.")
    if renderer == "path" and mode not in ("shaded", "clay"):
        raise InputError(f"--mode {mode} is drawn by the preview renderer only; leave out --renderer path.")
    directory = checked_directory(out)
    turn: TurntableConfig | None = None
    if frames:
        turn = TurntableConfig(
            frames=frames,
            size_px=turntable_size,
            environment=environment,
            background=background,
            mode=next(known for known in get_args(Mode) if known == mode),
        )
    with tempfile.TemporaryDirectory(dir=directory, prefix=".maquette-") as folder:
        made = Path(folder)
        _render(
            scene,
            made / f"{asset.stem}.png",
            [made / f"{asset.stem}-turntable{'' if name == 'png' else '.' + name}" for name in formats],
            size=size,
            environment=environment,
            background=background,
            mode=next(known for known in get_args(Mode) if known == mode),
            turn=turn,
            samples=samples if renderer == "path" else None,
            floor=floor,
            progress=progress,
        )
        files = {path.name: path for path in made.iterdir() if path.is_file()}
        for frame_folder in (path for path in made.iterdir() if path.is_dir()):
            files |= {f"{frame_folder.name}-{path.name}": path for path in frame_folder.iterdir()}
        publish(files, directory)
    return [directory / name for name in sorted(files)]


def _render(
    scene: Scene,
    still: Path,
    turntables: list[Path],
    *,
    size: int,
    environment: str,
    background: str,
    mode: Mode,
    turn: TurntableConfig | None,
    samples: int | None,
    floor: bool,
    progress: Progress,
) -> None:
    """Writes the still, and the turntable to every path; `samples` None is the preview renderer."""
    from PIL import Image

    from render.preview import PreviewRenderer, clay, frame_cameras

    chosen: FrameRenderer
    if samples is None:
        chosen = PreviewRenderer(scene, light=environment, mode=mode, floor=floor)
    else:
        from render.pathtrace import PathConfig, PathRenderer

        shown = clay(scene) if mode == "clay" else scene
        chosen = PathRenderer(shown, light=environment, floor=floor, config=PathConfig(samples=samples))
    picture = chosen.render(frame_cameras(scene, size), background=background)
    Image.fromarray(picture[0]).save(still)
    if turn is not None and turntables:
        turntable(
            scene,
            turntables,
            turn,
            renderer=chosen,
            progress=part_of(progress, 0.2, 1),
        )
