"""The pictures of a finished asset: judged by the picture policy first, then the still and the turntable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import plain
from pipeline.picture_safety import PicturePolicy, picture_policy, screen_pictures
from pipeline.preset import PreviewConfig
from pipeline.stages import SCREENING_FILE
from render.framing import frame_cameras
from render.glb import load_scene
from render.preview import PreviewRenderer
from render.progress import Progress, part_of, silent
from render.turntable import TurntableConfig, turntable

_SCREENED_PX = 224


def asset_pictures(
    out: Path,
    glb: Path,
    config: PreviewConfig,
    *,
    text: str = "",
    screening: PicturePolicy | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `preview.png` and `turntable.mp4` of a GLB as a user gets it, and `screening.json`: what the
    policy `screening` (default: the offline one) says of four sides. `RefusedError` when it refuses them."""
    scene = load_scene(glb)
    renderer = PreviewRenderer(scene, light=config.environment)
    cameras = frame_cameras(scene, _SCREENED_PX, azimuths_deg=(35.0, 125.0, 215.0, 305.0))
    shown = [Image.fromarray(np.asarray(side)) for side in renderer.render(cameras, background="#ffffff")]
    verdict = screen_pictures(screening or picture_policy(), shown, "asset", text)
    (out / SCREENING_FILE).write_text(json.dumps(plain(verdict), indent=1), encoding="utf-8")
    progress(0.1, "preview")
    still = renderer.render(frame_cameras(scene, config.size_px), background="gradient")
    Image.fromarray(still[0]).save(out / "preview.png")
    if config.turntable_frames:
        turntable(
            scene,
            [out / "turntable.mp4"],
            TurntableConfig(
                frames=config.turntable_frames,
                size_px=config.turntable_size_px,
                fps=config.frames_per_second,
                environment=config.environment,
            ),
            renderer=renderer,
            progress=part_of(progress, 0.28, 1),
        )
