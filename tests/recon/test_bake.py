"""Known colours are baked, looked at again and compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from recon.bake import BakeConfig, bake
from recon.texels import pull_push, texels_of
from recon.uv import unwrap
from render.cameras import orbit_cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Material, Mesh
from tests.recon.mesh_field import MeshField, as_mesh, known_color, views_of

SIZE = 256
SHAPES = {
    "ball": trimesh.creation.icosphere(4, 0.8),
    "torus": trimesh.creation.torus(0.6, 0.2),
    "box": trimesh.creation.box(),
}


def look(mesh: Mesh, texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texture colours (bilinear) and known colours of what three new cameras see."""
    assert mesh.uvs is not None
    found = rasterize(
        mesh.vertices, mesh.faces, orbit_cameras([20.0, 200.0, 110.0], [30.0, -30.0, 60.0], 128)
    )
    seen = found.face >= 0
    weights, corners = found.barycentric[seen], mesh.faces[found.face[seen]]
    points = np.einsum("nk,nki->ni", weights, mesh.vertices[corners])
    uvs = np.einsum("nk,nki->ni", weights, mesh.uvs[corners])
    return sample(texture, uvs), known_color(points)


def sample(texture: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Bilinear, clamped, as renderers do."""
    size = len(texture)
    x, y = uvs[:, 0] * size - 0.5, (1 - uvs[:, 1]) * size - 0.5
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    out = np.zeros((len(uvs), *texture.shape[2:]))
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.where(dx, x - column, 1 - x + column) * np.where(dy, y - row, 1 - y + row)
            texel = texture[np.clip(row + dy, 0, size - 1), np.clip(column + dx, 0, size - 1)]
            out += weight[:, None] * texel
    return out


def baked(name: str, *, with_field: bool = True) -> tuple[Mesh, Material]:
    field = MeshField(SHAPES[name])
    mesh = unwrap(as_mesh(SHAPES[name]), SIZE)
    return mesh, bake(mesh, views_of(field), field if with_field else None, BakeConfig(texture_size=SIZE))


@pytest.mark.parametrize("name", SHAPES)
def test_known_colours_come_back(name: str) -> None:
    mesh, material = baked(name)
    found, truth = look(mesh, material.base_color_srgb)
    psnr = -10 * np.log10(((found - truth) ** 2).mean())
    assert psnr > 38


@pytest.mark.parametrize("name", ["ball", "torus"])
def test_both_sides_of_every_seam_agree(name: str) -> None:
    mesh, material = baked(name)
    assert mesh.uvs is not None
    # Points along edges whose two faces lie in different charts.
    _, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    edges: dict[tuple[int, int], np.ndarray] = {}
    left, right = [], []
    for a, b in np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]):
        uv = mesh.uvs[[a, b]]
        other = edges.setdefault((place[b], place[a]), uv[::-1])
        edges[(place[a], place[b])] = uv
        if np.abs(other - uv[::-1]).max() > 1e-6:
            for t in (0.25, 0.5, 0.75):
                left.append((1 - t) * uv[0] + t * uv[1])
                right.append((1 - t) * other[1] + t * other[0])
    assert len(left) > 50
    difference = np.abs(
        sample(material.base_color_srgb, np.array(left)) - sample(material.base_color_srgb, np.array(right))
    )
    assert difference.mean() < 0.005
    assert np.quantile(difference, 0.99) < 0.03


def test_metallic_and_roughness_follow_their_views() -> None:
    mesh, material = baked("ball")
    texels = texels_of(mesh, SIZE)
    points = texels.interpolate(mesh.vertices, mesh.faces)
    metallic = material.metallic[texels.face >= 0]
    assert metallic[points[:, 1] > 0.1].min() > 0.9
    assert metallic[points[:, 1] < -0.1].max() < 0.1
    rough = material.roughness[texels.face >= 0]
    assert np.abs(rough - known_color(points)[:, 0]).mean() < 0.02


def test_a_picture_colours_what_faces_it_and_nothing_else() -> None:
    field = MeshField(SHAPES["ball"])
    mesh = unwrap(as_mesh(SHAPES["ball"]), SIZE)
    views, config = views_of(field), BakeConfig(texture_size=SIZE)
    front = views.gbuffer[0]
    green = front.alpha * torch.tensor([0.0, 1.0, 0.0])
    picture = ViewSet(views.cameras[0], GBuffer(alpha=front.alpha, rgb_srgb=green))
    with_it, without = bake(mesh, views, field, config, pictured=picture), bake(mesh, views, field, config)
    texels = texels_of(mesh, SIZE)
    points = texels.interpolate(mesh.vertices, mesh.faces)
    facing = points @ views.cameras.c2w[0, :3, 2].numpy() / np.linalg.norm(points, axis=1)
    chosen = texels.face >= 0
    found, before = with_it.base_color_srgb[chosen], without.base_color_srgb[chosen]
    # Green, and as bright as it was taken to be without the picture.
    assert found[facing > 0.9][:, [0, 2]].max() < 0.02
    assert found[facing > 0.9][:, 1].min() > 0.1
    assert np.abs(found[facing < 0.2] - before[facing < 0.2]).max() < 0.02
    assert np.array_equal(with_it.metallic, without.metallic)


def test_what_no_view_sees_is_filled_from_the_field_then_from_neighbours() -> None:
    field = MeshField(SHAPES["ball"])
    mesh = unwrap(as_mesh(SHAPES["ball"]), SIZE)
    views = views_of(field)
    front = ViewSet(views.cameras[0], views.gbuffer[0])
    config = BakeConfig(texture_size=SIZE)
    filled = look(mesh, bake(mesh, front, field, config).base_color_srgb)
    guessed = look(mesh, bake(mesh, front, None, config).base_color_srgb)
    assert -10 * np.log10(((filled[0] - filled[1]) ** 2).mean()) > 35
    # A guess, but one made of colours that are there: nothing black or grey.
    assert guessed[0].min() > 0.1


def test_background_does_not_bleed() -> None:
    field = MeshField(SHAPES["torus"])
    views = views_of(field)
    color = views.gbuffer.base_color_srgb
    assert color is not None
    white = torch.where(views.gbuffer.alpha > 0.5, torch.tensor([0.1, 0.6, 0.2]), torch.ones(3))
    mesh = unwrap(as_mesh(SHAPES["torus"]), SIZE)
    views = ViewSet(views.cameras, replace(views.gbuffer, base_color_srgb=white))
    material = bake(mesh, views, None, BakeConfig(texture_size=SIZE))
    assert np.abs(material.base_color_srgb - [0.1, 0.6, 0.2]).max() < 0.01


@pytest.mark.parametrize("size", [64, 50])
def test_padding_survives_mip_mapping(size: int) -> None:
    generator = np.random.default_rng(0)
    image = generator.random((size, size, 2)).astype(np.float32)
    known = generator.random((size, size)) < 0.2
    known[: size // 2, : size // 2] = False
    filled = pull_push(image, known)
    assert np.array_equal(filled[known], image[known])
    if size == 64:
        inside = known[..., None]
        low, high, mip = np.where(inside, image, np.inf), np.where(inside, image, -np.inf), filled
        for _ in range(6):
            half = len(mip) // 2
            low, high, mip = (
                step(a.reshape(half, 2, half, 2, -1), (1, 3))
                for step, a in ((np.min, low), (np.max, high), (np.mean, mip))
            )
            seen = np.isfinite(low)
            # Every mip texel lies between the known texels that it covers.
            assert (mip[seen] >= low[seen] - 1e-5).all()
            assert (mip[seen] <= high[seen] + 1e-5).all()


def test_twice_the_same() -> None:
    assert np.array_equal(baked("box")[1].base_color_srgb, baked("box")[1].base_color_srgb)


def test_a_setting_out_of_range_is_named() -> None:
    with pytest.raises(InputError, match=r"bake\.sharpness"):
        BakeConfig(sharpness=0.0)
