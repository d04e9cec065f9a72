"""Asset -> files. One module per format; each makes bytes, this one puts them on disk.

All files are written under temporary names in the target folder and renamed at the
end, so that a full disk or a stop leaves nothing half-written at the final names.
The formats' names are known without the libraries that write them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from render.errors import InputError

if TYPE_CHECKING:
    from recon.asset import Asset
    from recon.export.gltf import GltfOptions
    from recon.package import Package

Format = Literal["glb", "gltf", "obj", "usdz", "fbx", "blend", "stl", "3mf", "ply", "splat", "splat32", "spz"]
FORMATS: tuple[Format, ...] = get_args(Format)

SPLAT_FORMATS: tuple[Format, ...] = ("splat", "splat32", "spz")
"""Those that hold the Gaussians, which only a generated or reconstructed asset has."""


def export(
    asset: Asset | Package,
    directory: Path,
    stem: str,
    formats: Sequence[Format],
    options: GltfOptions | None = None,
) -> list[Path]:
    """Write the asset as `stem.*` into `directory`; the paths of all files, in the order of `formats`.

    glb -> stem.glb; gltf -> stem.gltf, stem.bin and its pictures; obj -> stem.obj, stem.mtl and its textures;
    usdz, fbx, blend, stl, 3mf, ply -> one file; splat -> stem.splat.ply; splat32 -> stem.splat; spz ->
    stem.spz. Levels of detail and the collider go into glb, gltf, fbx and blend. Raises `InputError` for an
    unknown format, a package that is not installed, and when the disk refuses.
    """
    from recon.asset import Asset
    from recon.export.blender import blender_bytes
    from recon.export.glb import glb_bytes, gltf_files
    from recon.export.obj import obj_files
    from recon.export.ply import ply_bytes
    from recon.export.splat import compact_splat_bytes, splat_bytes, spz_bytes
    from recon.export.stl import stl_bytes
    from recon.export.threemf import threemf_bytes
    from recon.export.usdz import usdz_bytes
    from recon.package import package_of

    contents: dict[str, bytes] = {}
    package = package_of(asset)
    for name in dict.fromkeys(formats):
        match name:
            case "glb":
                contents[f"{stem}.glb"] = glb_bytes(package, options)
            case "gltf":
                contents |= gltf_files(package, stem, options)
            case "obj":
                contents |= obj_files(package, stem)
            case "usdz":
                contents[f"{stem}.usdz"] = usdz_bytes(package)
            case "fbx" | "blend":
                contents[f"{stem}.{name}"] = blender_bytes(package, name)
            case "stl":
                contents[f"{stem}.stl"] = stl_bytes(package)
            case "3mf":
                contents[f"{stem}.3mf"] = threemf_bytes(package)
            case "ply":
                contents[f"{stem}.ply"] = ply_bytes(package)
            case "splat" | "splat32" | "spz":
                if not isinstance(asset, Asset):
                    raise InputError(f"{name} holds Gaussians, and this asset has none; leave the format out")
                match name:
                    case "splat":
                        contents[f"{stem}.splat.ply"] = splat_bytes(asset)
                    case "splat32":
                        contents[f"{stem}.splat"] = compact_splat_bytes(asset)
                    case "spz":
                        contents[f"{stem}.spz"] = spz_bytes(asset)
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
