"""Work on a user's own GLB: convert, simplify, unwrap, bake. What the commands of these names call.

In: a GLB (or a glTF with embedded buffers). Out: files in a folder, all of them or none. Materials and
textures go along: where the surface or its UVs change, they are baked anew from the original.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.output_directory import checked_directory
from pipeline.request import slug
from recon.asset import LodLayout, Pivot
from recon.export import Format
from recon.export.gltf import MeshFormat, TextureFormat
from render.errors import InputError
from render.progress import Progress, silent
from render.scene import Mesh, Part, Scene, merged

if TYPE_CHECKING:
    from recon.fidelity import Fidelity
    from recon.package import Package
    from recon.symmetry import Symmetry
    from recon.transfer import MapName

MAX_TRIANGLES = 5_000_000


@dataclass(frozen=True)
class PackageOptions:
    """What is written, and how."""

    formats: tuple[Format, ...] = ("glb",)
    pivot: Pivot = "keep"
    height_m: float | None = None
    """Height of the result; None keeps the size."""
    lods: int = 1
    """Levels of detail, the finest included."""
    lod_layout: LodLayout = "nodes"
    collider: bool = False
    textures: TextureFormat = "png"
    meshes: MeshFormat = "plain"
    texture_size: int | None = None
    """Of baked maps; None takes the source's largest, between 512 and 4096."""

    def __post_init__(self) -> None:
        from recon.export import FORMATS

        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"--formats: {name!r} is unknown. Known: {', '.join(FORMATS)}.")
        if not self.formats:
            raise InputError(f"--formats must name at least one of {', '.join(FORMATS)}.")
        if not 1 <= self.lods <= 8:
            raise InputError(f"--lods must be from 1 to 8, not {self.lods}.")
        if self.height_m is not None and not 0.001 <= self.height_m <= 1000:
            raise InputError(f"--height-m must be from 0.001 to 1000, not {self.height_m:g}.")
        if self.texture_size is not None and not 512 <= self.texture_size <= 4096:
            raise InputError(f"--texture-size must be from 512 to 4096, not {self.texture_size}.")


@dataclass(frozen=True)
class Simplified:
    """What `simplify` did."""

    files: list[Path]
    triangles_before: int
    triangles: int
    fidelity: Fidelity
    symmetry: Symmetry | None = None
    """Where it was asked for."""


def convert(asset: Path, out: Path, options: PackageOptions, *, progress: Progress = silent) -> list[Path]:
    """The asset in other formats, sizes, pivots, with levels of detail or a collider."""
    return _write(read(asset), asset, out, options, progress)


def simplify(
    asset: Path,
    out: Path,
    polycount: int,
    options: PackageOptions,
    *,
    remesh: str | None = None,
    symmetrise: bool = False,
    progress: Progress = silent,
) -> Simplified:
    """At most `polycount` triangles in one part, with the original's look baked onto them.

    `remesh`: triangles or quads, of even size, instead of decimation. `symmetrise` makes left and right, or
    front and back, equal where they nearly are.
    """
    from recon.fidelity import fidelity
    from recon.simplify import simplify as decimate
    from recon.uv import MAX_TRIANGLES as MAX_UNWRAPPED

    if polycount < 4:
        raise InputError(f"--polycount must be at least 4, not {polycount}.")
    if remesh not in (None, "triangles", "quads"):
        raise InputError(f"--remesh must be triangles or quads, not {remesh!r}.")
    scene = read(asset)
    before = dense = merged(scene)
    if min(polycount, len(before.faces)) > MAX_UNWRAPPED:
        raise InputError(
            f"--polycount must be at most {MAX_UNWRAPPED:,}, not {polycount:,}: UVs are made for so many."
        )
    symmetry = None
    if symmetrise:
        from recon.symmetry import symmetrised

        progress(0.0, "symmetrising")
        dense, symmetry = symmetrised(before)
    progress(0.0, "decimating")
    if remesh is None:
        after = decimate(dense, polycount, close=False)
    else:
        from recon.remesh import remesh as remeshed

        after = remeshed(dense, polycount, "quads" if remesh == "quads" else "triangles")
    moved = fidelity(before, after)
    made = _baked(after, scene, asset, options, lambda done, text="": progress(0.1 + 0.6 * done, text))
    files = _write(made, asset, out, options, lambda done, text="": progress(0.7 + 0.3 * done, text))
    return Simplified(files, len(before.faces), len(after.faces), moved, symmetry)


def unwrap(asset: Path, out: Path, options: PackageOptions, *, progress: Progress = silent) -> list[Path]:
    """All parts in one atlas: new UVs, materials baked onto them. The surface stays."""
    scene = read(asset)
    made = _baked(merged(scene), scene, asset, options, lambda done, text="": progress(0.7 * done, text))
    return _write(made, asset, out, options, lambda done, text="": progress(0.7 + 0.3 * done, text))


