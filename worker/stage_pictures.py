"""What a stage in the middle made, as a picture for those who wait: field, surface, mesh, textures.

Three sides in a row, small: each costs a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.checkpoints import StageOutput

if TYPE_CHECKING:
    import numpy as np

    from render.scene import Material, Mesh

SIDE_PX = 224
AZIMUTHS_DEG = (30.0, 150.0, 270.0)
STAGES = ("field", "surface", "mesh", "texture")


def stage_picture(stage: str, made: Mapping[str, StageOutput]) -> Image.Image | None:
    """The picture of a stage of `pipeline.run_order`, whose outputs are in `made`; None for one without."""
    match stage:
        case "field":
            return _field(made["field"])
        case "surface":
            return _clay(made["surface"], "clay")
        case "mesh":
            return _clay(made["mesh"], "wireframe")
        case "texture":
            return _textured(made["mesh"], made["texture"])
        case _:
            return None


def _field(output: StageOutput) -> Image.Image:
    """Colours of the Gaussians over white."""
    import numpy as np
    import torch

    from pipeline.stages import FIELD_FILE
    from recon.fields import load_field
    from render.cameras import orbit_cameras

    cameras = orbit_cameras(list(AZIMUTHS_DEG), [15.0] * len(AZIMUTHS_DEG), SIDE_PX)
    with torch.no_grad():
        seen = load_field(output / FIELD_FILE).render(cameras)
    color = seen.base_color_srgb if seen.base_color_srgb is not None else seen.rgb_srgb
    assert color is not None
    shown = (color * seen.alpha + (1 - seen.alpha)).clamp(0, 1)
    return _row([np.asarray((one.cpu().numpy() * 255 + 0.5).astype(np.uint8)) for one in shown])


def _clay(output: StageOutput, mode: str) -> Image.Image:
    import numpy as np

    from pipeline.artifacts import load_mesh
    from pipeline.stages import MESH_FILE
    from render.scene import Material

    grey = Material(
        np.full((1, 1, 3), 0.7, np.float32), np.zeros((1, 1), np.float32), np.full((1, 1), 0.8, np.float32)
    )
    return _rendered(load_mesh(output / MESH_FILE), grey, mode)


def _textured(mesh: StageOutput, texture: StageOutput) -> Image.Image:
    from pipeline.artifacts import load_material, load_mesh
    from pipeline.stages import MATERIAL_FILE, MESH_FILE

    return _rendered(load_mesh(mesh / MESH_FILE), load_material(texture / MATERIAL_FILE), "shaded")


def _rendered(mesh: Mesh, material: Material, mode: str) -> Image.Image:
    from typing import get_args

    import numpy as np

    from render.framing import frame_cameras
    from render.preview import Mode, PreviewRenderer
    from render.scene import Part, Scene

    scene = Scene((Part(mesh, material),))
    chosen: Mode = next(known for known in get_args(Mode) if known == mode)
    renderer = PreviewRenderer(scene, light="studio", mode=chosen, floor=False)
    cameras = frame_cameras(scene, SIDE_PX, azimuths_deg=AZIMUTHS_DEG)
    return _row([np.asarray(one) for one in renderer.render(cameras, background="#ffffff")])


def _row(pictures: list[np.ndarray]) -> Image.Image:
    row = Image.new("RGB", (SIDE_PX * len(pictures), SIDE_PX), "white")
    for number, one in enumerate(pictures):
        row.paste(Image.fromarray(one).convert("RGB"), (number * SIDE_PX, 0))
    return row
