"""Asset -> files. One module per format; each makes bytes, this one puts them on disk.

All files are written under temporary names in the target folder and renamed at the
end, so that a full disk or a stop leaves nothing half-written at the final names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from recon.asset import Asset
from recon.export.glb import glb_bytes
from recon.export.obj import obj_files
from recon.export.ply import ply_bytes
from recon.export.splat import splat_bytes
from recon.export.stl import stl_bytes
from render.errors import InputError

Format = Literal["glb", "obj", "stl", "ply", "splat"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(asset: Asset, directory: Path, stem: str, formats: Sequence[Format]) -> list[Path]:
    """Write the asset as `stem.*` into `directory`; the paths of all files, in the order of `formats`.

    glb -> stem.glb; obj -> stem.obj, stem.mtl and its textures; stl -> stem.stl; ply -> stem.ply;
    splat -> stem.splat.ply. Raises `InputError` for an unknown format and when the disk refuses.
    """
    contents: dict[str, bytes] = {}
    for name in dict.fromkeys(formats):
        match name:
            case "glb":
                contents[f"{stem}.glb"] = glb_bytes(asset)
            case "obj":
                contents |= obj_files(asset, stem)
            case "stl":
                contents[f"{stem}.stl"] = stl_bytes(asset)
            case "ply":
                contents[f"{stem}.ply"] = ply_bytes(asset)
            case "splat":
                contents[f"{stem}.splat.ply"] = splat_bytes(asset)
            case _:
                raise InputError(f"unknown format {name!r}; known are {', '.join(FORMATS)}")
    return write_all(directory, contents)


def write_all(directory: Path, contents: dict[str, bytes]) -> list[Path]:
    """Write every file or none."""
    temporary: list[tuple[Path, Path]] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            final = directory / name
            partial = directory / f".{name}.{os.getpid()}.partial"
            temporary.append((partial, final))
            partial.write_bytes(data)
        for partial, final in temporary:
            partial.replace(final)
    except OSError as error:
        raise InputError(f"cannot write to {directory}: {error.strerror or error}") from error
    finally:
        for partial, _ in temporary:
            partial.unlink(missing_ok=True)
    return [final for _, final in temporary]
