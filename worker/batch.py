"""A manifest's rows to assets in a folder: each different one once, only what changed, in any number of goes.

    OUT/<id>/            the files of a row, and row.json: what it was made from and how it went
    OUT/results.csv      one line a row, in the manifest's order
    OUT/sheet-001.png    contact sheets of what is ready, 60 a page

A row is done when its `row.json` has the key of what the manifest asks for now, and its files are there. The
maker (`Maker`) makes one asset into a folder: in this process, or by a service (`worker.batch_remote`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pipeline.output_directory import checked_directory
from render.errors import CanceledError, InputError
from worker.manifest import Planned

RECORD = "row.json"
RESULTS = "results.csv"
WORK = ".batch"
"""Folder of assets that are being made."""
SHEET_CELLS = 60
SHOWS = "maquette-rows"
"""Text in a contact sheet's file: the hash of what it shows."""
State = Literal["ready", "failed", "skipped"]


@dataclass(frozen=True)
class RowResult:
    """How a row went; `row.json` and a line of `results.csv`."""

    id: str
    key: str
    state: State
    reason: str = ""
    """Why it failed or was skipped."""
    prompt: str = ""
    image: str = ""
    preset: str = ""
    seed: int = 0
    """That was kept."""
    triangles: int | None = None
    watertight: bool | None = None
    seconds: float = 0.0
    """Work that went into it; of a copy none."""
    copy_of: str = ""
    """The row that asked for the same."""
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """An asset that is there: its files lie in the folder that the maker was given."""

    files: tuple[str, ...]
    report: Mapping[str, Any]
    seconds: float


@runtime_checkable
class Listener(Protocol):
    """Who is told how a batch goes."""

    def began(self, row: Planned) -> None: ...
    def progress(self, row: Planned, stage: str, fraction: float) -> None:
        """May raise `CanceledError`."""
        ...

    def ended(self, row: Planned, result: RowResult, *, kept: bool) -> None:
        """`kept`: it was there already."""
        ...


class Maker(Protocol):
    """Makes assets. `make` answers them as they get ready, each made or the reason why not."""

    def make(
        self, rows: Sequence[Planned], work: Path, listener: Listener, may_start: Callable[[], str | None]
    ) -> Iterator[tuple[Planned, Made | Exception]]:
        """Files go to `work/<key>/`. Before it starts a row it asks `may_start`, which gives a reason to
        stop; rows that were not started are left out."""
        ...


@dataclass(frozen=True)
class Caps:
    """When to stop starting rows. What is in the making is finished."""

    max_hours: float | None = None
    """Of wall clock."""
    max_cost: float | None = None
    price_per_hour: float = 0.0
    """Of work, in the currency of `max_cost`."""

    def __post_init__(self) -> None:
        if self.max_hours is not None and not 0 < self.max_hours <= 10_000:
            raise InputError(f"max_hours must be between 0 and 10000, not {self.max_hours:g}.")
        if self.max_cost is not None and self.max_cost <= 0:
            raise InputError(f"max_cost must be above 0, not {self.max_cost:g}.")
        if self.price_per_hour < 0:
            raise InputError(f"price_per_hour must not be negative, not {self.price_per_hour:g}.")
        if self.max_cost is not None and self.price_per_hour == 0:
            raise InputError("max_cost needs price_per_hour, the price of an hour of work.")


