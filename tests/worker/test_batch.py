from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from render.errors import InputError
from worker.batch import Batch, Caps, Listener, Made, RowResult
from worker.manifest import Planned, read_manifest


@dataclass
class Silent:
    ended_rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def began(self, row: Planned) -> None:
        pass

    def progress(self, row: Planned, stage: str, fraction: float) -> None:
        pass

    def ended(self, row: Planned, result: RowResult, *, kept: bool) -> None:
        self.ended_rows.append((row.row.id, result.state, kept))


@dataclass
class FakeMaker:
    """Prompts that begin with "bad" fail, "bug" breaks, "stop" is Ctrl-C."""

    made: list[str] = field(default_factory=list)
    hours: float = 0.0

    def make(
        self, rows: Sequence[Planned], work: Path, listener: Listener, may_start: Callable[[], str | None]
    ) -> Iterator[tuple[Planned, Made | Exception]]:
        for row in rows:
            if may_start() is not None:
                return
            text = row.row.prompt
            if text.startswith("stop"):
                raise KeyboardInterrupt
            if text.startswith("bad"):
                yield row, InputError("The picture\nis empty.")
            elif text.startswith("bug"):
                yield row, ZeroDivisionError("division by zero")
            else:
                self.made.append(text)
                folder = work / row.key
                folder.mkdir(exist_ok=True)
                (folder / "asset.glb").write_text(f"{text} {row.row.seed}")
                Image.new("RGB", (64, 64), "red").save(folder / "preview.png")
                report = {"seed": row.row.seed, "asset": {"triangles": 12, "watertight": True}}
                yield row, Made(("asset.glb", "preview.png"), report, self.hours * 3600)


def lines_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(
    tmp_path: Path, rows: list[dict[str, object]], maker: FakeMaker, **options: object
) -> dict[str, RowResult]:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    batch = Batch(read_manifest(manifest), tmp_path / "out", maker, Silent(), **options)  # type: ignore[arg-type]
    return {result.id: result for result in batch.run()}


ROWS: list[dict[str, object]] = [
    {"id": "a", "prompt": "a crate"},
    {"id": "b", "prompt": "a crate"},
    {"id": "c", "prompt": "bad thing"},
    {"id": "d", "prompt": "bug thing"},
    {"id": "e", "prompt": "a barrel", "seed": 2},
]


def test_each_asset_once_and_failures_with_reasons(tmp_path: Path):
    maker = FakeMaker()
    results = run(tmp_path, ROWS, maker)
    assert maker.made == ["a crate", "a barrel"]
    assert [results[name].state for name in "abcde"] == ["ready", "ready", "failed", "failed", "ready"]
    assert results["c"].reason == "The picture is empty."
    assert results["d"].reason == "ZeroDivisionError: division by zero"
    assert results["b"].copy_of == "a"
    out = tmp_path / "out"
    assert (out / "b" / "asset.glb").read_text() == "a crate 0"
    lines = lines_of(out)
    assert [line["id"] for line in lines] == list("abcde")
    assert lines[2]["reason"] == "The picture is empty."
    assert lines[4]["triangles"] == "12"
    with Image.open(out / "sheet-001.png") as sheet:
        assert sheet.width > 600
    assert not (out / ".batch").exists()


def test_only_what_changed_is_made_again(tmp_path: Path):
    run(tmp_path, ROWS, FakeMaker())
    maker = FakeMaker()
    changed = [{**ROWS[0], "seed": 7}, *ROWS[1:4], {**ROWS[4], "id": "e2"}]
    results = run(tmp_path, changed, maker)
    assert maker.made == ["a crate"]
    out = tmp_path / "out"
    assert (out / "a" / "asset.glb").read_text() == "a crate 7"
    assert (out / "b" / "asset.glb").read_text() == "a crate 0", "a hard link must not follow the change"
    assert results["e2"].state == "ready"


def test_an_asset_under_another_name_is_copied(tmp_path: Path):
    run(tmp_path, ROWS[:1], FakeMaker())
    maker = FakeMaker()
    results = run(tmp_path, ROWS[:2], maker)
    assert maker.made == []
    assert results["b"].copy_of == "a"


def test_contact_sheets_are_drawn_again_when_they_show_something_else(tmp_path: Path):
    run(tmp_path, ROWS[:3], FakeMaker())
    sheet = tmp_path / "out" / "sheet-001.png"
    drawn = (sheet.stat().st_ino, sheet.read_bytes())
    run(tmp_path, ROWS[:3], FakeMaker())
    assert (sheet.stat().st_ino, sheet.read_bytes()) == drawn
    run(tmp_path, [{**ROWS[0], "seed": 7}, *ROWS[1:3]], FakeMaker())
    changed = sheet.stat().st_ino
    assert changed != drawn[0]
    sheet.write_bytes(drawn[1][:100])  # damaged
    run(tmp_path, [{**ROWS[0], "seed": 7}, *ROWS[1:3]], FakeMaker())
    with Image.open(sheet) as picture:
        picture.load()
    run(tmp_path, ROWS[2:3], FakeMaker())
    assert not sheet.exists(), "nothing is ready"


def test_lost_files_are_made_again(tmp_path: Path):
    run(tmp_path, ROWS[:1], FakeMaker())
    (tmp_path / "out" / "a" / "asset.glb").unlink()
    maker = FakeMaker()
    run(tmp_path, ROWS[:1], maker)
    assert maker.made == ["a crate"]


def test_failures_are_tried_again_unless_told_otherwise(tmp_path: Path):
    run(tmp_path, ROWS[2:3], FakeMaker())
    assert run(tmp_path, ROWS[2:3], FakeMaker(), retry_failed=False)["c"].state == "failed"


def test_ctrl_c_keeps_what_is_ready(tmp_path: Path):
    rows = [*ROWS[:2], {"id": "x", "prompt": "stop here"}, ROWS[4]]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rows, FakeMaker())
    lines = lines_of(tmp_path / "out")
    assert [line["state"] for line in lines] == ["ready", "ready", "skipped", "skipped"]
    maker = FakeMaker()
    run(tmp_path, [*ROWS[:2], ROWS[4]], maker)
    assert maker.made == ["a barrel"]


def test_caps_stop_new_rows(tmp_path: Path):
    rows: list[dict[str, object]] = [{"id": f"r{i}", "prompt": f"crate {i}"} for i in range(5)]
    results = run(tmp_path, rows, FakeMaker(hours=1.0), caps=Caps(max_cost=5.0, price_per_hour=2.0))
    assert [r.state for r in results.values()] == ["ready"] * 3 + ["skipped"] * 2
    assert "cost cap of 5" in results["r4"].reason
    clock = iter(range(0, 100_000, 3000))
    results = run(
        tmp_path, [{**row, "seed": 1} for row in rows], FakeMaker(),
        caps=Caps(max_hours=2.0), clock=lambda: float(next(clock)),
    )  # fmt: skip
    assert "time cap" in results["r4"].reason
    for wrong in ({"max_cost": 1.0}, {"max_hours": 0.0}, {"price_per_hour": -1.0}):
        with pytest.raises(InputError):
            Caps(**wrong)


def test_spreadsheets_run_nothing(tmp_path: Path):
    run(tmp_path, [{"id": "a", "prompt": "=cmd()"}], FakeMaker())
    text = (tmp_path / "out" / "results.csv").read_text()
    assert "'=cmd()" in text
