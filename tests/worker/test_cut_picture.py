"""A job's pictures become one image, in their order or by the sides that they are said to show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from pipeline.checkpoints import Checkpoints
from pipeline.picture_safety import picture_policy
from pipeline.prompt import Prompt, Side
from render.progress import silent
from worker.generation_stages import cut_picture


def test_pictures_by_order_and_by_side(tmp_path: Path) -> None:
    colors = {"image": (255, 0, 0, 255), "image2": (0, 0, 255, 255)}
    for name, color in colors.items():
        picture = Image.new("RGBA", (64, 64))
        picture.paste(color, (16, 16, 48, 48))
        picture.save(tmp_path / f"{name}.png")
    work: Any = SimpleNamespace(
        claim=SimpleNamespace(inputs={name: f"hash of {name}" for name in colors}),
        checkpoints=Checkpoints(tmp_path / "kept"),
        progress=silent,
        input=lambda name: tmp_path / f"{name}.png",
    )

    def placed(*sides: Side) -> dict[float, tuple[int, ...]]:
        prompt = Prompt(image=cut_picture(work, picture_policy(), sides))
        middle = prompt.pictures[0].height // 2
        shown = (picture.getpixel((middle, middle)) for picture in prompt.pictures)
        return dict(zip(prompt.azimuths_deg, shown, strict=True))  # type: ignore[arg-type]

    red, blue = colors.values()
    assert placed() == {0.0: red, 180.0: blue}
    assert placed("front", "left") == {0.0: red, 270.0: blue}
    assert placed("right", "front") == {0.0: blue, 90.0: red}
