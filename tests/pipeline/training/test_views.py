"""Training pictures of a box show what a box looks like."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.multiview.codec import decode_gbuffer
from pipeline.training.views import Pose, cameras_of, network_images, reference_picture, training_poses
from tests.pipeline.training.test_props import box_prop


def test_front_of_a_box() -> None:
    prop = box_prop()
    half = float(prop.vertices.max())
    cameras = cameras_of([Pose(0.0, 0.0)], 64)
    image, known = network_images(prop, cameras)
    gbuffer = decode_gbuffer(torch.from_numpy(image), cameras)
    cover = gbuffer.alpha[0, ..., 0]
    # The area of the front is exact to the pixels of its outline.
    assert abs(float(cover.mean()) - half**2) < 4 * 2 * half / 64
    inside = cover == 1
    assert gbuffer.normal is not None
    assert gbuffer.depth is not None
    assert gbuffer.base_color_srgb is not None
    np.testing.assert_allclose(gbuffer.normal[0][inside].numpy(), [[0, 0, 1]] * int(inside.sum()), atol=1e-6)
    np.testing.assert_allclose(gbuffer.depth[0][inside].numpy(), 2 - half, atol=1e-5)
    colors = gbuffer.base_color_srgb[0][inside].numpy() * 255
    np.testing.assert_allclose(colors, [[200, 45, 45]] * int(inside.sum()), atol=0.01)
    assert (known == 1).all()


def test_two_sided_normals_face_the_camera() -> None:
    prop = box_prop()
    flipped = box_prop(faces=prop.faces[:, ::-1].copy())
    cameras = cameras_of([Pose(30.0, 20.0)], 32)
    np.testing.assert_allclose(
        network_images(prop, cameras)[0], network_images(flipped, cameras)[0], atol=1e-5
    )


def test_unknown_materials_are_marked_where_they_are_seen() -> None:
    prop = box_prop(material_known=np.zeros(12, np.float32))
    image, known = network_images(prop, cameras_of([Pose(0.0, 0.0)], 32))
    np.testing.assert_array_equal(known[0] == 1, image[0, 3] == -1)


def test_reference_fills_the_frame_and_is_lit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        picture = reference_picture(box_prop(), 40.0, 64, rng)
        rows, columns = np.nonzero(picture[..., 3] > 127)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.65 * 64 <= extent <= 0.95 * 64
        assert picture[picture[..., 3] == 0].max() == 0
        lit = picture[picture[..., 3] == 255][:, 0].astype(float)
        assert lit.std() > 1  # the faces of a box differ in brightness


def test_poses_hold_the_rig_of_generation() -> None:
    poses = training_poses(8, np.random.default_rng(0))
    assert len(poses) == 8
    assert all(p.elevation_deg == 15 and p.azimuth_deg % 45 == 0 for p in poses[:4])
    assert abs(poses[4].elevation_deg) == 89
