"""The inside of the field's stage is kept beside its folder, and gone on from."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch

from pipeline import checkpoints as checkpoints_module
from pipeline import stages
from pipeline.checkpoints import SNAPSHOT, Checkpoints, StageOutput
from pipeline.kept_snapshot import KeptSnapshot
from pipeline.prompt import Prompt
from pipeline.source import ModelSource
from recon.fields import SeedConfig
from recon.fit import FitConfig
from recon.keeper import Snapshot
from render.errors import CanceledError
from render.progress import Progress, silent
from tests.recon.test_fields_gaussians import AZIMUTHS, ELEVATIONS, sphere_views


def snapshot(step: int = 2) -> Snapshot:
    state = torch.Generator().manual_seed(step).get_state()
    return Snapshot(step, [0.5] * step, state, {"means": torch.rand(3, 3).T}, {"steps": torch.tensor(step)})


def test_it_is_written_when_the_last_one_is_old_enough(tmp_path: Path):
    path, calls, written = tmp_path / "a.snapshot", [0], list[Path]()

    def make() -> Snapshot:
        calls[0] += 1
        return snapshot()

    slow = KeptSnapshot(path, "key", 3600.0)
    slow.offer(make)
    assert (calls, slow.load()) == ([0], None)
    quick = KeptSnapshot(path, "key", 0.0, kept=written.append)
    quick.offer(make)
    assert (calls, written) == ([1], [path])
    found = quick.load()
    assert found is not None
    assert (found.step, found.losses) == (2, [0.5, 0.5])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_another_stage_another_torch_and_damage_are_as_if_there_were_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.snapshot"
    KeptSnapshot(path, "key", 0.0).offer(snapshot)
    assert KeptSnapshot(path, "other", 0.0).load() is None
    elsewhere = KeptSnapshot(tmp_path / "b.snapshot", "key", 0.0, fetch=lambda: path).load()
    assert elsewhere is not None
    assert KeptSnapshot(path, "key", 0.0, fetch=lambda: None).load() is None
    with monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "1.0")
        assert KeptSnapshot(path, "key", 0.0).load() is None
    whole = path.read_bytes()
    for damaged in (b"", b"nothing", whole[:100], whole[:-1]):
        path.write_bytes(damaged)
        assert KeptSnapshot(path, "key", 0.0).load() is None


def test_a_write_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.snapshot"
    keeper = KeptSnapshot(path, "key", 0.0)
    keeper.offer(lambda: snapshot(1))

    def full(tensors: object, part: Path, metadata: object) -> None:
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.kept_snapshot.save_file", full)
    with pytest.raises(OSError, match="No space"):
        keeper.offer(lambda: snapshot(2))
    kept = keeper.load()
    assert kept is not None
    assert kept.step == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def field_stage(directory: Path, views: Path, progress: Progress = silent) -> StageOutput:
    """The stage as `pipeline.run_order` runs it, without a model."""
    checkpoints = Checkpoints(directory)

    def fit(out: Path) -> None:
        stages.fit_field(
            out, views, Prompt("a ball"), SeedConfig(max_gaussians=300), FitConfig(steps=8), None, 1.0, 3,
            cast(ModelSource, None), progress=progress, keeper=checkpoints.keeper(out),
        )  # fmt: skip

    return checkpoints.run("field", 1, {"seed": 3}, [], fit)


def test_a_stopped_fit_goes_on_inside_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints_module, "KEEP_EVERY_S", 0.0)
    sphere_views(AZIMUTHS[:3], ELEVATIONS[:3], 24).save(tmp_path / stages.VIEWS_FILE)
    told: list[float] = []

    def stop_at_half(fraction: float, message: str = "") -> None:
        told.append(fraction)
        if fraction >= 0.5:
            raise CanceledError("stop")

    kept = tmp_path / "out"
    with pytest.raises(CanceledError):
        field_stage(kept, tmp_path, stop_at_half)
    assert [path.suffix for path in kept.iterdir()] == [SNAPSHOT]
    again: list[float] = []
    resumed = field_stage(kept, tmp_path, lambda fraction, message="": again.append(fraction))
    assert told == [step / 8 for step in range(5)]
    assert again == [*(step / 8 for step in range(4, 8)), 1.0]
    assert [path.name for path in kept.iterdir()] == [resumed.directory.name]
    whole = field_stage(tmp_path / "whole", tmp_path)
    assert resumed.hashes == whole.hashes


def test_prune_forgets_the_inside_of_stages_that_were_never_finished(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.run("mesh", 1, {}, [], lambda out: None)
    left = tmp_path / f".field-0123456789abcdef{SNAPSHOT}"
    left.write_bytes(b"")
    checkpoints.prune()
    assert not left.exists()
