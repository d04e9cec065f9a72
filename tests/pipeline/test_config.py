from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pipeline.config import build, changed, plain, read_yaml
from render.errors import InputError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    mode: Literal["fast", "good"] = "good"
    sizes: tuple[int, ...] = (1, 2)
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise InputError(f"rate must be positive, not {self.rate}.")
        if len(self.sizes) > 3:
            raise InputError("inner.sizes has too many")


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner = field(default_factory=Inner)
    extra: Inner | None = None
    on: bool = True
    label: str | None = None


def test_nested_values_and_defaults():
    built = build(Outer, {"steps": 3, "inner": {"rate": 1, "sizes": [4, 5, 6]}, "extra": {"mode": "fast"}})
    assert built == Outer(3, Inner(1.0, sizes=(4, 5, 6)), Inner(mode="fast"))
    assert isinstance(built.inner.rate, float)


def test_plain_and_build_are_inverse():
    value = Outer(7, Inner(0.25, "fast", (9,), (1.5, 2.5)), extra=Inner(), on=False, label="x")
    assert build(Outer, plain(value)) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"steps": 1, "inner": {"rats": 1}}, r"Unknown setting inner\.rats\. Did you mean inner\.rate\?"),
        ({"steps": 1, "qqq": 1}, r"Unknown setting qqq\. Known: steps, inner"),
        ({"steps": 1, 5: 1}, r"Unknown setting 5\."),
        ({}, r"setting steps is missing"),
        ({"steps": 1.5}, r"steps must be a whole number, not 1\.5"),
        ({"steps": True}, r"steps must be a whole number, not True"),
        ({"steps": "3"}, r"steps must be a whole number, not '3'"),
        ({"steps": None}, r"steps must be a whole number, not None"),
        ({"steps": 1, "on": 1}, r"on must be true or false, not 1"),
        ({"steps": 1, "inner": 4}, r"inner must be a group of settings, not 4"),
        ({"steps": 1, "inner": {"rate": "much"}}, r"inner\.rate must be a number, not 'much'"),
        ({"steps": 1, "inner": {"rate": float("nan")}}, r"inner\.rate must be a finite number"),
        ({"steps": 1, "inner": {"rate": -1}}, r"^inner\.rate must be positive, not -1"),
        ({"steps": 1, "extra": {"rate": -1}}, r"^extra\.rate must be positive"),
        ({"steps": 1, "inner": {"sizes": [1, 2, 3, 4]}}, r"^inner\.sizes has too many"),
        ({"steps": 1, "inner": {"mode": "slow"}}, r"inner\.mode must be one of fast, good, not 'slow'"),
        ({"steps": 1, "inner": {"sizes": 3}}, r"inner\.sizes must be a list, not 3"),
        ({"steps": 1, "inner": {"sizes": [1, "b"]}}, r"inner\.sizes\[1\] must be a whole number"),
        ({"steps": 1, "inner": {"span": [1]}}, r"inner\.span must have 2 values, not 1"),
        ({"steps": 1, "label": 3}, r"label must be text, not 3"),
    ],
)
def test_errors_name_the_dotted_path(data, message):
    with pytest.raises(InputError, match=message):
        build(Outer, data)


def test_changed_checks_again():
    assert changed(Outer(1), "inner.rate", 0.75) == Outer(1, Inner(0.75))
    with pytest.raises(InputError, match=r"inner\.rate must be positive"):
        changed(Outer(1), "inner.rate", -2.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "not valid YAML in line"),
        (b"- 1\n- 2", "does not hold settings"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"a: &x [1]\nb: *x", "aliases"),
        (b"a: " + b"1" * 300_000, "too large"),
    ],
)
def test_files_that_hold_no_settings(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "s.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_yaml(tmp_path / "s.yaml")


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match="There is no settings file"):
        read_yaml(tmp_path / "none.yaml")
