"""The stages of `pipeline.retexture` as plain functions on folders, as those of `pipeline.stages`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from pipeline.artifacts import load_material, load_mesh, save_material, save_mesh
from pipeline.best_views import stage_generator, view_cameras
from pipeline.config import plain
from pipeline.multiview.repaint import RepaintConfig, repaint
from pipeline.multiview.sampler import ViewSampler
from pipeline.picture_safety import PicturePolicy, picture_policy, screen_pictures
from pipeline.posed_set import in_unit_ball
from pipeline.preset import Preset, load_preset
from pipeline.prompt import Prompt
from pipeline.safety import Verdict, screen
from pipeline.source import ModelSource
from pipeline.stages import DRAWN_FILE, MATERIAL_FILE, MESH_FILE, view_pictures
from pipeline.tools import PackageOptions, atlas, package
from recon.recolor import RecolorConfig, overlaps, recolor
from render.errors import InputError
from render.framing import placement_of
from render.gbuffer import ViewSet
from render.progress import Progress, silent
from render.scene import Part, Scene
from render.scene_gbuffer import gbuffer_of

SEEN_FILE = "seen.safetensors"
PAINTED_FILE = "painted.json"
INSPECTION_FILE = "inspection.json"
MAX_TEXTURE = 2048
"""Largest texture that is made without being asked for; views of 128 pixels fill no larger one."""


@dataclass(frozen=True)
class RetextureConfig:
    """How an asset gets its new look."""

    preset: Preset = field(default_factory=lambda: load_preset("standard"))
    """Its cameras, steps, guidance, texture size and pictures are used."""
    strength: float = 1.0
    """See `pipeline.multiview.repaint.RepaintConfig`."""
    grain: float = 1.0
    """How much of the old texture's fine grain is kept, 0 to 1."""
    keep_uvs: bool = True
    """Where the UVs allow it: one part, no place of the texture used twice. Else an atlas is made."""
    texture_size: int | None = None
    """None: the larger of the preset's and the old texture's, up to 2048."""

    def __post_init__(self) -> None:
        RepaintConfig(strength=self.strength)
        RecolorConfig(self.texture_size or 1024, self.grain)

    def painting(self, prompt: Prompt) -> RepaintConfig:
        """The sampler's part."""
        views = self.preset.views
        return RepaintConfig(
            views.num_inference_steps, views.guidance_for(prompt), self.strength, views.rescale_for(prompt)
        )


@dataclass(frozen=True)
class Painted:
    """What painting found out, `painted.json`."""

    domain_score: float | None
    """As in `pipeline.stages.DrawnViews`, and so are the others."""
    nearest: tuple[str, ...]
    in_domain: bool
    safety: tuple[Verdict, ...]
    """What the safety policies said of the prompt, the picture and the painted views."""


