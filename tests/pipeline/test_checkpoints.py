from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from pipeline.checkpoints import Checkpoints, file_sha256, peak_memory_mb, publish, reset_peak_memory
from render.errors import InputError


class Counting:
    """A stage that writes its text and counts its calls."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls = 0

    def __call__(self, out: Path) -> None:
        self.calls += 1
        (out / "data.txt").write_text(self.text)


def test_a_finished_stage_is_not_done_again(tmp_path: Path):
    stage = Counting("one")
    first = Checkpoints(tmp_path).run("views", 1, {"seed": 1}, [], stage)
    again = Checkpoints(tmp_path).run("views", 1, {"seed": 1}, [], stage)
    assert stage.calls == 1
    assert (again / "data.txt").read_text() == "one"
    assert (first.reused, again.reused) == (False, True)
    assert again.hashes == first.hashes == {"data.txt": file_sha256(first / "data.txt")}


@pytest.mark.parametrize(
    ("version", "params"), [(2, {"seed": 1}), (1, {"seed": 2}), (1, {"seed": 1, "more": None})]
)
def test_another_version_or_parameter_is_another_stage(
    tmp_path: Path, version: int, params: dict[str, object]
):
    stage = Counting("one")
    Checkpoints(tmp_path).run("views", 1, {"seed": 1}, [], stage)
    Checkpoints(tmp_path).run("views", version, params, [], stage)
    assert stage.calls == 2


def test_only_what_depends_on_changed_content_is_redone(tmp_path: Path):
    def chain(views: str, field: str, seed: int) -> list[bool]:
        checkpoints = Checkpoints(tmp_path)
        a = checkpoints.run("views", 1, {"seed": seed}, [], Counting(views))
        b = checkpoints.run("field", 1, {}, [a], Counting(field))
        c = checkpoints.run("mesh", 1, {}, [b], Counting("mesh"))
        return [a.reused, b.reused, c.reused]

    assert chain("v", "f", 1) == [False, False, False]
    # Another seed that draws the same bytes: what follows stays.
    assert chain("v", "f", 2) == [False, True, True]
    assert chain("w", "f", 3) == [False, False, True]


@pytest.mark.parametrize("damage", ["cut", "gone", "record"])
def test_a_damaged_stage_is_done_again(tmp_path: Path, damage: str):
    stage = Counting("one")
    kept = Checkpoints(tmp_path).run("views", 1, {}, [], stage)
    match damage:
        case "cut":
            (kept / "data.txt").write_text("on")
        case "gone":
            (kept / "data.txt").unlink()
        case _:
            (kept / "stage.json").write_text("{")
    again = Checkpoints(tmp_path).run("views", 1, {}, [], stage)
    assert (stage.calls, (again / "data.txt").read_text()) == (2, "one")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_stage_that_stops_leaves_nothing_under_its_name(tmp_path: Path, error: type[BaseException]):
    def stops(out: Path) -> None:
        (out / "half.txt").write_text("half")
        raise error

    with pytest.raises(error):
        Checkpoints(tmp_path).run("views", 1, {}, [], stops)
    assert list(tmp_path.iterdir()) == []


def test_prune_keeps_what_the_run_used(tmp_path: Path):
    Checkpoints(tmp_path).run("views", 1, {"seed": 1}, [], Counting("old"))
    checkpoints = Checkpoints(tmp_path)
    kept = checkpoints.run("views", 1, {"seed": 2}, [], Counting("new"))
    (tmp_path / "request.json").write_text("{}")
    checkpoints.prune()
    assert {path.name for path in tmp_path.iterdir()} == {kept.directory.name, "request.json"}


def test_publish_replaces_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made, out = tmp_path / "made", tmp_path / "out"
    for folder, text in ((made, "new"), (out, "old")):
        folder.mkdir()
        for name in ("a.glb", "b.png"):
            (folder / name).write_text(text)
    files = {name: made / name for name in ("a.glb", "b.png")}

    copies = []

    def full_disk(source: Path, target: Path) -> None:
        copies.append(target)
        Path(target).write_text("ha")
        if len(copies) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full_disk)
        with pytest.raises(OSError, match="No space left"):
            publish(files, out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a.glb": "old", "b.png": "old"}
    publish(files, out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a.glb": "new", "b.png": "new"}


def test_publish_over_a_folder(tmp_path: Path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "out" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="is a folder"):
        publish({"a": tmp_path / "a"}, tmp_path / "out")


def test_peak_memory_sees_an_allocation():
    reset_peak_memory()
    before = peak_memory_mb()
    block = bytearray(64 * 1024**2)
    block[::4096] = b"x" * len(block[::4096])
    assert 60 < peak_memory_mb() - before < 80