@dataclass
class Batch:
    """One go at a manifest."""

    rows: Sequence[Planned]
    out: Path
    maker: Maker
    listener: Listener
    caps: Caps = field(default_factory=Caps)
    retry_failed: bool = True
    """Rows that failed before are tried again."""
    clock: Callable[[], float] = time.monotonic
    worked_s: float = 0.0

    def run(self) -> list[RowResult]:
        """Makes what is missing; the results in the manifest's order. A row's failure ends no other.

        `CanceledError` (Ctrl-C) passes after results and sheets are written.
        """
        out = checked_directory(self.out)
        started = self.clock()
        results: dict[str, RowResult] = {}
        missing: dict[str, list[Planned]] = {}
        for row in self.rows:
            known = recorded(out, row)
            if known is not None and (known.state == "ready" or not self.retry_failed):
                results[row.row.id] = known
                self.listener.ended(row, known, kept=True)
            else:
                missing.setdefault(row.key, []).append(row)
        # The same asset may lie under another row's name since an earlier go, even one that was renamed.
        earlier = ready_by_key(out) if missing else {}
        for key in list(missing):
            if key in earlier:
                for row in missing.pop(key):
                    self._settle(row, _copied(out, earlier[key], row), results)

        def may_start() -> str | None:
            if self.caps.max_hours is not None and self.clock() - started > self.caps.max_hours * 3600:
                return f"the time cap of {self.caps.max_hours:g} h was reached"
            cost = self.worked_s / 3600 * self.caps.price_per_hour
            if self.caps.max_cost is not None and cost >= self.caps.max_cost:
                return f"the cost cap of {self.caps.max_cost:g} was reached"
            return None

        work = out / WORK
        try:
            work.mkdir(exist_ok=True)
            first_rows = [rows[0] for rows in missing.values()]
            for first, made in self.maker.make(first_rows, work, self.listener, may_start):
                rows = missing.pop(first.key)
                self._take(first, made, rows, work, results)
        finally:
            reason = may_start() or "stopped before its turn"
            for rows in missing.values():
                for row in rows:
                    results[row.row.id] = _result(row, "skipped", reason)
            ordered = [results[row.row.id] for row in self.rows]
            write_results(out, ordered)
            write_sheets(out, ordered)
        shutil.rmtree(work, ignore_errors=True)
        return ordered

    def _take(
        self,
        first: Planned,
        made: Made | Exception,
        rows: Sequence[Planned],
        work: Path,
        results: dict[str, RowResult],
    ) -> None:
        """An asset that was made, or not, to every row that asked for it."""
        if isinstance(made, Exception):
            reason = " ".join(str(made).split()) or type(made).__name__
            if not isinstance(made, InputError):
                reason = f"{type(made).__name__}: {reason}"
            for row in rows:
                self._settle(row, _result(row, "failed", reason[:400]), results)
            return
        self.worked_s += made.seconds
        asset = made.report.get("asset", {})
        result = _result(
            first,
            "ready",
            seed=int(made.report.get("seed", first.row.seed)),
            triangles=asset.get("triangles"),
            watertight=asset.get("watertight"),
            seconds=round(made.seconds, 2),
            warnings=tuple(made.report.get("warnings", ())),
            files=tuple(sorted(made.files)),
        )
        _publish(work / first.key, self.out / first.row.id, result)
        self._settle(first, result, results)
        for row in rows[1:]:
            self._settle(row, _copied(self.out, result, row), results)

    def _settle(self, row: Planned, result: RowResult, results: dict[str, RowResult]) -> None:
        if result.state == "failed":
            folder = self.out / row.row.id
            folder.mkdir(exist_ok=True)
            _save_record(folder, result)
        results[row.row.id] = result
        self.listener.ended(row, result, kept=False)


def recorded(out: Path, row: Planned) -> RowResult | None:
    """What an earlier go made of the row as it is now; None when nothing, or its files are gone."""
    result = _read_record(out / row.row.id)
    return result if result is not None and result.key == row.key else None


def ready_by_key(out: Path) -> dict[str, RowResult]:
    """Whole assets of earlier goes by what they were made from."""
    found: dict[str, RowResult] = {}
    for path in sorted(out.glob(f"*/{RECORD}")):
        result = _read_record(path.parent)
        if result is not None and result.state == "ready":
            found.setdefault(result.key, result)
    return found


