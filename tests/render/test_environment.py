"""Environments and shading: energy, known integrals, a white furnace, the tone map's promises."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from render.environment import (
    EXPOSURE,
    OCTA_LEVELS,
    OCTA_SIZE,
    Environment,
    EnvironmentName,
    brdf_lut,
    directions_of_equirect,
    directions_of_octahedron,
    environment,
    octa_sample,
    prefilter,
    sh_basis,
)
from render.errors import InputError
from render.packed_scene import COLOR, EMITTED, METAL, OCCLUDED, ROUGH, SHADING_NORMAL, SURFACE_SIZE
from render.shading import shade, tone_mapped


@pytest.fixture(scope="module")
def white_room() -> Environment:
    return prefilter(
        "white",
        np.ones((64, 128, 3)),
        np.ones((OCTA_SIZE, OCTA_SIZE, 3)),
        np.ones((2, 3), np.float32),
    )


def radiance(
    light: Environment,
    color: float,
    metallic: float,
    roughness: float,
    normal: np.ndarray,
    view: np.ndarray,
    share: float = 1.0,
) -> np.ndarray:
    surface = np.zeros(SURFACE_SIZE, np.float32)
    surface[COLOR : COLOR + 3], surface[METAL], surface[ROUGH], surface[OCCLUDED] = (
        color,
        metallic,
        roughness,
        1,
    )
    surface[SHADING_NORMAL : SHADING_NORMAL + 3] = normal
    surface[EMITTED : EMITTED + 3] = 0
    out = np.zeros(3, np.float32)
    one = np.float32(1)
    shade(
        surface,
        *view.astype(np.float32),
        np.full(3, share, np.float32),
        light.irradiance_sh,
        light.prefiltered,
        brdf_lut(),
        one,
        np.float32(0),
        np.zeros(3, np.float32),
        out,
    )
    return out


def test_white_furnace_gains_and_loses_nothing(white_room: Environment):
    rng = np.random.default_rng(0)
    for _ in range(200):
        normal = rng.normal(size=3)
        normal /= np.linalg.norm(normal)
        view = normal + rng.normal(size=3) * 0.5
        view /= np.linalg.norm(view)
        if normal @ view < 0.05:
            continue
        metallic, roughness = rng.uniform(size=2)
        got = radiance(white_room, 1.0, metallic, roughness, normal, view)
        # 0.5 %: nine harmonics and 8-bit-like tables, not the energy balance, set the tolerance.
        np.testing.assert_allclose(got, 1.0, atol=5e-3)


def test_dark_surfaces_never_gain(white_room: Environment):
    normal = np.array([0.0, 0.0, 1.0])
    for cosine in (0.1, 0.5, 1.0):
        view = np.array([np.sqrt(1 - cosine**2), 0, cosine])
        for roughness in (0.05, 0.5, 1.0):
            got = radiance(white_room, 0.18, 0.0, roughness, normal, view)
            assert (got < 1).all()
            assert (got > 0.18 * 0.5).all()
            assert (radiance(white_room, 0.18, 0.0, roughness, normal, view, share=0.0) < 0.02).all()


@pytest.mark.parametrize("name", get_args(EnvironmentName))
def test_environments_are_positive_scaled_and_deterministic(name: str):
    light = environment(name)
    assert light.equirect_linear.min() > 0
    height = light.equirect_linear.shape[0]
    polar = (np.arange(height) + 0.5) / height * np.pi
    weight = np.broadcast_to(np.sin(polar)[:, None], light.equirect_linear.shape[:2])
    mean = (light.equirect_linear.astype(np.float64) * weight[..., None]).sum((0, 1)) / weight.sum()
    assert mean @ [0.2126, 0.7152, 0.0722] == pytest.approx(EXPOSURE, rel=1e-4)
    # Prefiltering moves light, it does not make any: every level keeps the mean over directions within 6 %.
    directions = directions_of_octahedron(OCTA_SIZE)
    area = np.abs(directions).sum(-1) ** 3
    for level in range(OCTA_LEVELS):
        average = (light.prefiltered[level] * area[..., None]).sum((0, 1)) / area.sum()
        np.testing.assert_allclose(average, mean, rtol=0.06)
    again = environment(name)
    np.testing.assert_array_equal(light.prefiltered, again.prefiltered)


def test_both_parametrisations_hold_the_same_light():
    light = environment("studio")
    directions = directions_of_equirect(32)[4:28:3, ::5].reshape(-1, 3)
    coarse = light.equirect_linear.reshape(32, 4, 64, 4, 3).mean((1, 3))[4:28:3, ::5].reshape(-1, 3)
    errors = []
    for direction, expected in zip(directions, coarse, strict=True):
        got = np.zeros(3, np.float32)
        octa_sample(light.prefiltered, 0, *direction, np.float32(1), got)
        errors.append(np.abs(got - expected).max())
    assert np.median(errors) < 0.02


def test_irradiance_of_a_clamped_cosine_light():
    directions = directions_of_equirect(64)
    light = np.maximum(directions[..., 1:2], 0) * np.ones(3)
    octahedral = np.maximum(directions_of_octahedron(OCTA_SIZE)[..., 1:2], 0) * np.ones(3)
    sh = prefilter("up", light, octahedral, np.ones((2, 3), np.float32)).irradiance_sh
    # Irradiance / pi of radiance cos on the upper half: 2/3 facing it, 0 turned away.
    up, down = (sh_basis(np.array([[0.0, y, 0.0]])) @ sh for y in (1, -1))
    np.testing.assert_allclose(up, 2 / 3, atol=0.02)
    np.testing.assert_allclose(down, 0, atol=0.03)


def test_brdf_table_ends():
    table = brdf_lut()
    total = table.sum(-1)
    assert (total > 0.2).all()
    # A smooth white mirror reflects all; a rough one loses what multiple scattering gives back.
    np.testing.assert_allclose(total[0, 4:], 1, atol=0.01)
    assert total[-1].min() < 0.5
    # Facing the eye a smooth dielectric reflects F0: scale 1, bias 0.
    np.testing.assert_allclose(table[0, -1], [1, 0], atol=0.01)


def test_tone_map_keeps_base_colours_and_whitens_highlights():
    colors = np.array([[0.5, 0.3, 0.2], [0.09, 0.7, 0.4], [0.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(tone_mapped(colors)[:2], colors[:2] - 0.04, atol=1e-6)
    np.testing.assert_allclose(tone_mapped(colors)[2], 0, atol=1e-6)
    ramp = np.linspace(0, 50, 500, dtype=np.float32)[:, None] * np.array([[1.0, 0.8, 0.6]], np.float32)
    mapped = tone_mapped(ramp)
    assert mapped.max() <= 1
    assert (np.diff(mapped[:, 0]) >= 0).all()
    assert mapped[-1].min() > 0.9


def test_unknown_environment_is_refused():
    with pytest.raises(InputError, match="studio, sunset, overcast"):
        environment("moon")
