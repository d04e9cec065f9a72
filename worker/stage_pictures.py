"""What a stage in the middle made, as a picture for those who wait: field, surface, mesh, textures.

Three sides in a row, small, lit from above the camera's shoulder, without shadows: they must cost next to
nothing beside the stage itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.checkpoints import StageOutput

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

    from render.cameras import Cameras
    from render.scene import Material, Mesh

SIDE_PX = 192
"""Three are about as wide as the page shows them."""
AZIMUTHS_DEG = (30.0, 150.0, 270.0)
KEY_LIGHT = (-0.35, 0.6, 0.72)
"""Direction to the light, unit length, in the camera's axes: x right, y up, z to the eye."""
AMBIENT = 0.35
"""Share of the light that comes from everywhere."""
GREY = 0.8
"""Base colour, in sRGB, of what has none yet."""
MOST_TEXELS = 512
"""On a texture's side."""
LINE = 0.6
"""How dark the border of two triangles is."""


def stage_picture(stage: str, made: Mapping[str, StageOutput]) -> Image.Image | None:
    """The picture of a stage of `pipeline.run_order`, whose outputs are in `made`; None for one without."""
    from pipeline.artifacts import load_material, load_mesh
    from pipeline.stages import MATERIAL_FILE, MESH_FILE

    match stage:
        case "field":
            return _field(made["field"])
        case "surface":
            return _lit(load_mesh(made["surface"] / MESH_FILE))
        case "mesh":
            return _lit(load_mesh(made["mesh"] / MESH_FILE), wires=True)
        case "texture":
            material = load_material(made["texture"] / MATERIAL_FILE)
            return _lit(load_mesh(made["mesh"] / MESH_FILE), material.base_color_srgb)
        case _:
            return None


def _field(output: StageOutput) -> Image.Image:
    """Colours of the Gaussians."""
    import torch

    from pipeline.stages import FIELD_FILE
    from recon.fields import load_field
    from render.cameras import orbit_cameras

    cameras = orbit_cameras(list(AZIMUTHS_DEG), [15.0] * len(AZIMUTHS_DEG), SIDE_PX)
    with torch.no_grad():
        seen = load_field(output / FIELD_FILE).render(cameras)
    color = seen.base_color_srgb if seen.base_color_srgb is not None else seen.rgb_srgb
    assert color is not None
    return _row(color, seen.alpha)


def _lit(
    mesh: Mesh, base_color_srgb: Float[np.ndarray, "H W 3"] | None = None, *, wires: bool = False
) -> Image.Image:
    """Base colours, grey without any, under the key light."""
    from render.conventions import linear_to_srgb, srgb_to_linear
    from render.framing import frame_cameras
    from render.scene import Part, Scene
    from render.scene_gbuffer import gbuffer_of

    scene = Scene((Part(mesh, _matt(base_color_srgb)),))
    cameras = frame_cameras(scene, SIDE_PX, azimuths_deg=AZIMUTHS_DEG)
    seen = gbuffer_of(scene, cameras)
    assert seen.base_color_srgb is not None
    assert seen.normal is not None
    axes = cameras.c2w[:, :3, :3]
    key = (axes @ axes.new_tensor(KEY_LIGHT))[:, None, None]
    light = AMBIENT + (1 - AMBIENT) * (seen.normal * key).sum(-1, keepdim=True).clamp_min(0)
    color = linear_to_srgb(srgb_to_linear(seen.base_color_srgb) * light)
    if wires:
        color = color * (1 - LINE * _borders(mesh, cameras))
    return _row(color, seen.alpha)


def _matt(base_color_srgb: Float[np.ndarray, "H W 3"] | None) -> Material:
    """With no more texels than the picture can show."""
    import numpy as np

    from render.scene import Material

    one = np.ones((1, 1), np.float32)
    if base_color_srgb is None:
        return Material(np.full((1, 1, 3), GREY, np.float32), 0 * one, one)
    step = max(1, max(base_color_srgb.shape) // MOST_TEXELS)
    return Material(np.ascontiguousarray(base_color_srgb[::step, ::step]), 0 * one, one)


def _borders(mesh: Mesh, cameras: Cameras) -> Float[Tensor, "C H W 1"]:
    """Share of each pixel in which two triangles meet."""
    import torch

    from render.rasterize import rasterize

    fine = cameras.resized(2 * cameras.width, 2 * cameras.height)
    face = torch.from_numpy(rasterize(mesh.vertices, mesh.faces, fine).face)
    right, below = face.roll(-1, 2), face.roll(-1, 1)
    meet = ((face != right) | (face != below)).float()
    return torch.nn.functional.avg_pool2d(meet, 2)[..., None]


def _row(color_srgb: Float[Tensor, "C H W 3"], alpha: Float[Tensor, "C H W 1"]) -> Image.Image:
    """Pictures side by side, over white."""
    import numpy as np

    shown = ((color_srgb * alpha + (1 - alpha)).clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
    return Image.fromarray(np.hstack(list(shown)))
