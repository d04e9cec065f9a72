"""The reader of packed training meshes, what names tell of materials, and captions that stay true."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.color_names import COLOR_WORDS
from pipeline.training.props import (
    Prop,
    captions,
    clean_caption,
    color_words,
    is_asked_for,
    load_props,
    surface_of,
)
from render.errors import InputError


def box_prop(**changes: object) -> Prop:
    """A red box; `changes` replace fields."""
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    n_faces = len(box.faces)
    prop = Prop(
        vertices=(box.vertices / np.linalg.norm(box.vertices, axis=1).max()).astype(np.float32),
        faces=box.faces.astype(np.int32),
        colors=np.tile(np.array([[200, 45, 45]], np.uint8), (len(box.vertices), 1)),
        metallic=np.zeros(n_faces, np.float32),
        roughness=np.full(n_faces, 0.8, np.float32),
        material_known=np.ones(n_faces, np.float32),
        caption="crate",
        pack="Survival Kit",
        category="prop",
        split="train",
        materials=("wood",),
    )
    return replace(prop, **changes)  # type: ignore[arg-type]


def write_pack(stem: Path, count: int = 2) -> None:
    """A pack of `count` boxes of growing width in the format of `docs/training.md`."""
    positions, colors, deltas, materials, rows = [], [], [], [], []
    v0 = f0 = 0
    for i in range(count):
        box = trimesh.creation.box((1.0 + i, 1.0, 1.0))
        scaled = (box.vertices - box.vertices.min(0)) / np.ptp(box.vertices, axis=0).max()
        positions.append(np.round(scaled * 65535).astype("<u2"))
        colors.append(np.full((len(box.vertices), 3), 40 * i, np.uint8))
        deltas.append(np.diff(box.faces.reshape(-1), prepend=0).astype("<i4"))
        materials.append(np.zeros(len(box.faces), np.uint8))
        rows.append({
            "caption": f"box {i}", "pack": "p", "category": "prop", "split": "val" if i == 0 else "train",
            "materials": ["metal"], "v0": v0, "nv": len(box.vertices), "f0": f0, "nf": len(box.faces),
        })  # fmt: skip
        v0, f0 = v0 + len(box.vertices), f0 + len(box.faces)
    blob = b"".join([
        np.concatenate(positions).T.tobytes(), np.concatenate(colors).T.tobytes(),
        np.concatenate(deltas).tobytes(), np.concatenate(materials).tobytes(),
    ])  # fmt: skip
    stem.with_suffix(".bin.xz").write_bytes(lzma.compress(blob))
    stem.with_suffix(".jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def test_pack_round_trip(tmp_path: Path) -> None:
    write_pack(tmp_path / "props")
    first, second = load_props(tmp_path / "props")
    assert (first.split, second.caption) == ("val", "box 1")
    for prop, width in ((first, 1.0), (second, 2.0)):
        size = np.ptp(prop.vertices, axis=0)
        np.testing.assert_allclose(size / size[1], [width, 1, 1], atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(prop.vertices, axis=1).max(), 1, atol=1e-6)
        assert trimesh.Trimesh(prop.vertices, prop.faces).is_watertight
        assert (prop.metallic == 1).all()
        assert (prop.material_known == 1).all()


def test_missing_data_says_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"props\.bin\.xz"):
        list(load_props(tmp_path / "props"))


@pytest.mark.parametrize(
    ("name", "metallic"),
    [("metalDark", 1.0), ("Gold", 1.0), ("wood", 0.0), ("natureKit-leavesGreen", 0.0), ("glass", 0.0)],
)
def test_names_that_tell_the_surface(name: str, metallic: float) -> None:
    found = surface_of(name)
    assert found is not None
    assert found[0] == metallic


def test_names_that_tell_nothing_stay_unknown() -> None:
    assert surface_of("colormap") is None
    assert surface_of("Main_Light") is None


def test_captions_are_true_and_plain() -> None:
    assert color_words(box_prop())[0] == "red"
    texts = captions(box_prop())
    assert texts[0] == "crate"
    assert "a red crate" in texts
    assert any("wooden" in text for text in texts)
    assert clean_caption("houses first age level") == "houses"
    assert not is_asked_for(box_prop(caption="wide track straight"))


def test_colour_names_are_distinct() -> None:
    assert len(set(COLOR_WORDS)) == len(COLOR_WORDS)
