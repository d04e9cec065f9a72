"""The path tracer against what is known, and against the preview renderer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

pytest.importorskip("mitsuba")

from render.environment import environment
from render.errors import InputError
from render.pathtrace import PathConfig, PathRenderer
from render.preview import PreviewRenderer, frame_cameras
from render.scene import Material, Mesh, Part, Scene

FEW = PathConfig(samples=16)


def ball(color: float = 0.5, metal: float = 0.0, rough: float = 0.8, **maps: np.ndarray) -> Scene:
    shape = trimesh.creation.icosphere(4, 0.6)
    mesh = Mesh(
        shape.vertices.astype(np.float32),
        shape.faces.astype(np.int32),
        shape.vertex_normals.astype(np.float32),
    )
    material = Material(
        np.full((1, 1, 3), color, np.float32),
        np.full((1, 1), metal, np.float32),
        np.full((1, 1), rough, np.float32),
    )
    return Scene((Part(mesh, replace(material, **maps)),))


def sheet(normal: np.ndarray | None = None, mirrored: bool = False) -> Scene:
    """A square that faces +Z."""
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    uvs = vertices[:, :2] * 0.5 + 0.5
    if mirrored:
        uvs = np.stack([1 - uvs[:, 0], uvs[:, 1]], 1)
    mesh = Mesh(
        vertices,
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        np.tile(np.array([[0, 0, 1]], np.float32), (4, 1)),
        uvs.astype(np.float32),
    )
    half = np.full((1, 1), 0.5, np.float32)
    return Scene((Part(mesh, Material(np.stack([half] * 3, -1), half * 0, half * 2, normal=normal)),))


def white_room() -> object:
    """Radiance 1 from everywhere."""
    studio = environment("studio")
    return replace(studio, equirect_linear=np.ones_like(studio.equirect_linear))


@pytest.mark.parametrize(("metal", "rough"), [(0.0, 0.8), (1.0, 0.2)])
def test_a_white_ball_in_a_white_room_stays_white(metal: float, rough: float) -> None:
    scene = ball(1.0, metal, rough)
    renderer = PathRenderer(scene, light=white_room(), floor=False, config=FEW)  # type: ignore[arg-type]
    light, coverage = renderer.radiance(frame_cameras(scene, 48))
    mean = light[coverage > 0.99].mean()
    # Burley's diffuse lobe gives back up to 7 % more than it gets at grazing angles.
    assert 0.93 < mean < 1.08


@pytest.mark.parametrize("light", ["studio", "sunset", "overcast"])
def test_both_renderers_show_a_matt_ball_alike(light: str) -> None:
    scene = ball()
    cameras = frame_cameras(scene, 64)
    preview = PreviewRenderer(scene, light=light).render(cameras)[0].astype(float)
    path = PathRenderer(scene, light=light, config=FEW).render(cameras)[0].astype(float)
    _, coverage = PathRenderer(scene, light=light, config=FEW).radiance(cameras)
    inside = coverage > 0.99
    # Their means differ by bounced light and Burley's against Lambert's diffuse; the rest is noise.
    assert abs((preview - path)[inside][:, :3].mean()) < 9
    assert np.abs(preview - path)[~inside][:, :3].mean() < 8


def test_pictures_line_up() -> None:
    scene = ball()
    cameras = frame_cameras(scene, 64)
    a = PreviewRenderer(scene, floor=False).render(cameras, background="transparent")[0, ..., 3]
    b = PathRenderer(scene, floor=False, config=FEW).render(cameras, background="transparent")[0, ..., 3]
    assert np.abs(a.astype(int) - b).mean() < 2


def test_the_floor_catches_a_shadow_and_nothing_else() -> None:
    scene = ball()
    cameras = frame_cameras(scene, 64)
    picture = PathRenderer(scene, config=FEW).render(cameras, background="transparent")[0]
    above, below = picture[:6], picture[-14:]
    assert above[..., 3].max() == 0
    assert below[..., 3].max() > 40
    shaded = picture[-3:]
    assert shaded[..., :3].max() <= 2
    bare = PathRenderer(scene, floor=False, config=FEW).render(cameras, background="transparent")[0]
    assert bare[-3:, ..., 3].max() == 0


@pytest.mark.parametrize("mirrored", [False, True])
def test_normal_maps_bend_as_in_the_preview(mirrored: bool) -> None:
    """Relief that faces up is lit like the preview's and unlike relief that faces down."""
    bent = np.array([0.0, 0.7, 0.714], np.float32)
    up = np.tile(bent * 0.5 + 0.5, (4, 4, 1)).astype(np.float32)
    down = up.copy()
    down[..., 1] = 1 - down[..., 1]
    means = []
    for normal in (up, down):
        scene = sheet(normal, mirrored)
        cameras = frame_cameras(scene, 32, azimuths_deg=(0.0,), elevation_deg=0.0)
        preview = PreviewRenderer(scene, floor=False).render(cameras)[0, 10:22, 10:22, :3].mean()
        path = PathRenderer(scene, floor=False, config=FEW).render(cameras)[0, 10:22, 10:22, :3].mean()
        means.append((preview, path))
    (preview_up, path_up), (preview_down, path_down) = means
    assert preview_up - preview_down > 20
    assert path_up - path_down > 20
    assert path_up == pytest.approx(preview_up, abs=14)


def test_emission_shines() -> None:
    scene = ball(emissive_srgb=np.full((1, 1, 3), 0.9, np.float32))
    cameras = frame_cameras(scene, 32)
    dark = PathRenderer(ball(), config=FEW).render(cameras)[0, 16, 16, :3]
    assert (PathRenderer(scene, config=FEW).render(cameras)[0, 16, 16, :3] > dark).all()


def test_twice_the_same_and_bad_settings() -> None:
    scene = ball()
    cameras = frame_cameras(scene, 24)
    first, second = (PathRenderer(scene, config=FEW).render(cameras) for _ in range(2))
    assert np.array_equal(first, second)
    with pytest.raises(InputError, match=r"path\.samples"):
        PathConfig(samples=0)
    with pytest.raises(InputError, match="nvironment"):
        PathRenderer(scene, light="moon")
