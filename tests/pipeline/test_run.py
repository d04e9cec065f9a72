"""The run order with stages that only write their names: what is kept, redone, published, refused."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from pipeline import run as run_module
from pipeline import run_order, stages
from pipeline.consistency import Consistency
from pipeline.observer import Unobserved
from pipeline.preset import MeshConfig, Preset
from pipeline.replay import replay
from pipeline.run import generate, last_request, resume
from pipeline.safety import RefusedError, Verdict
from pipeline.stages import DrawnViews
from render.errors import CanceledError, InputError
from tests.pipeline.picture_plugin import NoRed

NAMES = ["views", "field", "surface", "mesh", "texture", "export", "preview"]


class Fakes:
    """Stage functions that write what they were given, and a log of their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stop_at: str | None = None
        self.error: BaseException = KeyboardInterrupt()
        self.score: dict[int, float] = {}
        self.in_domain = True

    def call(self, name: str) -> None:
        self.calls.append(name)
        if self.stop_at == name:
            raise self.error

    def views(self, out: Path, prompt: Any, config: Any, seed: int, model: Any, **given: Any) -> None:
        self.call("views")
        (out / stages.VIEWS_FILE).write_text(f"{prompt.text} {seed} {config}")
        score = Consistency(1.0, self.score.get(seed, 0.5), 1.0)
        drawn = DrawnViews(score, 0.3, ("barrel", "crate"), self.in_domain)
        (out / "views.json").write_text(json.dumps(stages.plain(drawn)))

    def field(self, out: Path, views: Path, *given: Any, progress: Any, keeper: Any) -> None:
        self.call("field")
        (out / stages.FIELD_FILE).write_text((views / stages.VIEWS_FILE).read_text())
        (out / "fit.json").write_text("{}")

    def surface(self, out: Path, views: Path, field: Path, config: Any, *, progress: Any) -> None:
        self.call("surface")
        (out / stages.MESH_FILE).write_text((field / stages.FIELD_FILE).read_text())

    def mesh(self, out: Path, views: Path, surface: Path, config: Any, size: int, *, progress: Any) -> None:
        self.call("mesh")
        (out / stages.MESH_FILE).write_text((surface / stages.MESH_FILE).read_text() + f"{config} {size}")

    def texture(self, out: Path, views: Path, field: Path, mesh: Path, config: Any, **given: Any) -> None:
        self.call("texture")
        (out / stages.MATERIAL_FILE).write_text((mesh / stages.MESH_FILE).read_text())

    def export(self, out: Path, field: Path, mesh: Path, texture: Path, *, stem: str, **given: Any) -> None:
        self.call("export")
        del given["progress"]
        for name in dict.fromkeys(("glb", *given["formats"])):
            (out / f"{stem}.{name}").write_text((texture / stages.MATERIAL_FILE).read_text() + str(given))
        (out / "inspection.json").write_text('{"watertight": true}')

    def preview(self, out: Path, views: Path, glb: Path, config: Any, **given: Any) -> None:
        self.call("preview")
        verdict = Verdict(True, given["screening"].name, subject="asset")
        (out / stages.SCREENING_FILE).write_text(json.dumps(stages.plain(verdict)))
        (out / "preview.png").write_text(glb.read_text())


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()
    for name, function in {
        "draw_views": made.views,
        "fit_field": made.field,
        "surface": made.surface,
        "mesh": made.mesh,
        "texture": made.texture,
        "export_files": made.export,
        "preview": made.preview,
    }.items():
        monkeypatch.setattr(stages, name, function)
    monkeypatch.setattr("pipeline.variants.variants_sheet", lambda sets, labels: Image.new("RGB", (8, 8)))
    monkeypatch.setattr(run_order.ViewSet, "load", staticmethod(lambda path: None))
    return made


class Recorder(Unobserved):
    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self.warnings: list[str] = []

    def progress(self, stage: str, fraction: float, message: str) -> None:
        self.seen.append((stage, fraction))

    def warning(self, message: str) -> None:
        self.warnings.append(message)


