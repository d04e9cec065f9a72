"""Batch manifests: a JSONL or CSV file, one asset a row, read and checked before anything runs.

    {"id": "crate-01", "prompt": "a wooden crate", "seed": 3, "formats": "glb,obj"}

    id,prompt,image,preset,seed
    crate-01,a wooden crate,,draft,3
    chair,,photos/chair.jpg,,

Keys are those of `maquette generate`; an empty cell is the default. Pictures are paths beside the
manifest. Two rows that ask for the same asset are made once; the row's `id` is only its folder's name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.checkpoints import file_sha256
from pipeline.config import build, plain
from pipeline.limits import MAX_SEED, MAX_VARIANTS, checked_formats, slug
from pipeline.prompt import clean_text
from render.errors import InputError

MAX_ROWS = 100_000
MAX_BYTES = 64 * 1024 * 1024
MAX_LISTED = 10
"""Mistakes that one message lists."""


@dataclass(frozen=True)
class Row:
    """One asset that is asked for."""

    id: str
    """Name of its folder."""
    prompt: str = ""
    image: str | None = None
    """Path of a picture, relative to the manifest."""
    negative: str = ""
    preset: Literal["draft", "standard", "high"] = "standard"
    seed: int = 0
    variants: int = 1
    polycount: int | None = None
    texture_size: int | None = None
    height_m: float = 1.0
    formats: tuple[str, ...] = ("glb",)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", self.id) or self.id.endswith("."):
            raise InputError(f"id must be a short file name of a-z, 0-9, '.', '-' and '_', not {self.id!r}.")
        object.__setattr__(self, "prompt", clean_text(self.prompt))
        object.__setattr__(self, "negative", clean_text(self.negative, "negative prompt"))
        if not self.prompt and not self.image:
            raise InputError("prompt is empty and there is no image.")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed must be between 0 and {MAX_SEED}, not {self.seed}.")
        if not 1 <= self.variants <= MAX_VARIANTS:
            raise InputError(f"variants must be between 1 and {MAX_VARIANTS}, not {self.variants}.")
        if self.polycount is not None and not 100 <= self.polycount <= 500_000:
            raise InputError(f"polycount must be between 100 and 500000, not {self.polycount}.")
        if self.texture_size is not None and not 16 <= self.texture_size <= 8192:
            raise InputError(f"texture_size must be between 16 and 8192, not {self.texture_size}.")
        if not 0.001 <= self.height_m <= 1000.0:
            raise InputError(f"height_m must be between 0.001 and 1000 metres, not {self.height_m:g}.")
        checked_formats(self.formats)


@dataclass(frozen=True)
class Planned:
    """A row and the content of what it asks for."""

    row: Row
    line: int
    key: str
    """Hash of all that decides the asset: rows with the same key are one asset."""
    image: Path | None


def read_manifest(path: Path) -> list[Planned]:
    """The rows of a manifest in their order. `InputError` lists what is wrong, with line numbers."""
    if not path.is_file():
        raise InputError(f"There is no manifest {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES // 2**20} MB. Split it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8: {error}.") from None
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            found = _jsonl(text)
        case ".csv":
            found = _csv(text)
        case other:
            raise InputError(f"{path}: a manifest is .jsonl or .csv, not {other or 'without a suffix'}.")
    planned, wrong = _checked(found, path.parent)
    if wrong:
        shown = "; ".join(wrong[:MAX_LISTED])
        more = f"; and {len(wrong) - MAX_LISTED:,} more" if len(wrong) > MAX_LISTED else ""
        raise InputError(f"{path}: {shown}{more}")
    if not planned:
        raise InputError(f"{path} has no rows.")
    return planned


_Found = Iterator[tuple[int, dict[str, Any] | InputError]]


def _checked(found: _Found, folder: Path) -> tuple[list[Planned], list[str]]:
    planned: list[Planned] = []
    wrong: list[str] = []
    names: dict[str, int] = {}
    hashes: dict[Path, str] = {}
    for line, values in found:
        if len(planned) + len(wrong) >= MAX_ROWS:
            wrong.append(f"more than {MAX_ROWS:,} rows")
            break
        try:
            if isinstance(values, InputError):
                raise values
            row = _row(values, line)
            # Two rows may differ in letter case only on file systems that see no difference.
            if row.id.lower() in names:
                raise InputError(f"id {row.id!r} is that of line {names[row.id.lower()]} too")
            names[row.id.lower()] = line
            image = None if row.image is None else _image(row.image, folder)
            if image is not None and image not in hashes:
                hashes[image] = file_sha256(image)
            planned.append(Planned(row, line, _key(row, None if image is None else hashes[image]), image))
        except InputError as error:
            wrong.append(f"line {line}: {str(error).rstrip('.')}")
    return planned, wrong


def _jsonl(text: str) -> _Found:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            yield number, InputError("this is not JSON")
            continue
        yield number, data if isinstance(data, dict) else InputError("this is no object {...}")


def _csv(text: str) -> _Found:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        for values in reader:
            if None in values:
                yield reader.line_num, InputError("there are more cells than the header names")
                continue
            cells = {str(name).strip(): (cell or "").strip() for name, cell in values.items()}
            if any(cells.values()):
                yield reader.line_num, {name: cell for name, cell in cells.items() if cell}
    except csv.Error as error:
        yield reader.line_num, InputError(f"this is not CSV: {error}")


_NUMBERS: dict[str, type[int] | type[float]] = {
    "seed": int,
    "variants": int,
    "polycount": int,
    "texture_size": int,
    "height_m": float,
}


def _row(values: dict[str, Any], line: int) -> Row:
    given = {name: value for name, value in values.items() if value is not None}
    for name, kind in _NUMBERS.items():
        if isinstance(given.get(name), str):
            try:
                given[name] = kind(given[name])
            except ValueError:
                raise InputError(f"{name} must be a number, not {given[name][:40]!r}") from None
    if isinstance(given.get("formats"), str):
        given["formats"] = [name.strip().lower() for name in given["formats"].split(",") if name.strip()]
    if "id" in given:
        given["id"] = str(given["id"])
    else:
        text = str(given.get("prompt") or Path(str(given.get("image") or "")).stem)
        given["id"] = f"{line:05d}-{slug(text)}".rstrip("-")
    return build(Row, given)


def _image(name: str, folder: Path) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(f"there is no image {path}")
    return path.resolve()


def _key(row: Row, image_sha256: str | None) -> str:
    """By the picture's bytes, not its name, and without the row's own name."""
    values = plain(replace(row, image=image_sha256))
    assert isinstance(values, dict)
    del values["id"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
