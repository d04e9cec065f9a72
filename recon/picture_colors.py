"""Given pictures as views of the mesh that was made of them, without light.

Drawn views have a thing's colours by and large, and the picture has its face. Where it was taken from is a
guess, so it is first laid over the mesh's own outline. What the picture is brighter or darker by than the
mesh is then taken out of it in two steps: what depends on how the surface is turned (spherical harmonics to
the second order; Ramamoorthi and Hanrahan, 2001), and what else changes slowly. Both are grey, so that hues
stay the picture's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from render.cameras import Cameras, orbit_cameras
from render.conventions import linear_to_srgb, srgb_to_linear
from render.gbuffer import GBuffer, ViewSet
from render.harmonics import harmonics
from render.placing import elevations, placed
from render.rasterize import rasterize
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of

_PLACING_PX = 64
"""Side of the views in which pictures are placed."""
_SHOWN = 4.0
"""Logit of what the mesh covers."""
_SLOW = 0.25
"""Of the picture's side: over less than this, brightness is the thing's own."""
_LEAST, _MOST = 0.4, 2.5
"""By what light may have changed a colour, in each step."""
_LUMINANCE = (0.2126, 0.7152, 0.0722)


def without_light(pictures: ViewSet, mesh: Mesh, base_color_srgb: Float[np.ndarray, "H W 3"]) -> ViewSet:
    """Alpha and base colour of orthographic views with light (`rgb_srgb`) of `mesh`, which has UVs, normals
    and about these colours; from where they show it best."""
    given = pictures.gbuffer
    assert given.rgb_srgb is not None
    cameras = _from_where(pictures.cameras, given.alpha, mesh)
    none = np.zeros((1, 1), np.float32)
    known = gbuffer_of(Scene((Part(mesh, Material(base_color_srgb, none, none)),)), cameras, supersample=1)
    assert known.base_color_srgb is not None
    assert known.normal is not None
    colors = [
        alpha * _unlit(color, (alpha > 0.5) & (own > 0.5), base, normal)
        for alpha, color, own, base, normal in zip(
            given.alpha, given.rgb_srgb, known.alpha, known.base_color_srgb, known.normal, strict=True
        )
    ]
    return ViewSet(cameras, GBuffer(alpha=given.alpha, base_color_srgb=torch.stack(colors)))


def _from_where(cameras: Cameras, alpha: Float[Tensor, "C s s 1"], mesh: Mesh) -> Cameras:
    """The cameras near the guesses from which the mesh is what the pictures cover."""
    azimuths, elevations_deg, intrinsics = [], [], []
    for c2w, covered in zip(cameras.c2w, alpha, strict=True):
        back = c2w[:3, 2]
        azimuth = float(torch.rad2deg(torch.atan2(back[0], back[2])))
        turns = torch.rad2deg(torch.asin(back[1].clamp(-1, 1)) + elevations()).tolist()
        views = orbit_cameras([azimuth] * len(turns), turns, _PLACING_PX)
        shown = torch.from_numpy(rasterize(mesh.vertices, mesh.faces, views).face >= 0)
        size = (_PLACING_PX, _PLACING_PX)
        small = F.interpolate(covered.permute(2, 0, 1)[None], size, mode="area")[0, 0]
        place = placed(small.flip(0), torch.where(shown.flip(1), _SHOWN, -_SHOWN))
        azimuths.append(azimuth)
        elevations_deg.append(turns[place.elevation])
        half = cameras.width / 2
        scale = half * place.zoom
        intrinsics.append([scale, scale, half * (1 + place.right), half * (1 - place.up)])
    found = orbit_cameras(azimuths, elevations_deg, cameras.width)
    return replace(found, intrinsics=torch.tensor(intrinsics))


def _unlit(
    color: Float[Tensor, "s s 3"],
    both: Bool[Tensor, "s s 1"],
    known: Float[Tensor, "s s 3"],
    normal: Float[Tensor, "s s 3"],
) -> Float[Tensor, "s s 3"]:
    """sRGB to sRGB, as bright as what is known, where it is, but for what changes over few pixels."""
    if not bool(both.any()):
        return color
    linear, inside = srgb_to_linear(color.clamp(0, 1)), both[..., 0]
    bright, wanted = _luminance(linear), _luminance(srgb_to_linear(known.clamp(0, 1)))
    turned = torch.from_numpy(harmonics(normal[inside].numpy(), 2)).float()
    rows = turned * wanted[inside][:, None]
    firm = 1e-3 * len(rows) * torch.eye(rows.shape[1]) * float(wanted[inside].square().mean())
    share = torch.linalg.solve(rows.T @ rows + firm, rows.T @ bright[inside])
    light = torch.ones_like(bright)
    light[inside] = (turned @ share).clamp(_LEAST, _MOST)
    window = 2 * int(_SLOW * color.shape[1] / 2) + 1

    def slow(values: Float[Tensor, "s s"]) -> Float[Tensor, "s s"]:
        for _ in range(2):
            values = F.avg_pool2d(values[None], window, 1, window // 2, count_include_pad=False)[0]
        return values

    near = slow(inside.float())
    rest = slow(wanted * inside) / slow(bright / light * inside).clamp_min(1e-4)
    rest = torch.where(near > 1e-3, rest, 1.0).clamp(1 / _MOST, 1 / _LEAST)
    return linear_to_srgb((linear * (rest / light)[..., None]).clamp(0, 1))


def _luminance(linear: Float[Tensor, "s s 3"]) -> Float[Tensor, "s s"]:
    return linear @ torch.tensor(_LUMINANCE)
