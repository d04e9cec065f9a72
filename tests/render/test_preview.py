"""The preview: framing, colours, light that belongs together, transparency, modes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
import trimesh

from render.cameras import orbit_cameras
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.environment import OCTA_SIZE, Environment, prefilter
from render.errors import InputError
from render.occlusion import fibonacci_sphere, floor_shadow, light_of, occluders_of
from render.preview import Mode, PreviewRenderer, frame_cameras, render_scene
from render.scene import Material, Mesh, Part, Scene


def part(shape: trimesh.Trimesh, color=(0.7, 0.7, 0.7), metallic=0.0, roughness=0.6, opacity=None) -> Part:
    material = Material(
        np.array(color, np.float32).reshape(1, 1, 3),
        np.full((1, 1), metallic, np.float32),
        np.full((1, 1), roughness, np.float32),
        opacity=opacity,
    )
    normals = shape.vertex_normals.astype(np.float32)
    return Part(
        Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int32), normals=normals), material
    )


@pytest.fixture(scope="module")
def sphere() -> Scene:
    return Scene((part(trimesh.creation.icosphere(subdivisions=4, radius=0.5), (0.6, 0.3, 0.1)),))


@pytest.fixture(scope="module")
def white_room() -> Environment:
    return prefilter(
        "white", np.ones((64, 128, 3)), np.ones((OCTA_SIZE, OCTA_SIZE, 3)), np.ones((2, 3), np.float32)
    )


def test_frame_shows_everything_and_fills_the_picture():
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 500.0):
        vertices = (rng.normal(size=(60, 3)) * [1.0, 0.2, 0.4] * scale + [7 * scale, 0, 0]).astype(np.float32)
        faces = rng.integers(0, 60, (40, 3)).astype(np.int32)
        shape = trimesh.Trimesh(vertices, faces, process=False)
        scene = Scene((part(shape),))
        cameras = frame_cameras(scene, (96, 64), azimuths_deg=(0.0, 77.0, 200.0), margin=0.1)
        pixels, depth = cameras.project(torch.from_numpy(vertices[np.unique(faces)]))
        assert (depth > 0).all()
        share = pixels / torch.tensor([96.0, 64.0])
        assert share.min() >= 0.1 - 1e-3
        assert share.max() <= 0.9 + 1e-3
        widest = (share - 0.5).abs().max()
        assert widest > 0.4 - 1e-3  # one side touches the margin
        picture = render_scene(scene, cameras[0], background="transparent", supersample=1)
        assert picture[..., 3].max() == 255


def test_unoccluded_white_surface_in_a_white_room_is_white(white_room: Environment):
    ball = Scene((part(trimesh.creation.icosphere(subdivisions=4, radius=0.5), (1.0, 1.0, 1.0)),))
    renderer = PreviewRenderer(ball, light=white_room, floor=False)
    picture = renderer.render(frame_cameras(ball, 64, elevation_deg=60.0), background="#000000")[0]
    upper = picture[20:30, 28:36, :3].astype(int)
    # Radiance 1 through the tone map is 0.869 in linear light, 239 in sRGB; all colours and places alike.
    assert np.ptp(upper) <= 2
    assert abs(upper.mean() - 239) <= 2


def test_matt_base_colours_come_out_as_they_are(sphere: Scene):
    picture = render_scene(sphere, frame_cameras(sphere, 96), mode="base_color")[0]
    np.testing.assert_allclose(picture[48, 48, :3] / 255, [0.6, 0.3, 0.1], atol=0.005)
    shaded = render_scene(sphere, frame_cameras(sphere, 96))[0][48, 48, :3] / 255
    # Lit by a balanced studio: the hue stays, the brightness is near.
    assert shaded[0] > shaded[1] > shaded[2]
    np.testing.assert_allclose(shaded, [0.6, 0.3, 0.1], atol=0.16)


def test_blockers_darken_below_and_nothing_darkens_alone():
    # A plate over a floor plate: the middle of the lower one is in its shade, its far corner is not.
    lower = trimesh.creation.box((2.0, 0.02, 2.0))
    upper = trimesh.creation.box((0.7, 0.02, 0.7))
    upper.apply_translation([0, 0.25, 0])
    both = trimesh.util.concatenate([lower, upper])
    vertices = (both.vertices / 1.5).astype(np.float32)
    occluders = occluders_of(vertices, both.faces.astype(np.int32))
    lights = np.ones((len(occluders.directions), 3), np.float32)
    floor = floor_shadow(occluders._replace(floor_y=float(0.011 / 1.5)), lights, 64, 1.0)
    assert floor[32, 32] < 0.35
    assert floor[8, 8] > 0.9
    alone = occluders_of((lower.vertices / 1.5).astype(np.float32), lower.faces.astype(np.int32))
    flat = floor_shadow(alone._replace(floor_y=float(0.011 / 1.5)), lights, 64, 0.6)
    assert flat.min() > 0.97


def test_directions_cover_the_sphere_evenly():
    directions = fibonacci_sphere(128)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(directions.T @ directions / 128, np.eye(3) / 3, atol=0.01)


def test_light_turns_with_the_camera():
    ball = Scene((part(trimesh.creation.icosphere(subdivisions=4, radius=0.5)),))
    cameras = frame_cameras(ball, 64, azimuths_deg=(0.0, 120.0, 240.0))
    pictures = PreviewRenderer(ball).render(cameras).astype(int)
    # A sphere looks the same from everywhere; its tessellation and the shadow maps differ by a few steps.
    assert np.abs(pictures - pictures[:1]).mean() < 1
    fixed = PreviewRenderer(ball, fixed_light=True).render(cameras).astype(int)
    assert np.abs(fixed[1] - fixed[0]).mean() > 3
    renderer = PreviewRenderer(ball)
    a, b = (light_of(renderer.occluders, renderer.environment, yaw) for yaw in (0.0, 1.0))
    assert np.abs(a - b).max() > 0.5


def test_transparent_background_composes_to_the_opaque_picture(sphere: Scene):
    cameras = frame_cameras(sphere, 96)
    clear = render_scene(sphere, cameras, background="transparent", supersample=4)[0]
    assert clear[0, 0, 3] == 0
    assert clear[48, 48, 3] == 255
    black = render_scene(sphere, cameras, background="#000000", supersample=4)[0]
    edge = (clear[..., 3] > 20) & (clear[..., 3] < 235)
    assert edge.sum() > 50
    # Straight alpha in linear light over black gives the black picture.
    linear = srgb_to_linear_np((clear[..., :3] / 255).astype(np.float32)) * (clear[..., 3:] / 255)
    composed = linear_to_srgb_np(linear.astype(np.float32)) * 255
    np.testing.assert_allclose(composed[edge], black[..., :3][edge], atol=3)


def test_edges_are_anti_aliased(sphere: Scene):
    alpha = render_scene(
        sphere, frame_cameras(sphere, 96), mode="normals", background="transparent", supersample=4
    )
    inside = np.pi * (np.sqrt(alpha[0, ..., 3].sum() / 255 / np.pi)) ** 2
    levels = np.unique(alpha[0, ..., 3])
    assert len(levels) > 8
    assert inside == pytest.approx(alpha[0, ..., 3].astype(float).sum() / 255)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_mode_draws_the_object(sphere: Scene, mode: Mode):
    cameras = frame_cameras(sphere, 64)
    picture = render_scene(sphere, cameras, mode=mode, background="#ff00ff")
    assert picture.shape == (1, 64, 64, 4)
    assert picture.dtype == np.uint8
    assert tuple(picture[0, 0, 0]) == (255, 0, 255, 255)
    middle = picture[0, 32, 32, :3].astype(int)
    expected = {"normals": None, "roughness": 0.6 * 255, "metallic": 0}.get(mode)
    if expected is not None:
        np.testing.assert_allclose(middle, expected, atol=3)
    again = render_scene(sphere, cameras, mode=mode, background="#ff00ff")
    np.testing.assert_array_equal(picture, again)


def test_wireframe_has_lines_of_even_width():
    box = Scene((part(trimesh.creation.box((1, 1, 1))),))
    cameras = orbit_cameras([0.0], [0.0], 128)
    picture = render_scene(box, cameras, mode="wireframe", background="#ffffff")[0, ..., :3].mean(-1)
    row = picture[50, 34:94]
    assert (row < 120).sum() in (1, 2, 3)  # the diagonal
    assert picture[64, 40:60].min() > 120


def test_parts_far_from_the_origin_and_tiny_ones_are_drawn_alike(sphere: Scene):
    pictures = []
    for scale, move in ((1.0, 0.0), (1e-4, 0.0), (1e3, 5e3)):
        mesh = sphere.parts[0].mesh
        moved = Mesh((mesh.vertices * scale + move).astype(np.float32), mesh.faces, normals=mesh.normals)
        scene = Scene((Part(moved, sphere.parts[0].material),))
        pictures.append(render_scene(scene, frame_cameras(scene, 64))[0].astype(int))
    assert np.abs(pictures[1] - pictures[0]).mean() < 0.5
    assert np.abs(pictures[2] - pictures[0]).mean() < 1.0  # float32 positions 5 km away


def test_wrong_arguments_are_refused(sphere: Scene):
    cameras = frame_cameras(sphere, 16)
    with pytest.raises(InputError, match="environment"):
        render_scene(sphere, cameras, environment="moon")
    with pytest.raises(InputError, match="background"):
        render_scene(sphere, cameras, background="#12")
    with pytest.raises(InputError, match="nothing to draw"):
        render_scene(Scene(()), cameras)
    point = Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    with pytest.raises(InputError, match="no extent"):
        frame_cameras(Scene((Part(point, sphere.parts[0].material),)), 16)
