"""Training pictures: network images of G-buffers, and shaded reference pictures.

Rendered with the z-buffer rasteriser at twice the resolution and averaged over
the covered samples, some two milliseconds a view, so views are made when they are
needed instead of being stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from pipeline.multiview.codec import CHANNELS
from pipeline.training.props import Prop
from render.cameras import Cameras, orbit_cameras, orbit_pose
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.rasterize import rasterize

_SUPERSAMPLING = 2


@numba.njit(cache=True)
@no_type_check
def _resolve(
    face: NDArray[np.int32],
    barycentric: NDArray[np.float32],
    depth: NDArray[np.float32],
    faces: NDArray[np.int32],
    colors: NDArray[np.uint8],
    face_normals: NDArray[np.float32],
    surfaces: NDArray[np.float32],
    w2c: NDArray[np.float32],
    height_offset: float,
    factor: int,
    image: NDArray[np.float32],
    known: NDArray[np.float32],
) -> None:
    n_views, rows, columns, _ = image.shape
    for c in range(n_views):
        for row in range(rows):
            for column in range(columns):
                count = 0
                for sub in range(factor * factor):
                    y = row * factor + sub // factor
                    x = column * factor + sub % factor
                    f = face[c, y, x]
                    if f < 0:
                        continue
                    count += 1
                    for k in range(3):
                        value = np.float32(0.0)
                        for corner in range(3):
                            value += barycentric[c, y, x, corner] * colors[faces[f, corner], k]
                        image[c, row, column, k] += value / np.float32(127.5) - np.float32(1.0)
                    nx, ny, nz = face_normals[f, 0], face_normals[f, 1], face_normals[f, 2]
                    cz = w2c[c, 2, 0] * nx + w2c[c, 2, 1] * ny + w2c[c, 2, 2] * nz
                    sign = np.float32(1.0) if cz >= 0 else np.float32(-1.0)
                    image[c, row, column, 4] += sign * (
                        w2c[c, 0, 0] * nx + w2c[c, 0, 1] * ny + w2c[c, 0, 2] * nz
                    )
                    image[c, row, column, 5] += sign * (
                        w2c[c, 1, 0] * nx + w2c[c, 1, 1] * ny + w2c[c, 1, 2] * nz
                    )
                    image[c, row, column, 6] += sign * cz
                    image[c, row, column, 7] += np.float32(height_offset) - depth[c, y, x]
                    image[c, row, column, 8] += surfaces[f, 0] * 2 - 1
                    image[c, row, column, 9] += surfaces[f, 1] * 2 - 1
                    known[c, row, column] += surfaces[f, 2]
                if count == 0:
                    image[c, row, column, 3] = -1.0
                    known[c, row, column] = 1.0
                    continue
                for k in range(image.shape[3]):
                    image[c, row, column, k] /= count
                known[c, row, column] /= count
                length = np.sqrt(
                    image[c, row, column, 4] ** 2
                    + image[c, row, column, 5] ** 2
                    + image[c, row, column, 6] ** 2
                )
                for k in range(4, 7):
                    image[c, row, column, k] /= max(length, np.float32(1e-6))
                image[c, row, column, 3] = np.float32(2.0) * count / (factor * factor) - np.float32(1.0)


def face_normals(prop: Prop) -> NDArray[np.float32]:
    """Unit normals of the faces, [F, 3]; zero for degenerate ones."""
    corners = prop.vertices[prop.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return (normal / np.maximum(length, 1e-12)).astype(np.float32)


def network_images(
    prop: Prop, cameras: Cameras
) -> tuple[Float[np.ndarray, "C 10 H W"], Float[np.ndarray, "C H W"]]:
    """Network images (see `multiview.codec`) and the share of each pixel whose material is known."""
    fine = cameras.resized(cameras.width * _SUPERSAMPLING, cameras.height * _SUPERSAMPLING)
    fragments = rasterize(prop.vertices, prop.faces, fine)
    image = np.zeros((len(cameras), cameras.height, cameras.width, CHANNELS), np.float32)
    known = np.zeros(image.shape[:3], np.float32)
    c2w = cameras.c2w[0].numpy()
    _resolve(
        fragments.face,
        fragments.barycentric,
        fragments.depth,
        prop.faces,
        prop.colors,
        face_normals(prop),
        np.stack([prop.metallic, prop.roughness, prop.material_known], 1).astype(np.float32),
        cameras.w2c.numpy(),
        float(c2w[:3, 3] @ c2w[:3, 2]),
        _SUPERSAMPLING,
        image,
        known,
    )
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2)), known


@dataclass(frozen=True)
class Pose:
    """Where a view is taken from."""

    azimuth_deg: float
    elevation_deg: float


def training_poses(count: int, generator: np.random.Generator) -> list[Pose]:
    """A mix of the rig that generation uses and of free views."""
    start = float(generator.choice([0.0, 45.0]))
    ring = [Pose((start + 90 * i) % 360, 15.0) for i in range(4)]
    pole = Pose(0.0, float(generator.choice([89.0, 89.0, -89.0])))
    free = [
        Pose(float(generator.uniform(0, 360)), float(np.clip(generator.normal(15, 30), -85, 89)))
        for _ in range(max(0, count - 5))
    ]
    return [*ring, pole, *free][:count]


def cameras_of(poses: list[Pose], size: int) -> Cameras:
    """Orthographic cameras as generation uses them."""
    return orbit_cameras([p.azimuth_deg for p in poses], [p.elevation_deg for p in poses], size)


def reference_azimuth(generator: np.random.Generator) -> float:
    """From where a user's picture may be taken: mostly from the front or three quarters."""
    kind = generator.uniform()
    if kind < 0.3:
        return 0.0
    if kind < 0.7:
        return float(generator.choice([-45.0, -30.0, 30.0, 45.0])) % 360
    return float(generator.uniform(0, 360))


