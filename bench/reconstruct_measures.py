"""What `bench.reconstruct` measures: an asset against the scene that its views were rendered from.

Distances are from points on what cameras see of one surface to the triangles of the other, so that no
density of points limits the scores. Pictures are compared over black.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from skimage.metrics import structural_similarity

from recon.projection import raycasting_scene
from render.cameras import Cameras
from render.gbuffer import GBuffer
from render.preview import PreviewRenderer
from render.rigs import RigConfig, rig_cameras
from render.scene import Mesh, Scene
from render.scene_gbuffer import gbuffer_of

POINTS = 60_000
UNSEEN = 16


@dataclass(frozen=True)
class Measures:
    """Of one asset, at views that it was not made of."""

    f_score_1: float
    """Harmonic mean of precision and recall at 1 % of the bounding box's diagonal."""
    f_score_05: float
    chamfer_percent: float
    """Mean distance of both directions, % of the diagonal."""
    normal_deg: float
    """Mean angle of shading normals where both show a surface."""
    psnr_db: float
    ssim: float
    """With a Gaussian window of 1.5 pixels (Wang et al., 2004)."""
    iou: float
    material_error: float
    """Mean absolute difference of metallic and roughness where both show a surface; nan for views without."""
    rim_share: float
    """Of the squared error of colours: the part in pixels that the two cover differently, the silhouettes."""


@dataclass(frozen=True)
class Truth:
    """A scene in the unit ball and what is to be seen of it."""

    scene: Scene
    cameras: Cameras
    """Unseen ones."""
    seen: GBuffer
    color: torch.Tensor
    """sRGB `[C, H, W, 3]` that the asset's base colour is compared with."""
    alpha: torch.Tensor
    around: Cameras
    """From which points are taken."""
    points: np.ndarray


def truth_of(scene: Scene, kind: str, rig: RigConfig) -> Truth:
    """`kind`: `rgb` compares with the scene in light, `gbuffer` with its base colour."""
    cameras = rig_cameras(replace(rig, count=UNSEEN, turn_deg=57.0))
    around = rig_cameras(replace(rig, count=40, size_px=256, turn_deg=31.0))
    seen = gbuffer_of(scene, cameras, 2)
    assert seen.base_color_srgb is not None
    color, alpha = seen.base_color_srgb, seen.alpha
    if kind == "rgb":
        pictures = PreviewRenderer(scene, floor=False, fixed_light=True).render(
            cameras, background="transparent", supersample=2
        )
        color = torch.from_numpy(pictures[..., :3].astype(np.float32) / 255)
        alpha = torch.from_numpy(pictures[..., 3:].astype(np.float32) / 255)
    return Truth(scene, cameras, seen, color, alpha, around, seen_points(scene, around))


def compare(made: Scene, truth: Truth, kind: str) -> tuple[Measures, np.ndarray]:
    """The numbers, and for pictures: wanted, made and their difference, `[C, H, 3 W, 3]` in [0, 1]."""
    a, b = gbuffer_of(made, truth.cameras, 2), truth.seen
    assert a.base_color_srgb is not None
    assert a.normal is not None
    assert b.normal is not None
    shown, wanted = a.alpha * a.base_color_srgb, truth.alpha * truth.color
    error = (shown - wanted).square().mean(-1, keepdim=True)
    rim = (a.alpha - truth.alpha).abs() > 0.02
    both = (a.alpha > 0.5) & (b.alpha > 0.5)
    union = (a.alpha > 0.5) | (b.alpha > 0.5)
    cosine = (a.normal * b.normal).sum(-1, keepdim=True).clamp(-1, 1)
    material = float("nan")
    if kind == "gbuffer":
        assert a.metallic is not None
        assert a.roughness is not None
        assert b.metallic is not None
        assert b.roughness is not None
        off = (a.metallic - b.metallic).abs() + (a.roughness - b.roughness).abs()
        material = float(off[both].mean()) / 2
    ours = seen_points(made, truth.around)
    diagonal = extent(truth.scene)
    there, back = (distances(ours, truth.scene) / diagonal, distances(truth.points, made) / diagonal)
    found = Measures(
        f_score_1=f_score(there, back, 0.01),
        f_score_05=f_score(there, back, 0.005),
        chamfer_percent=50 * float(there.mean() + back.mean()),
        normal_deg=float(torch.rad2deg(cosine.acos())[both].mean()),
        psnr_db=float(-10 * error.mean().log10()),
        ssim=float(
            np.mean(
                [
                    structural_similarity(
                        x.numpy(), y.numpy(), channel_axis=-1, data_range=1.0, gaussian_weights=True,
                        sigma=1.5, use_sample_covariance=False,
                    )
                    for x, y in zip(shown, wanted, strict=True)
                ]
            )
        ),
        iou=float(both.sum() / union.sum()),
        material_error=material,
        rim_share=float(error[rim].sum() / error.sum().clamp_min(1e-12)),
    )  # fmt: skip
    pictures = torch.cat([wanted, shown, 0.5 + 2 * (shown - wanted)], 2).clamp(0, 1).numpy()
    return found, pictures


