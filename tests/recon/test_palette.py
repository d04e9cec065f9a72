"""Blurred, stained views of a few flat materials become these materials, with borders where they were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from recon.bake import BakeConfig, bake
from recon.palette import flattened, memberships, palette_of, strange
from recon.texels import texels_of
from recon.uv import unwrap
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Mesh
from tests.recon.mesh_field import as_mesh, ten_cameras

RED = np.array([0.8, 0.15, 0.15, 0.0, 0.8], np.float32)
GOLD = np.array([0.7, 0.6, 0.4, 1.0, 0.3], np.float32)


def pictures(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Two views: red above gold, blurred over a few pixels, with stains; all covered but a rim."""
    rng = np.random.default_rng(0)
    rows = np.arange(size)[:, None] + np.zeros((1, size))
    out = np.where((rows < size / 2)[..., None], RED, GOLD)[None].repeat(2, 0).astype(np.float64)
    stains = gaussian_filter(rng.standard_normal((2, size, size)), (0, 3, 3))
    out[..., :3] += 0.04 * (stains / stains.std())[..., None]
    out = gaussian_filter(out, (0, 1.2, 1.2, 0))
    alpha = np.zeros((2, size, size), np.float32)
    alpha[:, 4:-4, 4:-4] = 1
    return (out * alpha[..., None]).astype(np.float32), alpha


def test_two_materials_are_found_and_no_mixture_of_them() -> None:
    palette = palette_of(*pictures())
    assert palette.shape == (2, 5)
    found = palette[np.argsort(palette[:, 3])]
    np.testing.assert_allclose(found, [RED, GOLD], atol=0.06)


def test_a_border_is_where_two_materials_belong_equally() -> None:
    channels, alpha = pictures()
    palette = palette_of(channels, alpha)
    belongs = memberships(channels, alpha, palette)
    np.testing.assert_allclose(belongs.sum(-1), 1, atol=1e-5)
    red = int(palette[:, 3].argmin())
    middle = belongs[0, :, 32, red]
    assert (middle[8:30] > 0.9).all()
    assert (middle[34:56] < 0.1).all()
    assert middle[31] > 0.5 > middle[32]


def test_views_of_nothing_have_a_palette() -> None:
    assert palette_of(np.zeros((1, 8, 8, 5), np.float32), np.zeros((1, 8, 8), np.float32)).shape == (1, 5)


def test_what_is_no_material_is_strange_and_a_mixture_is_not() -> None:
    palette = np.stack([RED, GOLD])
    white = np.array([1.0, 1.0, 1.0, 0.0, 0.8], np.float32)
    found = strange(np.stack([RED, GOLD, (RED + GOLD) / 2, white]), palette)
    np.testing.assert_allclose(found, [0, 0, 0, 1], atol=1e-5)


def test_a_material_keeps_its_wide_gradient_and_loses_its_stains() -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(-1, 1, (40_000, 3)).astype(np.float32) * np.array([1, 1, 0.01], np.float32)
    truth = np.tile(RED, (len(positions), 1))
    truth[:, 1] += 0.15 * positions[:, 0]
    values = truth + 0.05 * rng.standard_normal(truth.shape).astype(np.float32)
    found = flattened(
        positions, values, np.zeros(len(positions), np.int64), np.ones(len(positions), np.float32), 0.1
    )
    inside = np.abs(positions[:, :2]).max(1) < 0.8
    assert np.abs(found - truth)[inside].max() < 0.03


Painted = Callable[[np.ndarray, int], np.ndarray]
"""Points [H, W, 3] that a view shows, and its number, to where it shows gold."""


def ball(painted: Painted) -> tuple[Mesh, ViewSet]:
    """A ball and views of it, red and gold, blurred and stained."""
    mesh = unwrap(as_mesh(trimesh.creation.icosphere(4, 0.8)), 256)
    cameras = ten_cameras()
    found = rasterize(mesh.vertices, mesh.faces, cameras)
    seen = found.face >= 0
    points = np.einsum("chwk,chwki->chwi", found.barycentric, mesh.vertices[mesh.faces[found.face]])
    gold = np.stack([painted(points[view], view) for view in range(len(cameras))])
    values = np.where(gold[..., None], GOLD, RED).astype(np.float64)
    stains = gaussian_filter(np.random.default_rng(1).standard_normal(seen.shape), (0, 3, 3))
    values[..., :3] += 0.04 * (stains / stains.std())[..., None]
    values = gaussian_filter(values, (0, 1.2, 1.2, 0)) * seen[..., None]

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    views = ViewSet(
        cameras,
        GBuffer(
            alpha=tensor(seen[..., None]),
            base_color_srgb=tensor(values[..., :3]),
            metallic=tensor(values[..., 3:4]),
            roughness=tensor(values[..., 4:]),
        ),
    )
    return mesh, views


