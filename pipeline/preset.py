"""Presets: the settings of all stages together, from `configs/*.yaml` or a file of the user's own.

A file may begin with `base: draft` and then says only what differs from that preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.config import build
from pipeline.distillation import DistillationConfig
from pipeline.limits import POLYCOUNTS
from pipeline.preset_files import preset_values
from pipeline.prompt import Prompt
from recon.asset import LodLayout, Pivot
from recon.bake import BakeConfig
from recon.consensus import ConsensusConfig
from recon.export.gltf import MeshFormat, TextureFormat
from recon.fields import SeedConfig
from recon.fit import FitConfig
from recon.registration import RegistrationConfig
from recon.surface import SurfaceConfig
from render.errors import InputError


@dataclass(frozen=True)
class ViewsConfig:
    """What the diffusion model draws."""

    azimuths_deg: tuple[float, ...] = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0, 0.0, 0.0)
    elevations_deg: tuple[float, ...] = (15.0,) * 8 + (89.0, -89.0)
    """One per azimuth: eight around, one from the top, one from below."""
    size_px: int = 128
    num_inference_steps: int = 25
    guidance_scale: float = 3.5
    guidance_rescale: float = 1.0
    """How far guided views are given the spread of those without, so that colours are no more saturated than
    asked."""
    picture_guidance_scale: float = 2.0
    """Where the prompt is a picture alone, whose views are not rescaled."""
    picture_start_level: float = 0.45
    """Where the prompt has a picture: views begin at this noise level from a first guess of the whole object;
    1 begins from nothing but noise."""
    candidates: int = 1
    """How many sets of views are drawn; the one that agrees best with itself and the prompt is kept."""
    likeness_weight: float = 2.0
    """What the critic's opinion counts in that choice; 0: only whether the views agree."""
    metal_weight: float = 1.0
    """What it counts there that views are of metal, or not, where the text says so (`pipeline.finish`)."""
    color_weight: float = 1.0
    """What it counts there that views have the colour that the text says."""
    redraws: int = 0
    """How often the best set is drawn again from `redraw_level`, and kept where that is better."""
    redraw_level: float = 0.88
    """Noise that is put on a set before it is drawn again; 1 is nothing but noise."""
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    """How views are bent into one another."""
    consensus: ConsensusConfig = field(default_factory=ConsensusConfig)
    """When views that contradict each other are given one geometry."""
    safety: Literal["offline", "none"] = "offline"
    """Which policy screens the prompt (`pipeline.safety`)."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.azimuths_deg) <= 32:
            raise InputError(f"azimuths_deg must list 1 to 32 views, not {len(self.azimuths_deg)}.")
        if len(self.elevations_deg) != len(self.azimuths_deg):
            raise InputError(
                f"elevations_deg must list one value per azimuth: {len(self.azimuths_deg)}, "
                f"not {len(self.elevations_deg)}."
            )
        if any(not -90 <= elevation <= 90 for elevation in self.elevations_deg):
            raise InputError("elevations_deg must lie between -90 and 90.")
        if self.size_px % 16 or not 64 <= self.size_px <= 512:
            raise InputError(f"size_px must be a multiple of 16 between 64 and 512, not {self.size_px}.")
        _check("num_inference_steps", self.num_inference_steps, 1, 1000)
        _check("candidates", self.candidates, 1, 16)
        _check("likeness_weight", self.likeness_weight, 0.0, 100.0)
        _check("metal_weight", self.metal_weight, 0.0, 100.0)
        _check("color_weight", self.color_weight, 0.0, 100.0)
        _check("redraws", self.redraws, 0, 16)
        _check("redraw_level", self.redraw_level, 0.0, 1.0)
        _check("guidance_rescale", self.guidance_rescale, 0.0, 1.0)
        _check("guidance_scale", self.guidance_scale, 0.0, 50.0)
        _check("picture_guidance_scale", self.picture_guidance_scale, 0.0, 50.0)
        _check("picture_start_level", self.picture_start_level, 0.0, 1.0)

    def guidance_for(self, prompt: Prompt) -> float:
        """The guidance scale for a prompt."""
        return self.guidance_scale if prompt.text else self.picture_guidance_scale

    def rescale_for(self, prompt: Prompt) -> float:
        """How far guided views of such a prompt are rescaled."""
        return self.guidance_rescale if prompt.text else 0.0

    def guess_level_for(self, prompt: Prompt) -> float:
        """The noise level at which views begin from a first guess; 1: from noise alone."""
        return self.picture_start_level if prompt.pictures else 1.0


@dataclass(frozen=True)
class ReconstructConfig:
    """How posed pictures are read."""

    view_size: int = 192
    """Side of the views that the field is fitted to, pixels."""
    texture_view_size: int = 1024
    """Largest side of the views that the texture is baked from."""
    delight: bool = False
    """Take the light of pictures out of the base colour (`recon.delight`)."""

    def __post_init__(self) -> None:
        _check("view_size", self.view_size, 32, 1024)
        _check("texture_view_size", self.texture_view_size, 32, 4096)


@dataclass(frozen=True)
class MeshConfig:
    """The mesh that is delivered."""

    polycount: int = 6_000
    """Most triangles."""
    symmetrise: bool | None = None
    """Bring left and right, or front and back, together where they nearly are equal (`recon.symmetry`), and
    say so where they are not. None: of what is drawn from a text alone, without a word."""

    def __post_init__(self) -> None:
        _check("polycount", self.polycount, *POLYCOUNTS)


@dataclass(frozen=True)
class PackageConfig:
    """What the asset carries besides its colours."""

    detail_maps: bool = True
    """A normal map and ambient occlusion of the dense surface."""
    lods: int = 1
    """Levels of detail, the finest included: NAME_LOD0, ..."""
    collider: bool = False
    """Convex hulls UCX_NAME_00, ... (the extra `collider`)."""
    pivot: Pivot = "floor"
    """What becomes the origin."""
    align: bool = True
    """Turn what is made of a picture about +Y until its walls are square with the axes (`recon.heading`)."""
    lod_layout: LodLayout = "nodes"
    textures: TextureFormat = "png"
    """Of glb and gltf."""
    meshes: MeshFormat = "plain"
    """Geometry of glb and gltf; `draco` and `meshopt` need the extras of those names."""

    def __post_init__(self) -> None:
        _check("lods", self.lods, 1, 8)


@dataclass(frozen=True)
class PreviewConfig:
    """The pictures beside the asset."""

    size_px: int = 768
    turntable_frames: int = 48
    """0 leaves the turntable out."""
    turntable_size_px: int = 512
    frames_per_second: int = 24
    environment: str = "studio"

    def __post_init__(self) -> None:
        _check("size_px", self.size_px, 64, 4096)
        _check("turntable_frames", self.turntable_frames, 0, 720)
        _check("turntable_size_px", self.turntable_size_px, 64, 2048)
        _check("frames_per_second", self.frames_per_second, 1, 60)


@dataclass(frozen=True)
class Preset:
    """Settings of all stages, in the order of the run."""

    name: str = "standard"
    views: ViewsConfig = field(default_factory=ViewsConfig)
    seeds: SeedConfig = field(default_factory=SeedConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    distillation: DistillationConfig | None = None
    """None: the field is fitted to the views only."""
    surface: SurfaceConfig = field(default_factory=SurfaceConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    bake: BakeConfig = field(default_factory=BakeConfig)
    package: PackageConfig = field(default_factory=PackageConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    """Of `maquette reconstruct` alone."""


def load_preset(name: str | Path) -> Preset:
    """A shipped preset by its name, or a YAML file of the same keys."""
    return build(Preset, preset_values(str(name)))


def _check(name: str, value: int | float, low: int | float, high: int | float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} must be between {low:g} and {high:g}, not {value:g}.")
