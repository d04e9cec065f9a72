"""The stages of a run as plain functions: files and typed values in, files out.

Each writes into an empty folder `out` and reads the folders of the stages before it, so that
`pipeline.run` can keep what is finished and a job system can run each where it likes. What a
folder holds is said in each docstring. Heavy libraries are imported by the modules called.

When a stage's code changes what it makes, its number in `pipeline.stage_versions` is raised.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.artifacts import load_material, load_mesh, save_material, save_mesh
from pipeline.best_views import best_views, stage_generator
from pipeline.checkpoints import load_told
from pipeline.config import plain
from pipeline.consistency import Consistency, view_consistency
from pipeline.picture_safety import PicturePolicy, picture_policy, screen_pictures
from pipeline.preset import MeshConfig, PackageConfig, PreviewConfig, ReconstructConfig, ViewsConfig
from pipeline.prompt import Prompt
from pipeline.safety import Verdict, screen
from recon.keeper import Keeper, forgetful
from render.gbuffer import ViewSet
from render.progress import Progress, part_of, silent

if TYPE_CHECKING:
    from PIL import Image

    from pipeline.distillation import DistillationConfig
    from pipeline.source import ModelSource
    from pipeline.transforms_json import PosedSet
    from recon.bake import BakeConfig
    from recon.export import Format
    from recon.fields import SeedConfig
    from recon.fit import FitConfig
    from recon.surface import SurfaceConfig

VIEWS_FILE = "views.safetensors"
DRAWN_FILE = "drawn.safetensors"
REGISTERED_FILE = "registered.safetensors"
PICTURED_FILE = "pictured.safetensors"
"""The prompt's pictures as views, where there are any."""
TEXTURE_VIEWS_FILE = "texture_views.safetensors"
"""Of a reconstruction: the views in the pictures' own resolution, for surface and texture."""
POSED_FILE = "posed.json"
_MEASURED_PX = 8_000_000
"""Of all views together that a surface is fused from; it bounds the memory."""
SCREENING_FILE = "screening.json"
FIELD_FILE = "field.safetensors"
MESH_FILE = "mesh.safetensors"
LOST_FILE = "lost.json"
DENSE_FILE = "dense.safetensors"
SYMMETRY_FILE = "symmetry.json"
LIGHT_FILE = "light.json"
MATERIAL_FILE = "material.safetensors"


@dataclass(frozen=True)
class DrawnViews:
    """What the views stage found out, `views.json`."""

    consistency: Consistency
    domain_score: float | None
    """Nearness of the prompt's words to what the model knows, in [0, 1]; None without text."""
    nearest: tuple[str, ...]
    """Known things that are nearest."""
    in_domain: bool
    safety: Verdict | None = None
    """What the safety policy said of the prompt; None where there was no prompt."""
    screenings: tuple[Verdict, ...] = ()
    """What the picture policy said of the user's picture and of the drawn views."""
    candidates: tuple[float, ...] = ()
    """Score of every set that was drawn, the redrawn ones last; the best was kept."""
    likeness: float | None = None
    """How well the kept views fit the prompt's words, as the model's critic sees it, in [-1, 1]."""
    looks_like: tuple[str, ...] = ()
    """Known things that the kept views look most like to it."""
    taken_for: str | None = None
    """What the picture was recognised as and drawn after, where no text said it."""

    @property
    def score(self) -> float:
        """Of the kept set, in [0, 1]."""
        return max(self.candidates, default=self.consistency.score)