def reference_camera(
    vertices: Float[np.ndarray, "V 3"], azimuth_deg: float, size: int, generator: np.random.Generator
) -> tuple[Cameras, float]:
    """A perspective camera of random elevation and field of view whose frame the object fills; the elevation
    in degrees."""
    elevation = float(np.clip(generator.normal(15, 14), -15, 50))
    fov = float(generator.uniform(5, 55))
    radius = 1.05 / np.sin(np.deg2rad(fov) / 2)
    c2w = orbit_pose(torch.tensor([azimuth_deg]), torch.tensor([elevation]), radius)
    camera = Cameras(c2w, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), size, size, "perspective")
    pixels, _ = camera.project(torch.from_numpy(vertices))
    low, high = pixels[0].amin(0), pixels[0].amax(0)
    focal = size * float(generator.uniform(0.74, 0.9)) / max(float((high - low).max()), 1e-4)
    center = size / 2 - focal * (low + high) / 2
    intrinsics = torch.tensor([[focal, focal, center[0].item(), center[1].item()]])
    return Cameras(c2w, intrinsics, size, size, "perspective"), elevation


def reference_picture(
    prop: Prop, azimuth_deg: float, size: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "H W 4"]:
    """A shaded picture such as a user has: random light, elevation and field of view, filling the frame."""
    return reference_picture_of(prop, azimuth_deg, size, generator)[0]


def reference_picture_of(
    prop: Prop,
    azimuth_deg: float,
    size: int,
    generator: np.random.Generator,
    well_exposed_share: float = 0.0,
) -> tuple[UInt8[np.ndarray, "H W 4"], Cameras]:
    """`reference_picture` and the camera that took it."""
    camera, elevation = reference_camera(prop.vertices, azimuth_deg, size, generator)
    image, _ = network_images(prop, camera)
    return lit_picture(image[0], elevation, generator, well_exposed_share), camera


def premultiplied(pictures: UInt8[np.ndarray, "b H W 4"]) -> Float[torch.Tensor, "b 4 H W"]:
    """Pictures as the networks read them: colour times alpha, in [0, 1]."""
    values = torch.tensor(pictures).permute(0, 3, 1, 2).float() / 255
    return torch.cat([values[:, :3] * values[:, 3:], values[:, 3:]], 1)


def lit_picture(
    network_image: Float[np.ndarray, "10 H W"],
    elevation_deg: float,
    generator: np.random.Generator,
    well_exposed_share: float = 0.0,
) -> UInt8[np.ndarray, "H W 4"]:
    """A network image under random light; sRGB, straight alpha, black where alpha is 0.

    Lambert and Blinn-Phong under one to three directional lights and a two-tone sky. Of the pictures,
    `well_exposed_share` are as bright as people leave them, near to the object's own colours (`_exposure`);
    the others as bright as the lights happen to be, within a factor of two of these for two thirds of them.
    """
    image = network_image.transpose(1, 2, 0)
    alpha = image[..., 3:4] * 0.5 + 0.5
    albedo = srgb_to_linear_np(np.clip(image[..., 0:3] * 0.5 + 0.5, 0, 1))
    normal = image[..., 4:7]
    metallic, roughness = image[..., 8:9] * 0.5 + 0.5, image[..., 9:10] * 0.5 + 0.5
    up = normal[..., 1:2] * np.cos(np.deg2rad(elevation_deg)) + normal[..., 2:3] * np.sin(
        np.deg2rad(elevation_deg)
    )
    ambient = generator.uniform(0.25, 0.7)
    shade = ambient * (0.75 + 0.25 * up)
    highlight = np.zeros_like(alpha)
    shininess = 2 / np.maximum(roughness, 0.15) ** 4
    for _ in range(int(generator.integers(1, 4))):
        light = generator.normal(size=3) + np.array([0, 0.8, 1.0])
        light /= np.linalg.norm(light)
        strength = generator.uniform(0.3, 0.9)
        shade = shade + strength * np.clip(normal @ light, 0, 1)[..., None]
        half = light + np.array([0, 0, 1.0])
        half /= np.linalg.norm(half)
        lobe = np.clip(normal @ half, 0, 1)[..., None] ** shininess
        highlight = highlight + strength * lobe * (shininess + 8) / 25
    tint = 1 + generator.normal(size=3) * 0.06
    specular = np.where(metallic > 0.5, albedo, 0.04)
    linear = albedo * (1 - 0.6 * metallic) * shade * tint + specular * highlight
    exposure = generator.uniform(0.8, 1.15)
    if well_exposed_share > 0 and generator.uniform() < well_exposed_share:
        exposure = _exposure(linear, albedo, alpha, generator)
    srgb = linear_to_srgb_np(np.clip(linear * exposure, 0, 1).astype(np.float32))
    picture = np.concatenate([srgb * (alpha > 0), alpha], -1)
    return (picture * 255 + 0.5).astype(np.uint8)


def _exposure(
    linear: Float[np.ndarray, "H W 3"],
    albedo: Float[np.ndarray, "H W 3"],
    alpha: Float[np.ndarray, "H W 1"],
    generator: np.random.Generator,
) -> float:
    """What makes the object about 0.9 times as bright as its base colour, give or take a quarter."""
    bright, own = ((values * alpha).sum() for values in (linear, albedo))
    return float(np.exp(generator.normal(-0.12, 0.22)) * max(own, 1e-6) / max(bright, 1e-6))
