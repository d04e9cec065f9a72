from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from render.kernel_cache import forget_stale, kernel_files

ROOT = Path(__file__).resolve().parents[2]

SOURCES = {
    "leaf.py": """import numba
@numba.njit(cache=True, inline="always")
def leaf(x):
    return x + {value}
""",
    "constants.py": "STEP = {value}\n",
    "middle.py": """import numba
from pack.constants import STEP
from pack.leaf import leaf
TWICE = 2 * STEP
@numba.njit(cache=True)
def middle(x):
    return leaf(x) + TWICE
""",
    "top.py": """import numba
from pack.middle import middle
@numba.njit(cache=True)
def top(x):
    return middle(x)
""",
    "alone.py": """import numba
from pack.constants import STEP
@numba.njit(cache=True)
def alone(x):
    return x
""",
}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "pack").mkdir()
    for name in SOURCES:
        write(tmp_path, name, 1)
    return tmp_path


def write(root: Path, name: str, value: int) -> None:
    (root / "pack" / name).write_text(SOURCES[name].replace("{value}", str(value)))


def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernels say when the modules are imported anew."""
    for name in [name for name in sys.modules if name.split(".")[0] == "pack"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(root)
    importlib.invalidate_caches()
    return [importlib.import_module(f"pack.{name}").__dict__[name](0) for name in ("top", "alone")]


def test_kernels_that_took_what_has_changed_are_forgotten(pack: Path, monkeypatch: pytest.MonkeyPatch):
    assert forget_stale(pack, ["pack"]) == []
    assert run(pack, monkeypatch) == [3, 0]
    assert forget_stale(pack, ["pack"]) == []
    write(pack, "leaf.py", 100)
    write(pack, "constants.py", 5000)  # which a constant of the kernel's file is made of
    assert run(pack, monkeypatch) == [3, 0], "numba sees it by itself now: this module is no longer needed"
    assert [path.name for path in forget_stale(pack, ["pack"])] == ["middle.py", "top.py"]
    assert run(pack, monkeypatch) == [10_100, 0]
    assert forget_stale(pack, ["pack"]) == []


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ("leaf.py", ["middle.py", "top.py"]),
        ("constants.py", ["middle.py", "top.py"]),
        ("middle.py", ["top.py"]),
        ("top.py", []),
        ("alone.py", []),
    ],
)
def test_what_is_compiled_of_other_files_stays(pack: Path, changed: str, stale: list[str]):
    kept = pack / "pack" / "__pycache__"
    kept.mkdir()
    for name in SOURCES:
        (kept / f"{name.removesuffix('.py')}.f-1.py311.nbi").touch()
    assert [path.name for path in forget_stale(pack, ["pack"])] == ["middle.py", "top.py"], "nobody knows yet"
    for name in SOURCES:
        (kept / f"{name.removesuffix('.py')}.f-1.py311.nbi").touch()
    write(pack, changed, 7)
    if changed in ("top.py", "alone.py", "middle.py"):
        (pack / "pack" / changed).write_text(SOURCES[changed] + "\n# changed\n")
    assert [path.name for path in forget_stale(pack, ["pack"])] == stale
    left = {path.name.split(".")[0] + ".py" for path in kept.glob("*.nbi")}
    assert left == SOURCES.keys() - set(stale)


def test_all_kernels_of_the_project_are_known():
    found = {str(path.relative_to(ROOT)) for path in kernel_files(ROOT, ["render", "recon", "pipeline"])}
    assert {"render/splats/compositing.py", "render/textures.py", "recon/simplify.py"} <= found
