"""A kind of job whose one stage is the real fit, on a few small views: what resumes inside a stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.config import build, plain
from worker.kinds import Plan, PlannedStage

if TYPE_CHECKING:
    from worker.runner import Work


@dataclass(frozen=True)
class FitParams:
    """What to fit."""

    steps: int = 40
    step_s: float = 0.0
    """Waited before every step."""
    log: str = ""
    """A file that gets a line for each step that is begun; also the job's identity."""
    device: str | None = None


@dataclass
class FitProbe:
    """See the module."""

    name: str = "fit"

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        asked = build(FitParams, dict(params))
        return Plan(cast(dict[str, Any], plain(asked)), 0, (PlannedStage("field", "gpu", 1.0),))

    def run(self, stage: str, work: Work) -> None:
        from pipeline import stages
        from pipeline.prompt import Prompt
        from recon.fields import SeedConfig
        from recon.fit import FitConfig
        from tests.recon.test_fields_gaussians import AZIMUTHS, ELEVATIONS, sphere_views

        params = build(FitParams, work.claim.params)
        work.checkpoints.order = ("field",)
        sphere_views(AZIMUTHS[:3], ELEVATIONS[:3], 24).save(work.directory / stages.VIEWS_FILE)

        def tell(fraction: float, message: str = "") -> None:
            work.progress(fraction, message)
            if message == "fitting":
                with Path(params.log).open("a") as file:
                    file.write(f"{round(fraction * params.steps)}\n")
                time.sleep(params.step_s)

        def fit(out: Path) -> None:
            stages.fit_field(
                out, work.directory, Prompt("a ball"), SeedConfig(max_gaussians=300),
                FitConfig(steps=params.steps), None, 1.0, 0, cast(Any, None),
                progress=tell, keeper=work.checkpoints.keeper(out),
            )  # fmt: skip

        output = work.checkpoints.run("field", 1, {"steps": params.steps, "log": params.log}, [], fit)
        work.deliver(output / stages.FIELD_FILE, "asset")


FIT = FitProbe()