def draw_views(
    out: Path,
    prompt: Prompt,
    config: ViewsConfig,
    seed: int,
    model: ModelSource,
    *,
    screening: PicturePolicy | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `drawn.safetensors`, the best set that the model drew, `registered.safetensors`, its views bent
    into one another, `views.safetensors`, the same with one geometry where they still contradict each other,
    `pictured.safetensors`, the prompt's pictures as views, where it has any (all `ViewSet`), and `views.json`
    (`DrawnViews`, of the views as drawn). `RefusedError` when the safety policy refuses the prompt, or
    `screening` (default: the offline policy) the user's picture or what was drawn; nothing is written then.
    """
    from recon.consensus import harmonise
    from recon.registration import registered

    progress(0.0, "reading the prompt")
    screening = screening or picture_policy()
    verdict = screen(config.safety, prompt.text)
    screenings = []
    if prompt.image is not None:
        screenings.append(screen_pictures(screening, [prompt.image], "picture", prompt.text))
    progress(0.0, "loading the model")
    network = model.load()
    best = best_views(network, prompt, config, seed, part_of(progress, 0, 0.9))
    views = best.views
    screenings.append(screen_pictures(screening, view_pictures(views), "views", prompt.text))
    views.save(out / DRAWN_FILE)
    shown = network.pictured(prompt, config.size_px)
    if shown is not None:
        shown.save(out / PICTURED_FILE)
    progress(0.9, "finding the shape that the views agree on")
    together = registered(views, config.registration)
    together.save(out / REGISTERED_FILE)
    harmonise(together, config.consensus).save(out / VIEWS_FILE)
    domain = network.domain(prompt.text) if prompt.text else None
    drawn = DrawnViews(
        best.consistency,
        None if domain is None else float(domain.score),
        () if domain is None else tuple(domain.nearest),
        True if domain is None else domain.inside,
        verdict,
        tuple(screenings),
        best.scores,
        best.likeness,
        network.looks_like(views),
        network.named(prompt),
    )
    (out / "views.json").write_text(json.dumps(plain(drawn), indent=1), encoding="utf-8")


@dataclass(frozen=True)
class PosedSource:
    """What the views stage of a reconstruction found out, `posed.json`."""

    center: tuple[float, float, float]
    """Of the unit ball, in the set's world turned +Y up."""
    radius: float
    """Of the unit ball, in the set's units (metres, as far as the asset is concerned)."""
    up: str
    """Axis of the set's world that became +Y."""
    cut_out: str
    """How the object was told from the background."""
    views: int
    size_px: int
    """Side of the views' windows, for the texture."""
    channels: tuple[str, ...]
    tone_map: str | None
    """That the pictures were made with, where the set says so."""
    warnings: tuple[str, ...]


def read_views(out: Path, posed: PosedSet, config: ReconstructConfig, *, progress: Progress = silent) -> None:
    """A folder's posed pictures in place of drawn ones. Writes `views.safetensors` (for field and surface),
    `texture_views.safetensors`, `drawn.safetensors` (a few, for the picture of them), `views.json`
    (`DrawnViews`) and `posed.json` (`PosedSource`).
    """
    from pipeline.posed_views import load_views, sized

    found = load_views(posed, max_side=config.texture_view_size, progress=progress)
    views = found.views
    small = sized(views, min(config.view_size, views.cameras.width))
    small.save(out / VIEWS_FILE)
    views.save(out / TEXTURE_VIEWS_FILE)
    shown = sorted({round(i * (len(views) - 1) / 11) for i in range(12)})
    sized(small[shown], min(160, small.cameras.width)).save(out / DRAWN_FILE)
    drawn = DrawnViews(view_consistency(small), None, (), True)
    (out / "views.json").write_text(json.dumps(plain(drawn), indent=1), encoding="utf-8")
    x, y, z = (float(value) for value in found.placement.center)
    source = PosedSource(
        center=(x, y, z),
        radius=found.placement.radius,
        up=found.up,
        cut_out=found.method,
        views=len(views),
        size_px=views.cameras.width,
        channels=tuple(views.gbuffer.channels()),
        tone_map=posed.tone_map,
        warnings=found.warnings,
    )
    (out / POSED_FILE).write_text(json.dumps(plain(source), indent=1), encoding="utf-8")


def load_drawn(path: Path) -> DrawnViews:
    """Read `views.json`."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return DrawnViews(
        Consistency(**data["consistency"]),
        data["domain_score"],
        tuple(data["nearest"]),
        data["in_domain"],
        None if data["safety"] is None else Verdict(**data["safety"]),
        tuple(Verdict(**one) for one in data["screenings"]),
        tuple(data["candidates"]),
        data["likeness"],
        tuple(data["looks_like"]),
        data["taken_for"],
    )


def load_verdict(path: Path) -> Verdict:
    """Read `screening.json`."""
    return Verdict(**json.loads(path.read_text(encoding="utf-8")))


def view_pictures(views: ViewSet) -> list[Image.Image]:
    """The colours of every view over white, as a policy looks at them."""
    from PIL import Image

    from render.contact_sheet import channel_pictures

    shown = channel_pictures(views)
    colors = shown.get("base_color_srgb", shown.get("rgb_srgb"))
    assert colors is not None
    return [Image.fromarray(one) for one in colors]


def fit_field(
    out: Path,
    views_dir: Path,
    prompt: Prompt,
    seeds: SeedConfig,
    config: FitConfig,
    distillation: DistillationConfig | None,
    guidance_scale: float,
    seed: int,
    model: ModelSource,
    *,
    progress: Progress = silent,
    keeper: Keeper = forgetful,
) -> None:
    """Writes `field.safetensors` (of the kind `config.field`) and `fit.json` (the whole `FitReport`).

    Goes on with what `keeper` has of an earlier attempt with the same arguments.
    """
    from recon.fit import fit_views

    views = ViewSet.load(views_dir / VIEWS_FILE)
    seen = views.gbuffer
    if (views_dir / POSED_FILE).is_file() and seen.depth is not None and seen.normal is not None:
        config = replace(config, steps=min(config.steps, config.measured_steps))
    guidance = None
    if distillation is not None and config.field == "gaussians":
        from pipeline.distillation import Distillation

        progress(0.0, "loading the model")
        guidance = Distillation(model.load().denoiser(prompt, views, guidance_scale), distillation)
    field, report = fit_views(
        views,
        seeds,
        config,
        guidance=guidance,
        generator=stage_generator(seed, "field"),
        progress=progress,
        keeper=keeper,
    )
    field.save(out / FIELD_FILE)
    (out / "fit.json").write_text(json.dumps(plain(report), indent=1), encoding="utf-8")


def surface(
    out: Path, views_dir: Path, field_dir: Path, config: SurfaceConfig, *, progress: Progress = silent
) -> None:
    """Writes `mesh.safetensors`: the dense surface."""
    from pipeline.posed_views import sized
    from recon.bending import bent
    from recon.closing import without_holes
    from recon.crisp import crisp
    from recon.fields import load_field
    from recon.fields.sdf import SdfField
    from recon.outlines import fit_outlines, slender_places
    from recon.surface import extract_surface

    sharp = views_dir / TEXTURE_VIEWS_FILE
    views = ViewSet.load(sharp if sharp.is_file() else views_dir / VIEWS_FILE)
    if sharp.is_file():
        # Sharper than the field's views: what depth says of edges is lost with its pixels.
        side = min(config.measured_size, int((_MEASURED_PX / len(views)) ** 0.5))
        views = sized(views, min(side, views.cameras.width))
    field = load_field(field_dir / FIELD_FILE)
    with torch.no_grad():
        seen = views.gbuffer
        if isinstance(field, SdfField):
            dense = field.surface(config.relax_rounds, config.min_component, progress=progress)
        elif (views_dir / POSED_FILE).is_file() and seen.depth is not None and seen.normal is not None:
            # Depth that was measured is truer than that of Gaussians fitted to it (docs/reconstruct.md).
            from recon.hull import widened

            dense = extract_surface(None, widened(views), config, progress=progress)
        elif (views_dir / POSED_FILE).is_file() and seen.depth is None and bool((seen.alpha < 0.5).any()):
            # Silhouettes are truer than Gaussians, and so are depths matched within them.
            from recon.picture_surface import surface_of_pictures

            small = sized(views, min(config.matching_size, views.cameras.width))
            dense = surface_of_pictures(views, small, config, progress=progress)
        else:
            dense = extract_surface(field, views, config, progress=progress)
        if not (views_dir / POSED_FILE).is_file():
            progress(0.9, "flattening")
            drawn = ViewSet.load(views_dir / REGISTERED_FILE)
            dense = crisp(without_holes(dense, drawn), drawn, config.crisp)
            progress(1.0, "fitting outlines")
            dense = fit_outlines(dense, drawn, local=slender_places(dense, drawn.cameras))
            if (views_dir / PICTURED_FILE).is_file():
                # Begun from one volume. Views of texts bend each by itself (docs/benchmarks.md).
                dense = bent(dense, ViewSet.load(views_dir / DRAWN_FILE))
        save_mesh(dense, out / MESH_FILE)


def mesh(
    out: Path,
    views_dir: Path,
    surface_dir: Path,
    config: MeshConfig,
    texture_size: int,
    *,
    progress: Progress = silent,
) -> None:
    """Writes `mesh.safetensors`: at most `polycount` triangles, with normals and UVs; and `lost.json`
    (`recon.lost.Lost`): what of the views is not in it, and the line that says so to the user. Where symmetry
    is asked for, or nearly there in what a text alone describes, also `symmetry.json`
    (`recon.symmetry.Symmetry`, and a line likewise). A surface that was changed is `dense.safetensors`."""
    from recon.joining import joined
    from recon.lost import lost
    from recon.simplify import simplify
    from recon.symmetry import symmetrised
    from recon.uv import unwrap

    dense = surface = load_mesh(surface_dir / MESH_FILE)
    posed, shown = ((views_dir / name).is_file() for name in (POSED_FILE, PICTURED_FILE))
    if config.symmetrise or (config.symmetrise is None and not posed and not shown):
        progress(0.0, "symmetrising")
        dense, symmetry = symmetrised(dense, asked=bool(config.symmetrise))
        if config.symmetrise or symmetry.done:
            said = {"warning": symmetry.warning()} | dict(vars(symmetry))
            (out / SYMMETRY_FILE).write_text(json.dumps(plain(said), indent=1), encoding="utf-8")
    if not posed:
        dense = joined(dense)
    if dense is not surface:
        save_mesh(dense, out / DENSE_FILE)
    progress(0.1, "decimating")
    simple = simplify(dense, config.polycount)
    progress(0.4, "unwrapping")
    save_mesh(unwrap(simple, texture_size), out / MESH_FILE)
    found = lost(ViewSet.load(views_dir / VIEWS_FILE), dense, simple)
    told = {"warning": found.warning()} | dict(vars(found))
    (out / LOST_FILE).write_text(json.dumps(plain(told), indent=1), encoding="utf-8")


def texture(
    out: Path,
    views_dir: Path,
    field_dir: Path,
    mesh_dir: Path,
    config: BakeConfig,
    *,
    surface_dir: Path | None = None,
    delight: bool = False,
    progress: Progress = silent,
) -> None:
    """Writes `material.safetensors`: the baked maps; normals and occlusion too when there is a dense
    surface. With `delight` the light of pictures is taken out of the base colour, and `light.json` says which
    (`recon.delight.Light`)."""
    from recon.bake import bake
    from recon.emission import emission
    from recon.fields import load_field

    sharp = views_dir / TEXTURE_VIEWS_FILE
    views = ViewSet.load(sharp if sharp.is_file() else views_dir / VIEWS_FILE)
    field = load_field(field_dir / FIELD_FILE)
    with torch.no_grad():
        mesh = load_mesh(mesh_dir / MESH_FILE)
        share = 1.0 if surface_dir is None else 0.6
        posed, symmetry = (views_dir / POSED_FILE).is_file(), load_told(mesh_dir / SYMMETRY_FILE)
        material = bake(
            mesh,
            views,
            field,
            config,
            # Drawn views do not agree to the pixel, and their colours are flat where they are not stained.
            rounds=config.rounds if posed else 0,
            flatten=0.0 if posed else config.flatten,
            mirrored=symmetry is not None and symmetry["done"] and symmetry["axis"] == 0,
            pictured=ViewSet.load(shown) if (shown := views_dir / PICTURED_FILE).is_file() else None,
            progress=part_of(progress, 0, share),
        )
        material = replace(material, emissive_srgb=emission(mesh, views, config))
    if delight and views.gbuffer.base_color_srgb is None:
        from recon.delight import DelightConfig
        from recon.delight import delight as without_light

        tone = json.loads((views_dir / POSED_FILE).read_text(encoding="utf-8"))["tone_map"]
        color, light = without_light(mesh, material.base_color_srgb, DelightConfig(neutral=tone is not None))
        material = replace(material, base_color_srgb=color)
        (out / LIGHT_FILE).write_text(json.dumps(light.to_dict(), indent=1), encoding="utf-8")
    if surface_dir is not None:
        from recon.transfer import TransferConfig, detail_maps

        changed = mesh_dir / DENSE_FILE
        dense = load_mesh(changed if changed.is_file() else surface_dir / MESH_FILE)
        size = TransferConfig(texture_size=config.texture_size)
        _, material = detail_maps(mesh, material, dense, size, progress=part_of(progress, share, 1))
    save_material(material, out / MATERIAL_FILE)


def export_files(
    out: Path,
    field_dir: Path,
    mesh_dir: Path,
    texture_dir: Path,
    *,
    name: str,
    stem: str,
    height_m: float,
    formats: tuple[Format, ...],
    provenance: dict[str, str | int | float],
    package: PackageConfig,
    align: bool = False,
    progress: Progress = silent,
) -> None:
    """Writes the asset's files, always a GLB, and `inspection.json`; with `align` square with the axes."""
    from recon.asset import Asset
    from recon.export import SPLAT_FORMATS, export
    from recon.export.gltf import GltfOptions
    from recon.fields import load_field
    from recon.heading import degrees_to_square, turned, turned_splats
    from recon.inspect import inspect
    from recon.thickness import thickness

    mesh = load_mesh(mesh_dir / MESH_FILE)
    splats = load_field(field_dir / FIELD_FILE).splats() if set(formats) & set(SPLAT_FORMATS) else None
    turn = degrees_to_square(mesh) if align else 0.0
    if turn:
        mesh, splats = turned(mesh, turn), splats and turned_splats(splats, turn)
    asset = Asset(
        mesh=mesh,
        material=replace(load_material(texture_dir / MATERIAL_FILE), name=name),
        name=name,
        height_m=height_m,
        provenance=provenance,
        splats=splats,
        pivot_at=package.pivot,
        lod_layout=package.lod_layout,
    )
    if package.lods > 1:
        from recon.lods import LodConfig, make_lods
        from render.scene import Part, Scene

        finest = Scene((Part(asset.mesh, asset.material, name),))
        size = max(asset.material.base_color_srgb.shape[:2])
        asset = replace(asset, lods=make_lods(finest, size, LodConfig(package.lods), progress=progress))
    if package.collider:
        from recon.collider import convex_hulls

        progress(0.0, "collider")
        asset = replace(asset, collider=convex_hulls(asset.mesh))
    progress(0.0, "writing")
    with torch.no_grad():
        options = GltfOptions(package.textures, package.meshes)
        export(asset, out, stem, ["glb", *(name for name in formats if name != "glb")], options)
    progress(0.7, "inspecting")
    facts = inspect(asset).to_dict() | {"thickness": plain(thickness(asset.in_metres()))}
    if align:
        facts["turned_deg"] = round(turn, 1)
    (out / "inspection.json").write_text(json.dumps(plain(facts), indent=1), encoding="utf-8")


def preview(
    out: Path,
    views_dir: Path,
    glb: Path,
    config: PreviewConfig,
    *,
    text: str = "",
    screening: PicturePolicy | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `preview.png`, `turntable.mp4` (both of the GLB as a user gets it), `views.png`, and
    `screening.json`: what the picture policy `screening` (default: the offline one) says of four sides of
    the asset. `RefusedError` when it refuses them."""
    from pipeline.asset_pictures import asset_pictures
    from render.contact_sheet import views_sheet

    asset_pictures(out, glb, config, text=text, screening=screening, progress=progress)
    views_sheet(ViewSet.load(views_dir / DRAWN_FILE)).save(out / "views.png")