def seen_points(scene: Scene, cameras: Cameras) -> np.ndarray:
    """Points on what the cameras see, the same number of every scene."""
    depth = gbuffer_of(scene, cameras, 1).depth
    assert depth is not None
    pixels = cameras.pixel_centers().reshape(1, -1, 2).expand(len(cameras), -1, -1)
    points = cameras.unproject(pixels, depth.flatten(1))[depth.flatten(1) > 0].numpy()
    return np.asarray(points[np.random.default_rng(0).permutation(len(points))[:POINTS]])


def distances(points: np.ndarray, scene: Scene) -> np.ndarray:
    """From points to the nearest triangle of a scene."""
    offsets = np.cumsum([0, *(len(part.mesh.vertices) for part in scene.parts[:-1])])
    vertices = np.concatenate([part.mesh.vertices for part in scene.parts])
    faces = np.concatenate([p.mesh.faces + o for p, o in zip(scene.parts, offsets, strict=True)])
    return np.asarray(raycasting_scene(vertices, faces).compute_distance(points.astype(np.float32)).numpy())


def extent(scene: Scene) -> float:
    """Diagonal of the bounding box."""
    vertices = np.concatenate([part.mesh.vertices[np.unique(part.mesh.faces)] for part in scene.parts])
    return float(np.linalg.norm(np.ptp(vertices, axis=0)))


def f_score(a: np.ndarray, b: np.ndarray, threshold: float) -> float:
    precision, recall = float((a < threshold).mean()), float((b < threshold).mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def seam_error(mesh: Mesh, texture: np.ndarray) -> float:
    """Mean difference of colour (sRGB, over channels) between the two sides of the seams of UVs."""
    assert mesh.uvs is not None
    _, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    place = place.ravel()
    start = mesh.faces[:, [0, 1, 2]].ravel()
    end = mesh.faces[:, [1, 2, 0]].ravel()
    count = int(place.max()) + 1
    forward, backward = place[start] * count + place[end], place[end] * count + place[start]
    order = np.argsort(forward, kind="stable")
    at = np.minimum(np.searchsorted(forward[order], backward), len(order) - 1)
    other = order[at]
    paired = (forward[other] == backward) & (forward < backward)
    mine = np.stack([mesh.uvs[start], mesh.uvs[end]], 1)
    theirs = np.stack([mesh.uvs[end[other]], mesh.uvs[start[other]]], 1)
    seam = paired & (np.abs(mine - theirs).max((1, 2)) > 1e-6)
    if not seam.any():
        return 0.0
    t = np.array([0.125, 0.375, 0.625, 0.875])[None, :, None]
    left, right = (
        _sampled(texture, ((1 - t) * ends[seam, 0, None] + t * ends[seam, 1, None]).reshape(-1, 2))
        for ends in (mine, theirs)
    )
    return float(np.abs(left - right).mean())


def _sampled(texture: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Bilinear, clamped."""
    height, width = texture.shape[:2]
    x = np.clip(uvs[:, 0] * width - 0.5, 0, width - 1.001)
    y = np.clip((1 - uvs[:, 1]) * height - 0.5, 0, height - 1.001)
    column, row = x.astype(int), y.astype(int)
    tx, ty = (x - column)[:, None], (y - row)[:, None]
    top = texture[row, column] * (1 - tx) + texture[row, column + 1] * tx
    bottom = texture[row + 1, column] * (1 - tx) + texture[row + 1, column + 1] * tx
    return np.asarray(top * (1 - ty) + bottom * ty)
