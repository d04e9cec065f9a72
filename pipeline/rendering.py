"""A still and a turntable of a scene: of the asset of a run, or of any GLB (`maquette render`)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pipeline.checkpoints import publish
from pipeline.output_directory import checked_directory
from pipeline.stages import render_pictures
from render.errors import InputError
from render.glb import load_scene
from render.preview import Mode
from render.progress import Progress, silent
from render.turntable import TurntableConfig

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
    progress: Progress = silent,
) -> list[Path]:
    """Writes `<stem>.png` and `<stem>-turntable.*` of a GLB into `out`; the paths of the files.

    Of png, one file a frame is written. `frames` 0 leaves the turntable out. `InputError` for what cannot be
    read, drawn or written.
    """
    scene = load_scene(asset)
    for name in formats:
        if name not in TURNTABLE_FORMATS:
            raise InputError(f"--formats: {name!r} is unknown. Known: {', '.join(TURNTABLE_FORMATS)}.")
    if mode not in get_args(Mode):
        raise InputError(f"--mode must be one of {', '.join(get_args(Mode))}, not {mode!r}.")
    if not 16 <= size <= 4096:
        raise InputError(f"--size must be between 16 and 4096, not {size}.")
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
        render_pictures(
            scene,
            made / f"{asset.stem}.png",
            [made / f"{asset.stem}-turntable{'' if name == 'png' else '.' + name}" for name in formats],
            size=size,
            environment=environment,
            background=background,
            mode=next(known for known in get_args(Mode) if known == mode),
            turntable=turn,
            progress=progress,
        )
        files = {path.name: path for path in made.iterdir() if path.is_file()}
        for frame_folder in (path for path in made.iterdir() if path.is_dir()):
            files |= {f"{frame_folder.name}-{path.name}": path for path in frame_folder.iterdir()}
        publish(files, directory)
    return [directory / name for name in sorted(files)]
