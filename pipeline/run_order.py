"""The stages in their order, each under a key of all that it depends on.

    views -> field -> surface -> mesh -> texture -> export -> preview

A stage whose key is among what is kept is not run again (`pipeline.checkpoints`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import stages
from pipeline.checkpoints import Checkpoints, StageOutput
from pipeline.config import plain
from pipeline.observer import Observer
from pipeline.picture_safety import PicturePolicy, picture_policy
from pipeline.prompt import Prompt
from pipeline.report import Variant, prompt_warning
from pipeline.request import Request
from pipeline.source import ModelSource
from pipeline.stage_versions import VERSIONS, StageName
from render.gbuffer import ViewSet
from render.progress import Progress

VARIANTS_FILE = "variants.png"


@dataclass
class Runner:
    """The run order. Every method keeps its stage under a key of all that the stage depends on."""

    request: Request
    prompt: Prompt
    checkpoints: Checkpoints
    model: ModelSource
    observer: Observer
    screening: PicturePolicy = field(default_factory=picture_policy)
    """Judges the user's picture, what was drawn, and the finished asset."""

    def best_views(self) -> tuple[StageOutput, int, tuple[Variant, ...]]:
        """Views of every seed, the best of them, its seed, and all scores."""
        count = self.request.variants
        outputs: list[tuple[StageOutput, Variant]] = []
        for i in range(count):
            seed = self.request.seed + i

            def scaled(fraction: float, message: str = "", i: int = i) -> None:
                label = f"variant {i + 1} of {count}" if count > 1 else message
                self.observer.progress("views", (i + fraction) / count, label)

            output = self._views(seed, scaled)
            score = stages.load_drawn(output / "views.json").score
            outputs.append((output, Variant(seed, round(score, 4))))
        warning = prompt_warning(stages.load_drawn(outputs[0][0] / "views.json"), self.request.text)
        if warning:
            self.observer.warning(warning)
        # The first of equal scores, so that the choice does not hang on the sort.
        best = max(outputs, key=lambda pair: (pair[1].score, -pair[1].seed))
        self._variants_sheet(outputs)
        return best[0], best[1].seed, tuple(variant for _, variant in outputs)

    def _variants_sheet(self, outputs: list[tuple[StageOutput, Variant]]) -> None:
        if len(outputs) < 2:
            return
        from pipeline.variants import variants_sheet

        labels = [f"seed {variant.seed}: {variant.score:.3f}" for _, variant in outputs]
        sheet = variants_sheet([ViewSet.load(output / stages.DRAWN_FILE) for output, _ in outputs], labels)
        sheet.save(self.checkpoints.directory / VARIANTS_FILE)

    def make(self, views: StageOutput, seed: int) -> dict[StageName, StageOutput]:
        """All stages after the views."""
        request, preset, prompt = self.request, self.request.preset, self.prompt
        guided = (
            {"prompt": _prompt_key(request), "seed": seed, "weights": dict(self.model.weights)}
            if preset.distillation is not None
            else {"seed": seed}
        )
        fitted = self.stage(
            "field",
            {
                "seeds": plain(preset.seeds),
                "fit": plain(preset.fit),
                "distillation": plain(preset.distillation),
                "guidance_scale": preset.views.guidance_for(prompt),
                "guided": guided,
            },
            [views],
            lambda out, progress: stages.fit_field(
                out,
                views.directory,
                prompt,
                preset.seeds,
                preset.fit,
                preset.distillation,
                preset.views.guidance_for(prompt),
                seed,
                self.model,
                progress=progress,
                keeper=self.checkpoints.keeper(out),
            ),
        )
        self.model.drop()
        surface = self.stage(
            "surface",
            {"surface": plain(preset.surface)},
            [views, fitted],
            lambda out, progress: stages.surface(
                out, views.directory, fitted.directory, preset.surface, progress=progress
            ),
        )
        mesh = self.stage(
            "mesh",
            {"mesh": plain(preset.mesh), "texture_size": preset.bake.texture_size},
            [views, surface],
            lambda out, progress: stages.mesh(
                out,
                views.directory,
                surface.directory,
                preset.mesh,
                preset.bake.texture_size,
                progress=progress,
            ),
        )
        for name in (stages.LOST_FILE, stages.SYMMETRY_FILE):
            told = mesh.told(name)
            if told is not None and told["warning"]:
                self.observer.warning(told["warning"])
        texture = self.stage(
            "texture",
            {
                "bake": plain(preset.bake),
                "detail_maps": preset.package.detail_maps,
                "delight": preset.reconstruct.delight,
            },
            [views, fitted, mesh, surface],
            lambda out, progress: stages.texture(
                out,
                views.directory,
                fitted.directory,
                mesh.directory,
                preset.bake,
                surface_dir=surface.directory if preset.package.detail_maps else None,
                delight=request.views_sha256 is not None and preset.reconstruct.delight,
                progress=progress,
            ),
        )
        provenance = _provenance(request, seed, self.model.weights)
        align = preset.package.align and stages.PICTURED_FILE in views.hashes
        export = self.stage(
            "export",
            {
                "name": request.asset_name,
                "stem": request.stem,
                "height_m": self._height_m(mesh),
                "formats": list(request.formats),
                "provenance": plain(provenance),
                "package": plain(preset.package),
                "align": align,
            },
            [fitted, mesh, texture],
            lambda out, progress: stages.export_files(
                out,
                fitted.directory,
                mesh.directory,
                texture.directory,
                name=request.asset_name,
                stem=request.stem,
                height_m=self._height_m(mesh),
                formats=request.formats,
                provenance=provenance,
                package=preset.package,
                align=align,
                progress=progress,
            ),
        )
        pictures = self.stage(
            "preview",
            {
                "preview": plain(preset.preview),
                "stem": request.stem,
                "screening": self.screening.name,
                "text": request.text,
            },
            [views, export],
            lambda out, progress: stages.preview(
                out,
                views.directory,
                export / f"{request.stem}.glb",
                preset.preview,
                text=request.text,
                screening=self.screening,
                progress=progress,
            ),
        )
        return {
            "views": views,
            "field": fitted,
            "surface": surface,
            "mesh": mesh,
            "texture": texture,
            "export": export,
            "preview": pictures,
        }

    def _height_m(self, mesh: StageOutput) -> float:
        """What was asked for; of a reconstruction the height that the object has in its views' world."""
        if self.request.scale_m is None:
            return self.request.height_m
        from pipeline.artifacts import load_mesh
        from recon.asset import height_of

        return self.request.scale_m * height_of(load_mesh(mesh / stages.MESH_FILE))

    def _views(self, seed: int, progress: Progress) -> StageOutput:
        config = self.request.preset.views
        return self.stage(
            "views",
            {
                "prompt": _prompt_key(self.request),
                "views": plain(config),
                "seed": seed,
                "device": self.request.device,
                "weights": dict(self.model.weights),
                "screening": self.screening.name,
            },
            [],
            lambda out, _: stages.draw_views(
                out, self.prompt, config, seed, self.model, screening=self.screening, progress=progress
            ),
            progress,
        )

    def stage(
        self,
        name: StageName,
        params: dict[str, object],
        inputs: list[StageOutput],
        function: Callable[[Path, Progress], None],
        progress: Progress | None = None,
    ) -> StageOutput:
        def report(fraction: float, message: str = "") -> None:
            self.observer.progress(name, fraction, message)

        tell = progress or report
        tell(0.0)
        output = self.checkpoints.run(
            name,
            VERSIONS[name],
            {k: plain(v) for k, v in params.items()},
            inputs,
            lambda out: function(out, tell),
        )
        tell(1.0, "kept from before" if output.reused else "")
        return output


def _prompt_key(request: Request) -> dict[str, str | None]:
    return {"text": request.text, "negative": request.negative, "image": request.image_sha256}


def _provenance(request: Request, seed: int, weights: dict[str, str]) -> dict[str, str | int | float]:
    """What the asset says of its making: no clock, no path."""
    from importlib.metadata import version

    digest = hashlib.sha256(json.dumps(sorted(weights.items())).encode()).hexdigest()
    out: dict[str, str | int | float] = {
        "generator": f"maquette {version('maquette')}",
        "prompt": request.text,
        "seed": seed,
        "preset": request.preset.name,
        "weights": digest[:16],
    }
    if request.image_sha256 is not None:
        out["image"] = request.image_sha256[:16]
    if request.views_sha256 is not None:
        out["views"] = request.views_sha256[:16]
    if request.negative:
        out["negative"] = request.negative
    return out
