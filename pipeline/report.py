"""The report of a run, `report.json`: what the asset is like and what it cost to make."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints import StageOutput
from pipeline.config import Plain, plain
from pipeline.safety import Verdict
from pipeline.stages import DrawnViews


@dataclass(frozen=True)
class StageCost:
    """Wall time and memory of one stage."""

    name: str
    seconds: float
    peak_mb: float
    """Largest resident size of the process during the stage."""
    reused: bool
    """The stage was finished in an earlier run; the numbers are from there."""

    @staticmethod
    def of(stage: StageOutput) -> StageCost:
        return StageCost(stage.name, round(stage.seconds, 3), round(stage.peak_mb, 1), stage.reused)


@dataclass(frozen=True)
class Variant:
    """One seed that was tried."""

    seed: int
    score: float


@dataclass(frozen=True)
class Report:
    """Written as `report.json`."""

    prompt: str
    seed: int
    preset: str
    asset: dict[str, Plain]
    """`recon.inspect.Inspection`: watertight, manifold, components, triangles, UV charts, texel density...;
    and `recon.thickness.Thickness`, in metres."""
    views: DrawnViews
    fit: dict[str, Plain]
    """`recon.fit.FitReport` without the losses of its steps."""
    variants: tuple[Variant, ...]
    stages: tuple[StageCost, ...]
    total_s: float
    """Wall time of this run from the call to the files, without start-up and imports before it."""
    peak_mb: float
    files: dict[str, int]
    """Size in bytes by name."""
    warnings: tuple[str, ...]
    safety: tuple[Verdict, ...] = ()
    """What the policies said of prompt, picture, drawn views and finished asset, in this order."""
    light: dict[str, Plain] | None = None
    """`recon.delight.Light`, where it was taken out of the base colour."""
    lost: dict[str, Plain] | None = None
    """`recon.lost.Lost`: what of the views is not in the mesh, thin parts above all."""
    symmetry: dict[str, Plain] | None = None
    """`recon.symmetry.Symmetry`, where it was asked for."""
    reconstruction: dict[str, Plain] | None = None
    """Of a reconstruction: where the object was in the views' world, and how its views were read."""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(plain(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def prompt_warning(views: DrawnViews, prompt: str) -> str | None:
    """What to tell a user whose picture was recognised without a text, or whose prompt is far from what the
    model has seen; None where there is nothing to tell."""
    if views.taken_for is not None:
        return (
            f'No text was given; the picture was taken for "{views.taken_for}". '
            "If it shows something else, say what."
        )
    if views.in_domain:
        return None
    return (
        f'"{prompt}" is far from what the shipped model knows (score {views.domain_score:.2f}). '
        f"Nearest known: {', '.join(views.nearest)}. The result may not look like the prompt."
    )