def bake(
    asset: Path,
    source: Path,
    out: Path,
    options: PackageOptions,
    *,
    maps: tuple[MapName, ...] | None = None,
    reach: float | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """The look of `source` (a dense or otherwise better asset in the same place) on the UVs of `asset`.

    Parts without UVs are unwrapped. `reach`: how far apart the two may lie, in metres.
    """
    from recon.transfer import ALL_MAPS, TransferConfig, transfer
    from recon.uv import unwrap as unwrapped

    scene, high = read(asset), read(source)
    size = options.texture_size or _texture_size(high)
    config = TransferConfig(
        texture_size=size, maps=ALL_MAPS if maps is None else maps, reach=reach, two_sided=True
    )
    parts = []
    for number, part in enumerate(scene.parts):
        share = number / len(scene.parts)
        mesh = part.mesh
        if mesh.uvs is None or mesh.normals is None:
            mesh = unwrapped(mesh, size)
        assert mesh.uvs is not None
        if mesh.uvs.min() < -1e-4 or mesh.uvs.max() > 1 + 1e-4:
            raise InputError(
                f"{asset.name}: the UVs of {part.name!r} repeat the texture, so nothing can be baked onto "
                "them; use: maquette unwrap"
            )

        def told(fraction: float, message: str = "", share: float = share) -> None:
            progress(0.8 * (share + fraction / len(scene.parts)), message)

        mesh, material = transfer(mesh, high, config, progress=told)
        parts.append(Part(mesh, material, part.name))
    made = Scene(tuple(parts))
    return _write(made, asset, out, options, lambda done, text="": progress(0.8 + 0.2 * done, text))


def read(asset: Path) -> Scene:
    """The scene of a file. `InputError` when it is too large to be worked on here."""
    from render.glb import load_scene

    scene = load_scene(asset)
    triangles = sum(len(part.mesh.faces) for part in scene.parts)
    if triangles > MAX_TRIANGLES:
        raise InputError(
            f"{asset.name}: has {triangles:,} triangles; this works on up to {MAX_TRIANGLES:,}. "
            "Decimate it where it was made."
        )
    return scene


def atlas(scene: Scene, size: int, progress: Progress = silent) -> Scene:
    """All parts as one, unwrapped anew, with all materials baked into one of `size` pixels."""
    return _in_atlas(merged(scene), scene, size, "asset", progress)


def _baked(mesh: Mesh, scene: Scene, asset: Path, options: PackageOptions, progress: Progress) -> Scene:
    size = options.texture_size or _texture_size(scene)
    return _in_atlas(mesh, scene, size, slug(asset.stem) or "asset", progress)


def _in_atlas(mesh: Mesh, scene: Scene, size: int, name: str, progress: Progress) -> Scene:
    from recon.transfer import TransferConfig, transfer
    from recon.uv import unwrap as unwrapped

    progress(0.0, "unwrapping")
    made, material = transfer(
        unwrapped(mesh, size),
        scene,
        TransferConfig(texture_size=size, two_sided=True),
        progress=lambda done, text="": progress(0.3 + 0.7 * done, text),
    )
    return Scene((Part(made, replace(material, name=name), name),))


def _texture_size(scene: Scene) -> int:
    largest = max(max(part.material.base_color_srgb.shape[:2]) for part in scene.parts)
    return min(max(1 << (largest - 1).bit_length(), 1024 if largest == 1 else 512), 4096)


def _write(scene: Scene, asset: Path, out: Path, options: PackageOptions, progress: Progress) -> list[Path]:
    from recon.export import export
    from recon.export.gltf import GltfOptions

    directory = checked_directory(out)
    stem = slug(asset.stem, 64) or "asset"
    if directory.resolve() == asset.resolve().parent and f"{stem}.glb" == asset.name:
        raise InputError(f"--out {out}: the result would replace {asset.name} itself; choose another folder.")
    packed = package(scene, stem, options, progress=lambda done, text="": progress(0.9 * done, text))
    progress(0.9, "writing")
    written = export(packed, directory, stem, options.formats, GltfOptions(options.textures, options.meshes))
    progress(1.0)
    return written


def package(scene: Scene, stem: str, options: PackageOptions, *, progress: Progress = silent) -> Package:
    """The scene at its size and pivot, with the levels of detail and the collider that are asked for."""
    from recon.package import package_of_scene

    lods: tuple[Scene, ...] = ()
    if options.lods > 1:
        from recon.lods import LodConfig, make_lods

        size = options.texture_size or _texture_size(scene)
        coarser = make_lods(
            scene, size, LodConfig(options.lods), progress=lambda done, text="": progress(0.6 * done, text)
        )
        lods = tuple(
            Scene((replace(part, material=replace(part.material, name=f"{stem}_LOD{number}")),))
            for number, part in enumerate(coarser, start=1)
        )
    hulls: tuple[Mesh, ...] = ()
    if options.collider:
        from recon.collider import convex_hulls

        progress(0.6, "collider")
        hulls = convex_hulls(scene)
    return package_of_scene(
        scene,
        stem,
        pivot=options.pivot,
        height_m=options.height_m,
        lods=lods,
        collider=hulls,
        lod_layout=options.lod_layout,
    )
