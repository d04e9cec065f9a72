"""Changed versions of training objects: what they are called stays true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from pipeline.color_names import COLOR_WORDS
from pipeline.training.augment import (
    carried,
    carriers,
    flat_top,
    mirrored,
    recolored,
    rematerialed,
    repainted,
    stood_on,
    stretched,
    warped,
)
from pipeline.training.props import Prop, captions, color_words
from tests.pipeline.training.test_props import box_prop


def volume(prop: Prop) -> float:
    """Signed: negative where the faces look inwards."""
    return float(trimesh.Trimesh(prop.vertices, prop.faces).volume)


def test_recolouring_changes_colour_and_caption_together() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        turned = recolored(box_prop(caption="red crate"), rng)
        words = color_words(turned)
        assert words[0] != "red"
        assert turned.caption == f"{words[0]} crate"


def test_rematerialing_sets_pbr_values_and_says_so() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        made = rematerialed(box_prop(caption="wooden crate"), rng)
        assert made.caption.endswith("crate")
        assert made.caption != "wooden crate" or made.metallic[0] == 0
        metal = any(word in made.caption for word in ("golden", "silver", "iron", "copper", "steel", "metal"))
        assert (made.metallic == float(metal)).all()
        assert (made.material_known == 1).all()


def test_repainting_replaces_the_main_colour_only() -> None:
    rng = np.random.default_rng(0)
    blue = box_prop(colors=np.full_like(box_prop().colors, (60, 110, 205)))
    two = replace(stood_on(blue, box_prop(), rng), caption="red crate")
    for _ in range(10):
        made = repainted(two, rng)
        changed = (made.colors != two.colors).any(1)
        assert len(np.unique(two.colors[changed], axis=0)) == 1
        word = made.caption.removesuffix(" crate")
        assert word in COLOR_WORDS
        assert captions(made)[0] == made.caption
    plain = repainted(box_prop(caption="red crate"), rng)
    assert color_words(plain)[0] == plain.caption.removesuffix(" crate") != "red"


def test_a_mirrored_object_is_the_other_hand_with_its_faces_outwards() -> None:
    prop = box_prop(vertices=box_prop().vertices + np.array([0.1, 0, 0], np.float32))
    other = mirrored(prop)
    np.testing.assert_allclose(other.vertices[:, 0], -prop.vertices[:, 0])
    assert volume(prop) > 0
    assert volume(other) == pytest.approx(volume(prop))


def test_stretching_names_what_shows_and_stays_in_the_ball() -> None:
    rng = np.random.default_rng(0)
    said = set()
    for _ in range(40):
        made = stretched(box_prop(), rng)
        size = np.ptp(made.vertices, axis=0)
        ratio = size[1] / np.sqrt(size[0] * size[2])
        upright = size[1] >= max(size[0], size[2])
        word = "tall" if ratio >= 1.28 and upright else "low" if ratio <= 0.78 and not upright else None
        texts = captions(made)
        assert texts[0] == "crate"
        assert all((word in text.split()) for text in texts[1:]) if word else texts == captions(box_prop())
        assert np.linalg.norm(made.vertices, axis=1).max() == pytest.approx(1, abs=1e-5)
        said.add(word)
    assert said == {"tall", "low", None}
    car = stretched(box_prop(category="vehicle"), np.random.default_rng(3))
    size = np.ptp(car.vertices, axis=0)
    assert 1.4**-0.4 / 1.16**0.4 <= size[1] / np.sqrt(size[0] * size[2]) <= 1.4**0.4 * 1.16**0.4


def test_a_warped_object_is_another_shape_with_its_faces_outwards() -> None:
    rng = np.random.default_rng(0)
    box, car = box_prop(), box_prop(category="vehicle")

    def moved(prop: Prop) -> float:
        made = warped(prop, rng)
        assert np.array_equal(made.faces, prop.faces)
        assert captions(made) == captions(prop)
        assert np.linalg.norm(made.vertices, axis=1).max() == pytest.approx(1, abs=1e-5)
        assert volume(made) > 0.5 * volume(prop)
        return float(np.abs(made.vertices - prop.vertices).max())

    boxes, cars = ([moved(prop) for _ in range(20)] for prop in (box, car))
    assert 0.1 < np.mean(boxes) < 0.4
    assert np.mean(cars) < 0.6 * np.mean(boxes)


def test_one_object_stands_on_another() -> None:
    lower, upper = box_prop(), box_prop(caption="apple", category="food", materials=())
    assert flat_top(lower) == pytest.approx(1)
    assert carriers([lower, upper]) == [lower]
    assert carried([lower, upper, box_prop(caption="tree")]) == [lower, upper]
    made = stood_on(upper, lower, np.random.default_rng(0))
    n = len(lower.vertices)
    below, above = made.vertices[:n], made.vertices[n:]
    assert above[:, 1].min() == pytest.approx(below[:, 1].max())
    np.testing.assert_allclose(above.mean(0)[[0, 2]], below.mean(0)[[0, 2]], atol=1e-6)
    assert np.ptp(above[:, 0]) < 0.9 * np.ptp(below[:, 0])
    assert captions(made)[0] == "an apple on a crate"
    assert len(made.colors) == len(made.vertices)
    assert len(made.metallic) == len(made.faces) == made.faces.shape[0]
    assert volume(made) > 0


def test_a_cone_carries_nothing() -> None:
    cone = trimesh.creation.cone(1.0, 2.0)
    cone.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    count = len(cone.faces)
    prop = box_prop(
        caption="rock",
        vertices=cone.vertices.astype(np.float32),
        faces=cone.faces.astype(np.int32),
        colors=np.zeros((len(cone.vertices), 3), np.uint8),
        metallic=np.zeros(count, np.float32),
        roughness=np.zeros(count, np.float32),
        material_known=np.ones(count, np.float32),
    )
    assert flat_top(prop) < 0.1
    assert carriers([prop]) == []
