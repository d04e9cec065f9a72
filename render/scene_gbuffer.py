"""Ground-truth G-buffers of a scene: what a view shows besides light.

In: a `Scene` (parts, textures, vertex colours, normal maps) and cameras. Out: a `GBuffer` with alpha, base
colour, normal, depth, metallic and roughness, on request emission. Every pixel is the mean over
`supersample`^2 subsamples; the channels besides alpha are averaged over the covered ones only, colours in
linear light, normals as vectors.
Used as the training target of the multi-view model and as the reference that baking is tested against.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from render.cameras import Cameras
from render.conventions import linear_to_srgb
from render.errors import InputError
from render.gbuffer import GBuffer
from render.packed_scene import (
    COLOR,
    EMITTED,
    METAL,
    OPACITY,
    ROUGH,
    SHADING_NORMAL,
    SURFACE_SIZE,
    PackedScene,
    pack,
    surface_at,
)
from render.rasterize import Cutouts, Fragments, rasterize
from render.scene import Scene

_MAX_SUPERSAMPLE = 8


def cutouts_of(packed: PackedScene) -> Cutouts | None:
    """What `rasterize` needs to know of the opacity maps; None when all is opaque."""
    maps = np.ascontiguousarray(packed.maps[:, OPACITY])
    cut = maps[:, 0] >= 0
    if not cut.any():
        return None
    face_map = np.where(cut[packed.face_part], packed.face_part, -1).astype(np.int32)
    return Cutouts(packed.uvs, face_map, packed.texels, maps)


def fragments_of(packed: PackedScene, cameras: Cameras, supersample: int) -> Fragments:
    """Visibility at `supersample` times the cameras' resolution."""
    fine = cameras.resized(cameras.width * supersample, cameras.height * supersample)
    return rasterize(packed.vertices, packed.faces, fine, cutouts_of(packed))


@numba.njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def _resolve(
    scene: PackedScene,
    c2w: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    supersample: int,
    face: NDArray[np.int32],
    barycentric: NDArray[np.float32],
    depth: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Means over subsamples into `out` [C,H,W,13]: alpha, colour, normal, depth, material, emitted light."""
    cameras, height, width = out.shape[0], out.shape[1], out.shape[2]
    for job in numba.prange(cameras * height):
        c, row = job // height, job % height
        surface = np.empty(SURFACE_SIZE, np.float32)
        total = np.empty(12, np.float32)
        fx, fy = intrinsics[c, 0], intrinsics[c, 1]
        cx, cy = intrinsics[c, 2], intrinsics[c, 3]
        one, half, fine = np.float32(1.0), np.float32(0.5), np.float32(supersample)
        for column in range(width):
            covered = 0
            total[:] = np.float32(0.0)
            for sub in range(supersample * supersample):
                r = row * supersample + sub // supersample
                q = column * supersample + sub % supersample
                f = face[c, r, q]
                if f < 0:
                    continue
                z = depth[c, r, q]
                vx, vy, vz = c2w[c, 0, 2], c2w[c, 1, 2], c2w[c, 2, 2]
                pixel = one / (fx * fine)
                if perspective:
                    x = -((q + half) / fine - cx) / fx
                    y = ((r + half) / fine - cy) / fy
                    vx += x * c2w[c, 0, 0] + y * c2w[c, 0, 1]
                    vy += x * c2w[c, 1, 0] + y * c2w[c, 1, 1]
                    vz += x * c2w[c, 2, 0] + y * c2w[c, 2, 1]
                    inverse = np.float32(1.0) / np.sqrt(vx * vx + vy * vy + vz * vz)
                    vx, vy, vz = vx * inverse, vy * inverse, vz * inverse
                    pixel *= z
                b = barycentric[c, r, q]
                surface_at(scene, f, b[0], b[1], b[2], vx, vy, vz, np.log2(pixel), surface)
                covered += 1
                for k in range(3):
                    total[k] += surface[COLOR + k]
                    total[3 + k] += surface[SHADING_NORMAL + k]
                    total[9 + k] += surface[EMITTED + k]
                total[6] += z
                total[7] += surface[METAL]
                total[8] += surface[ROUGH]
            if covered == 0:
                continue
            share = np.float32(1.0) / covered
            length = np.sqrt(total[3] ** 2 + total[4] ** 2 + total[5] ** 2)
            if length < 1e-12:
                # Opposite normals cancelled; any of them is a unit normal.
                total[3:6] = surface[SHADING_NORMAL : SHADING_NORMAL + 3]
                length = np.float32(1.0)
            pixel_out = out[c, row, column]
            pixel_out[0] = np.float32(covered) / (supersample * supersample)
            for k in range(3):
                pixel_out[1 + k] = total[k] * share
                pixel_out[4 + k] = total[3 + k] / length
            for k in range(6, 12):
                pixel_out[1 + k] = total[k] * share


def gbuffer_of(scene: Scene, cameras: Cameras, supersample: int = 2, *, emissive: bool = False) -> GBuffer:
    """All channels of `scene` in every camera, on the CPU; emission, cut at white, where it is asked for.

    Textures repeat and are filtered trilinearly at the size of a subsample. Normals are the shading
    normals (interpolated or flat, bent by the normal map), turned to the eye. Texels whose opacity lies
    below 0.5 are cut out. Raises `InputError` on an empty scene or a supersample outside 1 to 8.
    """
    if not 1 <= supersample <= _MAX_SUPERSAMPLE:
        raise InputError(f"supersample is {supersample}; it must be from 1 to {_MAX_SUPERSAMPLE}.")
    packed = pack(scene)
    out = np.zeros((len(cameras), cameras.height, cameras.width, 13), np.float32)
    c2w = cameras.c2w.cpu().numpy().astype(np.float32)
    intrinsics = cameras.intrinsics.cpu().numpy().astype(np.float32)
    for index in range(len(cameras)):
        # One camera at a time: the visibility buffer of one 512-pixel view at 2x2 takes 20 MB.
        fragments = fragments_of(packed, cameras[index], supersample)
        _resolve(
            packed,
            c2w[index : index + 1],
            intrinsics[index : index + 1],
            cameras.projection == "perspective",
            supersample,
            fragments.face,
            fragments.barycentric,
            fragments.depth,
            out[index : index + 1],
        )
    tensor = torch.from_numpy(out)
    return GBuffer(
        alpha=tensor[..., :1].contiguous(),
        base_color_srgb=linear_to_srgb(tensor[..., 1:4].clamp(0, 1)).contiguous(),
        normal=tensor[..., 4:7].contiguous(),
        depth=tensor[..., 7:8].contiguous(),
        metallic=tensor[..., 8:9].contiguous(),
        roughness=tensor[..., 9:10].contiguous(),
        emissive_srgb=linear_to_srgb(tensor[..., 10:].clamp(0, 1)).contiguous() if emissive else None,
    )