def texel_points(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Where the texels are that `bake` fills, and which they are."""
    texels = texels_of(mesh, 256)
    return texels.interpolate(mesh.vertices, mesh.faces), texels.face >= 0


@pytest.mark.parametrize("flatten", [0.0, 1.0])
def test_a_ball_of_two_colours_is_baked_with_a_sharp_border(flatten: float) -> None:
    borders = 0.04 * np.random.default_rng(1).standard_normal(10)
    mesh, views = ball(lambda points, view: points[..., 1] <= borders[view])
    made = bake(mesh, views, None, BakeConfig(texture_size=256), flatten=flatten)
    points, chosen = texel_points(mesh)
    height, metallic, color = points[:, 1], made.metallic[chosen], made.base_color_srgb[chosen]
    between = ((metallic > 0.1) & (metallic < 0.9)).mean()
    stain = color[height > 0.15].std(0).max()
    if flatten:
        assert between < 0.01
        assert stain < 0.012
        assert (metallic[height > 0.12] < 0.1).all()
        assert (metallic[height < -0.12] > 0.9).all()
    else:
        assert between > 0.03
        assert stain > 0.015


def test_a_ragged_border_is_baked_even() -> None:
    ragged = gaussian_filter(np.random.default_rng(2).standard_normal((10, 256, 256)), (0, 1, 1))
    ragged *= 0.05 / ragged.std()
    mesh, views = ball(
        lambda points, view: points[..., 1] <= ragged[view, : points.shape[0], : points.shape[1]]
    )
    points, chosen = texel_points(mesh)

    def wrong(border_px: float) -> float:
        config = BakeConfig(texture_size=256, border_px=border_px)
        gold = bake(mesh, views, None, config, flatten=1.0).metallic[chosen] > 0.5
        return float((gold != (points[:, 1] < 0)).mean())

    # 0.0132 where each texel votes alone.
    assert wrong(1.4) < 0.0105
    assert wrong(2.0) < wrong(1.0) < 0.012


def gold_of(mesh: Mesh, views: ViewSet, *, mirrored: bool) -> np.ndarray:
    """Which of the texels of `texel_points` are baked in gold."""
    made = bake(mesh, views, None, BakeConfig(texture_size=256), flatten=1.0, mirrored=mirrored)
    return np.asarray(made.metallic[texel_points(mesh)[1]] > 0.5)


def test_sides_that_are_alike_get_one_border() -> None:
    def painted(points: np.ndarray, view: int) -> np.ndarray:
        return points[..., 1] <= np.where(points[..., 0] > 0, 0.08, -0.08)

    mesh, views = ball(painted)
    points, _ = texel_points(mesh)
    image = cKDTree(points).query(points * np.array([-1, 1, 1], np.float32))[1]

    def differs(*, mirrored: bool) -> float:
        gold = gold_of(mesh, views, mirrored=mirrored)
        return float((gold != gold[image]).mean())

    assert differs(mirrored=False) > 0.08
    assert differs(mirrored=True) < 0.03


def test_what_one_side_has_to_itself_stays_on_it() -> None:
    middle = np.array([0.5, 0.0, 0.62], np.float32)
    mesh, views = ball(lambda points, view: np.linalg.norm(points - middle, axis=-1) < 0.25)
    points, _ = texel_points(mesh)
    gold = gold_of(mesh, views, mirrored=True)
    distance = np.linalg.norm(points - middle, axis=1)
    assert gold[distance < 0.2].all()
    assert not gold[distance > 0.3].any()


def test_bake_refuses_senseless_strength() -> None:
    from render.errors import InputError

    with pytest.raises(InputError, match=r"bake\.flatten"):
        BakeConfig(flatten=2.0)
