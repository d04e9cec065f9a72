"""Light that is taken out of base colour: what the model describes comes back, paint alone stays."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.delight import DelightConfig, delight
from recon.texels import texels_of
from recon.uv import unwrap
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.errors import InputError
from render.harmonics import harmonics
from render.occlusion import fibonacci_sphere
from render.scene import Mesh
from render.shading import tone_mapped, untone_mapped, without_reflectance
from tests.recon.mesh_field import as_mesh

SIZE = 128
QUICK = DelightConfig(samples=1500, directions=96)


def two_balls() -> Mesh:
    parts = [trimesh.creation.icosphere(4, 0.5), trimesh.creation.icosphere(3, 0.25)]
    parts[1].apply_translation((0.0, 0.0, 1.0))
    return unwrap(as_mesh(trimesh.util.concatenate(parts)), SIZE)


def painted(mesh: Mesh, sun: np.ndarray, tint: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stripes of two paints under a soft light: colours (sRGB map), the true ones, and which texels count."""
    texels = texels_of(mesh, SIZE)
    known = texels.face >= 0
    assert mesh.normals is not None
    position = texels.interpolate(mesh.vertices, mesh.faces)
    normal = texels.interpolate(mesh.normals, mesh.faces)
    stripe = (np.sin(9 * position[:, :1]) > 0).astype(np.float32)
    albedo = stripe * np.array([0.5, 0.2, 0.1]) + (1 - stripe) * np.array([0.15, 0.3, 0.4])
    side = normal @ (sun / np.linalg.norm(sun))
    shading = np.exp(0.7 * side[:, None] * tint)
    lit, true = np.zeros((SIZE, SIZE, 3), np.float32), np.zeros((SIZE, SIZE, 3), np.float32)
    lit[known] = linear_to_srgb_np((albedo * shading).astype(np.float32))
    true[known] = linear_to_srgb_np(albedo.astype(np.float32))
    return lit, true, known


def error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference in sRGB after the best common scale of linear colours."""
    x, y = srgb_to_linear_np(a), srgb_to_linear_np(b)
    scale = (x * y).sum() / (x * x).sum()
    return float(np.abs(linear_to_srgb_np(np.clip(x * scale, 0, 1).astype(np.float32)) - b).mean())


@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (1.2, 1.0, 0.8)])
def test_a_soft_light_on_two_paints_is_taken_out(tint: tuple[float, float, float]) -> None:
    mesh = two_balls()
    lit, true, known = painted(mesh, np.array([1.0, 1.0, 0.5]), np.array(tint))
    found, light = delight(mesh, lit, QUICK)
    before, after = error(lit[known], true[known]), error(found[known], true[known])
    assert before > 0.04
    assert after < before / 5
    assert light.explained > 0.9
    assert light.contrast == pytest.approx(0.7 / np.sqrt(3), abs=0.06)


def test_even_light_leaves_paint_alone() -> None:
    mesh = two_balls()
    _, true, known = painted(mesh, np.array([0.0, 1.0, 0.0]), np.zeros(3))
    found, light = delight(mesh, true, QUICK)
    assert error(found[known], true[known]) < 0.01
    assert light.contrast < 0.05


def test_twice_the_same_and_black_is_refused() -> None:
    mesh = two_balls()
    lit, _, _ = painted(mesh, np.array([1.0, 0.0, 0.0]), np.ones(3))
    assert np.array_equal(delight(mesh, lit, QUICK)[0], delight(mesh, lit, QUICK)[0])
    with pytest.raises(InputError, match="black"):
        delight(mesh, np.zeros_like(lit), QUICK)
    with pytest.raises(InputError, match=r"delight\.degree"):
        DelightConfig(degree=9)


def test_the_tone_map_is_undone() -> None:
    linear = np.random.default_rng(0).random((500, 3)).astype(np.float32) * 1.5
    shown = tone_mapped(linear)
    kept = shown.max(1) < 0.96
    np.testing.assert_allclose(untone_mapped(shown)[kept], linear[kept], atol=1e-4)
    dark = linear[linear.max(1) < 0.75]
    np.testing.assert_allclose(without_reflectance(dark), tone_mapped(dark), atol=1e-6)


def test_harmonics_are_orthonormal() -> None:
    values = harmonics(fibonacci_sphere(4000), 4)
    assert values.shape == (4000, 25)
    np.testing.assert_allclose(values.T @ values * 4 * np.pi / 4000, np.eye(25), atol=5e-3)