def make(out: Path, model: Any, **options: Any) -> Any:
    return generate("a barrel", out=out, model=model, **{"preset": Preset(), **options})


def test_files_report_and_receipt(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    observer = Recorder()
    result = make(tmp_path / "Old Barrel", barrel_pipeline, formats=("glb", "obj"), observer=observer)
    assert fakes.calls == NAMES
    assert sorted(result.files) == [
        "old-barrel.glb",
        "old-barrel.obj",
        "preview.png",
        "receipt.json",
        "report.json",
    ]
    assert all(path.is_file() for path in result.files.values())
    visible = {path.name for path in result.directory.iterdir() if not path.name.startswith(".")}
    assert visible == set(result.files)
    assert result.glb == result.directory / "old-barrel.glb"
    report = json.loads((result.directory / "report.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == NAMES
    assert report["asset"] == {"watertight": True}
    assert list(dict.fromkeys(stage for stage, _ in observer.seen)) == NAMES
    assert observer.seen[-1] == ("preview", 1.0)


def test_only_what_depends_on_the_change_is_redone(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    def again(**options: Any) -> list[str]:
        fakes.calls.clear()
        make(tmp_path / "out", barrel_pipeline, **options)
        return fakes.calls.copy()

    assert again() == NAMES
    assert again() == []
    assert again(polycount=2000) == ["mesh", "texture", "export", "preview"]
    assert again(polycount=2000, height_m=2.0) == ["export", "preview"]
    assert again(polycount=2000, height_m=2.0, texture_size=512) == ["mesh", "texture", "export", "preview"]
    assert again(seed=5) == NAMES


def test_formats_without_glb_publish_none_and_old_files_go(
    tmp_path: Path, fakes: Fakes, barrel_pipeline: Any
):
    first = make(tmp_path / "out", barrel_pipeline)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    second = make(tmp_path / "out", barrel_pipeline, formats=("obj",))
    assert first.glb is not None
    assert not first.glb.exists()
    assert second.glb is None
    assert (tmp_path / "out" / "out.obj").is_file()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_file_that_the_user_changed_is_not_removed(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    make(tmp_path / "out", barrel_pipeline)
    (tmp_path / "out" / "out.glb").write_text("edited in Blender")
    make(tmp_path / "out", barrel_pipeline, formats=("obj",))
    assert (tmp_path / "out" / "out.glb").read_text() == "edited in Blender"


@pytest.mark.parametrize("stage", NAMES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), CanceledError("stop"), RuntimeError("bug")])
def test_a_stopped_run_goes_on_and_the_old_result_stays(
    tmp_path: Path, fakes: Fakes, barrel_pipeline: Any, stage: str, error: BaseException
):
    out = tmp_path / "out"
    make(out, barrel_pipeline)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    fakes.stop_at, fakes.error = stage, error
    fakes.calls.clear()
    with pytest.raises(type(error)):
        make(out, barrel_pipeline, seed=7, polycount=3000)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    fakes.stop_at = None
    fakes.calls.clear()
    request, image = last_request(out)
    assert (request.seed, request.preset.mesh, image) == (7, MeshConfig(3000), None)
    resumed = resume(out, model=barrel_pipeline)
    assert fakes.calls == NAMES[NAMES.index(stage) :]
    fresh = make(tmp_path / "fresh" / "out", barrel_pipeline, seed=7, polycount=3000)
    assert resumed.receipt.outputs == fresh.receipt.outputs


def test_variants_keep_the_best_and_replay_needs_only_it(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    fakes.score = {3: 0.4, 4: 0.9, 5: 0.6}
    result = make(tmp_path / "out", barrel_pipeline, seed=3, variants=3)
    assert fakes.calls == ["views"] * 3 + NAMES[1:]
    assert [(variant.seed, variant.score) for variant in result.report.variants] == [
        (3, 0.4),
        (4, 0.9),
        (5, 0.6),
    ]
    assert (result.report.seed, result.receipt.request.seed, result.receipt.request.variants) == (4, 4, 1)
    assert (tmp_path / "out" / "variants.png").is_file()
    fakes.calls.clear()
    replayed = replay(tmp_path / "out" / "receipt.json", tmp_path / "again", model=barrel_pipeline)
    assert fakes.calls == NAMES
    assert replayed.same == {"out.glb": True, "preview.png": True}
    assert replayed.changes == []


def test_replay_says_what_differs(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    make(tmp_path / "out", barrel_pipeline)
    receipt = json.loads((tmp_path / "out" / "receipt.json").read_text())
    receipt["outputs"]["out.glb"] = "0" * 64
    receipt["environment"]["versions"]["torch"] = "1.0"
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    replayed = replay(tmp_path / "receipt.json", tmp_path / "again", model=barrel_pipeline)
    assert replayed.same == {"out.glb": False, "preview.png": True}
    assert [line for line in replayed.changes if line.startswith("torch was 1.0, is ")]


def test_replay_refuses_the_folder_of_the_receipt(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    make(tmp_path / "out", barrel_pipeline)
    with pytest.raises(InputError, match="replay into another one"):
        replay(tmp_path / "out" / "receipt.json", tmp_path / "out", model=barrel_pipeline)


def test_an_image_is_saved_resumed_and_replayed(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    picture = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(picture).ellipse([60, 50, 140, 150], fill=(120, 60, 20))
    picture.save(tmp_path / "photo.png")
    result = generate(
        "", image=tmp_path / "photo.png", out=tmp_path / "out", model=barrel_pipeline, preset=Preset()
    )
    with Image.open(result.files["input.png"]) as saved:
        assert (saved.mode, saved.width) == ("RGBA", saved.height)
    request, image = last_request(tmp_path / "out")
    assert image is not None
    assert run_module.image_sha256(image) == request.image_sha256
    replayed = replay(tmp_path / "out" / "receipt.json", tmp_path / "again", model=barrel_pipeline)
    assert all(replayed.same.values())
    Image.new("RGBA", (125, 125), "red").save(tmp_path / "out" / "input.png")
    with pytest.raises(InputError, match="is not the image"):
        replay(tmp_path / "out" / "receipt.json", tmp_path / "other", model=barrel_pipeline)


def test_a_prompt_far_from_the_model_warns_and_runs(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    fakes.in_domain = False
    observer = Recorder()
    result = make(tmp_path / "out", barrel_pipeline, observer=observer)
    assert len(observer.warnings) == 1
    assert "barrel, crate" in observer.warnings[0]
    assert result.report.warnings == tuple(observer.warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be between"),
        ({"seed": 2**63}, "seed must be between"),
        ({"variants": 0}, "variants must be between"),
        ({"height_m": 0.0}, "height_m must be between"),
        ({"height_m": float("nan")}, "height_m must be between"),
        ({"polycount": 1}, r"mesh\.polycount must be between"),
        ({"texture_size": 1}, r"bake\.texture_size is 1"),
        ({"formats": ()}, "formats must name"),
        ({"formats": ("dae",)}, "'dae' is unknown. Known: glb"),
        ({"formats": ("glb", "glb")}, "names one twice"),
        ({"preset": "great"}, "Unknown preset 'great'. Known: draft, standard, high"),
        ({"preset": "none.yaml"}, "no settings file none.yaml"),
        ({"image": "none.png"}, "There is no image none.png"),
    ],
)
def test_bad_requests_make_nothing(
    tmp_path: Path, fakes: Fakes, barrel_pipeline: Any, options: Any, message: str
):
    with pytest.raises(InputError, match=message):
        make(tmp_path / "out", barrel_pipeline, **options)
    assert fakes.calls == []


def test_no_cuda(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        make(tmp_path / "out", barrel_pipeline, device="cuda")


def test_out_that_is_a_file_or_cannot_be_made(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give a folder"):
        make(tmp_path / "file", barrel_pipeline)
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        make(tmp_path / "file" / "below", barrel_pipeline)
    with pytest.raises(InputError, match="cannot be written"):
        make(Path("/proc/none"), barrel_pipeline)


def test_no_space_before_the_run(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any, monkeypatch: Any):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1024))
    with pytest.raises(InputError, match="No space left"):
        make(tmp_path / "out", barrel_pipeline)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_no_space_during_the_run(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any, error: Exception):
    fakes.stop_at, fakes.error = "texture", error
    with pytest.raises(InputError, match=r"No space left on the device of .* go on with --resume"):
        make(tmp_path / "out", barrel_pipeline)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".stages"]


def test_two_runs_in_one_folder(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any, monkeypatch: Any):
    inner: list[str] = []

    def second(*given: Any, **named: Any) -> None:
        with pytest.raises(InputError, match="Another run is writing"):
            make(tmp_path / "out", barrel_pipeline)
        inner.append("refused")
        fakes.surface(*given, **named)

    monkeypatch.setattr(stages, "surface", second)
    make(tmp_path / "out", barrel_pipeline)
    assert inner == ["refused"]


def test_resume_takes_changes(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    make(tmp_path / "out", barrel_pipeline, seed=3, polycount=2000)
    fakes.calls.clear()
    result = resume(tmp_path / "out", model=barrel_pipeline, texture_size=256, height_m=3.0)
    assert fakes.calls == ["mesh", "texture", "export", "preview"]
    request = result.receipt.request
    assert (request.seed, request.preset.mesh.polycount, request.preset.bake.texture_size) == (3, 2000, 256)
    fakes.calls.clear()
    assert resume(tmp_path / "out", "a crate", model=barrel_pipeline).receipt.request.text == "a crate"
    assert fakes.calls == NAMES


def test_nothing_to_resume(tmp_path: Path):
    with pytest.raises(InputError, match="nothing to resume"):
        resume(tmp_path)


def test_the_library_needs_no_submodule():
    import pipeline

    assert pipeline.generate is generate
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipeline.nothing


@pytest.mark.parametrize("name", [".stages", ".stages/lock"])
def test_something_else_in_the_place_of_the_stages(tmp_path: Path, name: str) -> None:
    from pipeline.output_directory import locked_stages

    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    if name == ".stages":
        place.write_text("a file")
    else:
        place.mkdir()
    with pytest.raises(InputError, match="cannot be used for the stages"), locked_stages(tmp_path):
        pass
    assert place.exists()


def test_a_foreign_request_is_named(tmp_path: Path) -> None:
    (tmp_path / ".stages").mkdir()
    (tmp_path / ".stages" / "request.json").write_text("[]")
    with pytest.raises(InputError, match="is not of this version"):
        last_request(tmp_path)


def test_another_picture_policy_looks_at_all_again(tmp_path: Path, fakes: Fakes, barrel_pipeline: Any):
    result = make(tmp_path, barrel_pipeline, screening=NoRed(0.5))
    assert [(one.subject, one.policy) for one in result.report.safety] == [("asset", "no-red-1 0.5")]
    assert stages.SCREENING_FILE not in result.files
    fakes.calls.clear()
    make(tmp_path, barrel_pipeline, screening=NoRed(0.5))
    assert fakes.calls == []
    make(tmp_path, barrel_pipeline, screening=NoRed(0.4))
    assert fakes.calls == ["views", "preview"]
    # What the last run delivered stays when the next is refused at its end.
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
    fakes.stop_at = "preview"
    fakes.error = RefusedError(Verdict(False, "p", "gore", "it is", 1.0, subject="asset"))
    with pytest.raises(RefusedError, match="Another prompt or seed may pass"):
        make(tmp_path, barrel_pipeline, screening=NoRed(0.3))
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
