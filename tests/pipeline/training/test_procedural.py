"""Procedural training objects: whole, inside the unit ball, with captions that are true of them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.color_names import COLORS
from pipeline.training.procedural import (
    _OBJECTS,
    _composition,
    buildings,
    furniture,
    nature,
    procedural_props,
)
from pipeline.training.procedural.assemblies import assembly
from pipeline.training.procedural.maker import Maker, phrases
from pipeline.training.procedural.solids import arc, ball, box, cylinder, disc, lathe, pipe, prism, ring, tube
from pipeline.training.props import captions


def signed_volume(solid) -> float:
    vertices, faces = solid
    a, b, c = (vertices[faces[:, i]].astype(float) for i in range(3))
    return float(np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6))


def edges_are_shared(faces: np.ndarray) -> bool:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    return bool((np.unique(edges, axis=0, return_counts=True)[1] == 2).all())


@pytest.mark.parametrize(
    ("solid", "volume"),
    [
        (box(2, 3, 4), 24.0),
        (cylinder(1.0, 2.0, segments=200), 2 * np.pi),
        (cylinder(1.0, 3.0, 0.0, segments=200), np.pi),
        (ball(1.0, segments=128), 4 / 3 * np.pi),
        (tube((1.0, 2.0, 3.0), (1.0, 2.0, 5.0), 0.5, segments=200), np.pi / 2),
        (prism([(0.0, 0.0), (2.0, 0.0), (0.0, 2.0)], 3.0), 6.0),
        (lathe([(1, 0), (1, 1), (0.5, 1), (0.5, 2)], 200), np.pi * 1.25),
        (disc(0.5, 2.0, 200), np.pi / 2),
        (ring(2.0, 0.5, 2.0, 200), 9 * np.pi * np.sin(2 * np.pi / 9)),
        (pipe([(x, y, 0) for x, y in arc(1.0, 0, 180, 60)], 0.2, segments=200), 0.04 * np.pi**2),
    ],
    ids=["box", "cylinder", "cone", "ball", "tube", "prism", "lathe", "disc", "ring", "pipe"],
)
def test_solids_are_closed_and_have_the_volume_of_their_kind(solid, volume):
    assert edges_are_shared(solid[1])
    assert signed_volume(solid) == pytest.approx(volume, rel=3e-3)


@pytest.mark.parametrize(("make", "category"), [(make, category) for _, make, category in _OBJECTS])
def test_every_maker_gives_whole_objects_and_colours_that_are_there(make, category):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        maker = Maker(rng)
        names, words, details = make(maker)
        prop = maker.prop(phrases(names, words, details, rng), category)
        assert np.linalg.norm(prop.vertices, axis=1).max() == pytest.approx(1.0, abs=1e-5)
        assert np.isfinite(prop.vertices).all()
        assert prop.faces.max() < len(prop.vertices)
        assert set(np.unique(prop.metallic)) <= {0.0, 1.0}
        assert prop.roughness.min() > 0
        assert captions(prop)
        assert all(text == text.strip() and "  " not in text for text in captions(prop))
        assert len(set(names)) == len(names)
        assert len(set(details)) == len(details)
        colors = {tuple(finish.rgb) for _, finish in maker.parts}
        for word in (w for w in words if w in COLORS):
            nearest = min(np.abs(np.array(rgb) - COLORS[word]).max() for rgb in colors)
            assert nearest < 60, f"{names[0]}: no {word} part"


def test_a_metal_word_means_metal():
    rng = np.random.default_rng(3)
    props = list(procedural_props(300, rng))
    golden = [p for p in props if any("golden" in c for c in p.captions)]
    assert golden
    assert all(p.metallic.max() == 1.0 for p in golden)


def test_the_same_seed_gives_the_same_objects():
    first, second = (list(procedural_props(5, np.random.default_rng(4))) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.captions == b.captions
        assert np.array_equal(a.vertices, b.vertices)


def test_articles_fit_what_they_stand_before():
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        seen |= set(phrases(["rocks"], ["mossy"], ["an arch"], rng))
        seen |= set(phrases(["sofa"], ["orange"], ["a orange pillow"], rng))
        seen |= set(phrases(["stone bridge"], ["dark stone"], [], rng))
        seen |= set(phrases(["cactus", "stack of books"], [], [], rng))
    assert {"mossy rocks", "an orange sofa", "a cactus", "a stack of books", "dark stone bridge"} <= seen
    assert "sofa with an orange pillow" in seen
    assert not [text for text in seen if text.startswith(("a mossy", "a rocks")) or " a o" in text]


def test_a_rock_stands_and_its_moss_lies_on_top():
    for seed in range(30):
        maker = Maker(np.random.default_rng(seed))
        _, words, _ = nature.rock(maker)
        assert maker.bounds()[0, 1] == pytest.approx(0.0, abs=1e-6)
        lows = {finish.word: float(solid[0][:, 1].min()) for solid, finish in maker.parts}
        if words == ["mossy"]:
            assert len(lows) == 2
            assert max(lows.values()) > 0.05


def test_fences_have_gaps_and_sofas_the_seats_they_are_named_for():
    for seed in range(30):
        maker = Maker(np.random.default_rng(seed))
        buildings.fence(maker)
        low, high = maker.bounds()
        boxes = [(s[0][:, :2].min(0), s[0][:, :2].max(0)) for s, _ in maker.parts]
        grid = np.stack(np.meshgrid(np.linspace(low[0], high[0], 60), np.linspace(0.1, 0.6, 40)), -1)
        covered = np.any([((grid > a) & (grid < b)).all(-1) for a, b in boxes], 0)
        assert covered.mean() < 0.95, seed
        sofa = Maker(np.random.default_rng(seed))
        names, _, _ = furniture.sofa(sofa)
        seats = {"two-seat sofa": 2, "three-seat sofa": 3, "armchair": 1}
        for name in names:
            width = float(np.ptp(sofa.bounds()[:, 0]))
            assert name not in seats or seats[name] * 0.58 < width < seats[name] * 0.75 + 0.65


def test_a_composition_names_both():
    prop = _composition(np.random.default_rng(0))
    assert all(" on a" in caption for caption in prop.captions)


def test_assemblies_hang_together_and_have_no_name():
    symmetric = 0
    for seed in range(20):
        prop = assembly(np.random.default_rng(seed))
        assert prop.captions == ("",)
        assert np.linalg.norm(prop.vertices, axis=1).max() == pytest.approx(1, abs=1e-5)
        assert (prop.material_known == 1).all()
        low, high = prop.vertices.min(0), prop.vertices.max(0)
        assert (high - low).min() > 0.05
        mirrored = np.sort(np.round(prop.vertices[:, 0], 4))
        symmetric += bool(np.allclose(mirrored, -mirrored[::-1], atol=2e-3))
    assert 4 <= symmetric <= 16
    same = assembly(np.random.default_rng(3)), assembly(np.random.default_rng(3))
    np.testing.assert_array_equal(same[0].vertices, same[1].vertices)