def _read_record(folder: Path) -> RowResult | None:
    """A row's record, when all its files are there."""
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        result = RowResult(
            **{**data, "warnings": tuple(data["warnings"]), "files": tuple(data["files"]), "id": folder.name}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if all((folder / name).is_file() for name in result.files) else None


def _result(row: Planned, state: State, reason: str = "", **more: Any) -> RowResult:
    asked = row.row
    return RowResult(
        id=asked.id, key=row.key, state=state, reason=reason, prompt=asked.prompt, image=asked.image or "",
        preset=asked.preset, **{"seed": asked.seed, **more},
    )  # fmt: skip


def _copied(out: Path, source: RowResult, row: Planned) -> RowResult:
    """The same asset for another row: hard links where the disk knows them."""
    part = out / WORK / f"copy-{row.row.id}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in source.files:
        try:
            os.link(out / source.id / name, part / name)
        except OSError:
            shutil.copyfile(out / source.id / name, part / name)
    result = RowResult(
        **{**asdict(source), "id": row.row.id, "image": row.row.image or "", "seconds": 0.0,
           "copy_of": source.copy_of or source.id, "warnings": source.warnings, "files": source.files}
    )  # fmt: skip
    _publish(part, out / row.row.id, result)
    return result


def _publish(made: Path, folder: Path, result: RowResult) -> None:
    """A finished folder to its name: the record comes last, so a row with a record is whole."""
    folder.mkdir(exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    kept = {*result.files, RECORD}
    for name in result.files:
        (made / name).replace(folder / name)
    for path in folder.iterdir():
        # Of the asset that this row asked for before.
        if path.is_file() and path.name not in kept:
            path.unlink()
    _save_record(folder, result)
    shutil.rmtree(made, ignore_errors=True)


def _save_record(folder: Path, result: RowResult) -> None:
    part = folder / f".{RECORD}.part"
    part.write_text(json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / RECORD)


COLUMNS = (
    "id", "state", "reason", "prompt", "image", "preset", "seed", "triangles", "watertight", "seconds",
    "copy_of", "warnings", "files",
)  # fmt: skip


def write_results(out: Path, results: Iterable[RowResult]) -> None:
    """`results.csv`."""
    part = out / f".{RESULTS}.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for result in results:
            values = asdict(result)
            for name in ("warnings", "files"):
                values[name] = "; ".join(values[name])
            writer.writerow([_cell(values[name]) for name in COLUMNS])
    part.replace(out / RESULTS)


def _cell(value: Any) -> Any:
    """Spreadsheets run text that begins like a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value


def write_sheets(out: Path, results: Sequence[RowResult]) -> None:
    """Contact sheets of the rows that have a picture, 60 a page; pages of an earlier go are replaced, unless
    they show the same."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from render.contact_sheet import sheet

    shown = [r for r in results if r.state == "ready" and (out / r.id / "preview.png").is_file()]
    pages = [shown[start : start + SHEET_CELLS] for start in range(0, len(shown), SHEET_CELLS)]
    for number, page in enumerate(pages, 1):
        path = out / f"sheet-{number:03d}.png"
        times = [(out / result.id / "preview.png").stat().st_mtime_ns for result in page]
        described = json.dumps([number, len(pages), [result.id for result in page], times])
        shows = hashlib.sha256(described.encode()).hexdigest()
        if _shown(path) == shows:
            continue
        pictures = []
        for result in page:
            with Image.open(out / result.id / "preview.png") as picture:
                size, how = (192, 192), Image.Resampling.LANCZOS
                pictures.append(picture.convert("RGB").resize(size, how, reducing_gap=3.0))
        title = f"{number} of {len(pages)}" if len(pages) > 1 else ""
        part = out / f".sheet-{number:03d}.part"
        info = PngInfo()
        info.add_text(SHOWS, shows)
        drawn = sheet(pictures, [result.id for result in page], 10, cell_px=192, title=title)
        drawn.save(part, format="PNG", pnginfo=info)
        part.replace(path)
    for old in out.glob("sheet-[0-9][0-9][0-9].png"):
        if int(old.stem[6:]) > len(pages):
            old.unlink()


def _shown(path: Path) -> str | None:
    """What an earlier go wrote into a contact sheet about its rows."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.info.get(SHOWS)
    except (OSError, UnidentifiedImageError):
        return None


class LocalMaker:
    """Makes assets in this process, one after the other, with the model loaded once."""

    def __init__(self, device: Literal["auto", "cpu", "cuda"] = "auto") -> None:
        self.device = device

    def make(
        self, rows: Sequence[Planned], work: Path, listener: Listener, may_start: Callable[[], str | None]
    ) -> Iterator[tuple[Planned, Made | Exception]]:
        from worker.warm import Models

        models = Models()
        for row in rows:
            if may_start() is not None:
                return
            listener.began(row)
            began = time.perf_counter()
            try:
                files, report = self._one(row, work / row.key, models, listener)
            except (CanceledError, KeyboardInterrupt):
                raise
            except Exception as error:  # a row's bug must not end the night's work
                yield row, error
                continue
            yield row, Made(files, report, time.perf_counter() - began)

    def _one(
        self, row: Planned, folder: Path, models: Any, listener: Listener
    ) -> tuple[tuple[str, ...], Mapping[str, Any]]:
        from pipeline.config import plain
        from pipeline.picture_safety import picture_policy
        from pipeline.preset import load_preset
        from pipeline.prompt import Prompt
        from pipeline.request import Request, checked_formats, slug
        from pipeline.run import image_sha256, prepare_image, resolved_device, run, with_changes
        from worker.settings import load_settings

        asked = row.row
        preset = with_changes(
            load_preset(asked.preset), polycount=asked.polycount, texture_size=asked.texture_size
        )
        settings = load_settings()
        screening = picture_policy(settings.picture_policy, settings.known_pictures)
        picture = prepare_image(row.image, screening)
        prompt = Prompt(asked.prompt, picture, asked.negative)
        request = Request(
            text=prompt.text,
            negative=prompt.negative,
            image_sha256=None if picture is None else image_sha256(picture),
            preset=preset,
            seed=asked.seed,
            variants=asked.variants,
            height_m=asked.height_m,
            formats=checked_formats(asked.formats),
            stem=slug(prompt.text, 64) or "asset",
            device=resolved_device(self.device),
        )
        source = models.source(request.device)
        result = run(
            request,
            folder,
            image=picture,
            source=source,
            screening=screening,
            observer=_Heard(row, listener),
        )
        report = plain(result.report)
        assert isinstance(report, dict)
        return tuple(result.files), report


@dataclass
class _Heard:
    """The `Observer` of a run that speaks for a row."""

    row: Planned
    listener: Listener

    def progress(self, stage: str, fraction: float, message: str) -> None:
        self.listener.progress(self.row, stage, fraction)

    def warning(self, message: str) -> None:
        """It is in the report."""