def paint(
    out: Path,
    scene: Scene,
    prompt: Prompt,
    config: RetextureConfig,
    seed: int,
    model: ModelSource,
    *,
    screening: PicturePolicy | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `seen.safetensors`, the asset as it is, `drawn.safetensors`, as the model painted it (both
    `ViewSet`, in the unit ball), and `painted.json` (`Painted`). `RefusedError` when a safety policy refuses
    the prompt, or `screening` the picture or what was painted."""
    screening = screening or picture_policy()
    said = [screen(config.preset.views.safety, prompt.text)]
    if prompt.image is not None:
        said.append(screen_pictures(screening, [prompt.image], "picture", prompt.text))
    progress(0.0, "looking at the asset")
    cameras = view_cameras(config.preset.views)
    seen = ViewSet(cameras, gbuffer_of(in_unit_ball(scene, placement_of(scene)), cameras))
    seen.save(out / SEEN_FILE)
    progress(0.1, "loading the model")
    network = model.load()
    if not isinstance(network, ViewSampler):
        raise InputError("This model cannot paint a given shape; use the shipped one.")
    painted = repaint(
        network,
        prompt,
        seen,
        config.painting(prompt),
        generator=stage_generator(seed, "paint"),
        progress=lambda done, text="": progress(0.1 + 0.9 * done, text),
    )
    said.append(screen_pictures(screening, view_pictures(painted), "views", prompt.text))
    painted.save(out / DRAWN_FILE)
    domain = network.domain(prompt.text) if prompt.text else None
    found = Painted(
        None if domain is None else float(domain.score),
        () if domain is None else tuple(domain.nearest),
        True if domain is None else domain.inside,
        tuple(said),
    )
    (out / PAINTED_FILE).write_text(json.dumps(plain(found), indent=1), encoding="utf-8")


def load_painted(folder: Path) -> Painted:
    """Read `painted.json`."""
    data = json.loads((folder / PAINTED_FILE).read_text(encoding="utf-8"))
    said = tuple(Verdict(**one) for one in data["safety"])
    return Painted(data["domain_score"], tuple(data["nearest"]), data["in_domain"], said)


def domain_warning(painted: Painted, text: str) -> str | None:
    """What the user is told of a prompt that is far from what the model knows."""
    if painted.in_domain:
        return None
    return f"{text!r} is far from what the model knows. Nearest: {', '.join(painted.nearest)}."


def texture(
    out: Path, scene: Scene, paint_dir: Path, config: RetextureConfig, *, progress: Progress = silent
) -> None:
    """Writes `mesh.safetensors`, where the asset was, and `material.safetensors`."""
    size = config.texture_size
    if size is None:
        old = max(max(part.material.base_color_srgb.shape[:2]) for part in scene.parts)
        size = min(max(config.preset.bake.texture_size, 1 << (old - 1).bit_length()), MAX_TEXTURE)
    with torch.no_grad():
        part = _one_part(scene, size, config.keep_uvs, lambda done, text="": progress(0.4 * done, text))
        unit = in_unit_ball(Scene((part,)), placement_of(scene)).parts[0].mesh
        material = recolor(
            unit,
            part.material,
            ViewSet.load(paint_dir / SEEN_FILE),
            ViewSet.load(paint_dir / DRAWN_FILE),
            RecolorConfig(size, config.grain),
            progress=lambda done, text="": progress(0.4 + 0.6 * done, text),
        )
    save_mesh(part.mesh, out / MESH_FILE)
    save_material(material, out / MATERIAL_FILE)


def _one_part(scene: Scene, size: int, keep_uvs: bool, progress: Progress) -> Part:
    """The scene as one mesh whose every place has texels of its own."""
    if keep_uvs and len(scene.parts) == 1:
        part = scene.parts[0]
        mesh = part.mesh
        whole = mesh.uvs is not None and mesh.normals is not None and mesh.colors_srgb is None
        if whole and not overlaps(mesh):
            return part
    return atlas(scene, size, progress).parts[0]


def export_files(
    out: Path,
    texture_dir: Path,
    options: PackageOptions,
    *,
    name: str,
    stem: str,
    provenance: dict[str, str | int | float],
    progress: Progress = silent,
) -> None:
    """Writes the asset's files, always a GLB among them, and `inspection.json`."""
    from recon.export import export
    from recon.export.gltf import GltfOptions
    from recon.inspect import inspect

    material = replace(load_material(texture_dir / MATERIAL_FILE), name=name)
    scene = Scene((Part(load_mesh(texture_dir / MESH_FILE), material, stem),))
    packed = package(scene, stem, options, progress=lambda done, text="": progress(0.6 * done, text))
    packed = replace(packed, provenance=provenance)
    progress(0.6, "writing")
    formats = tuple(dict.fromkeys(("glb", *options.formats)))
    export(packed, out, stem, formats, GltfOptions(options.textures, options.meshes))
    progress(0.9, "inspecting")
    inspection = json.dumps(plain(inspect(packed.scene())), indent=1)
    (out / INSPECTION_FILE).write_text(inspection, encoding="utf-8")
