"""The preview renderer: a deferred, anti-aliased PBR picture of any scene, at interactive rates on a CPU.

In: a `Scene`, cameras, the name of an environment, a background and a mode. Out: 8-bit sRGB pictures with
alpha. Visibility is rasterised at `supersample`^2 subsamples a pixel; subsamples of one pixel that see the
same smooth surface are shaded once. `PreviewRenderer` keeps what does not depend on the view (textures,
shadow maps, environment), so a turntable pays for it once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple, get_args, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from render.background import background_linear
from render.cameras import Cameras
from render.conventions import linear_to_srgb_np
from render.environment import Environment, brdf_lut, environment
from render.errors import InputError
from render.framing import frame_cameras as frame_cameras
from render.framing import placement_of
from render.occlusion import Occluders, floor_shadow, light_of, lit_share, occluders_of
from render.packed_scene import (
    COLOR,
    FACE_NORMAL,
    METAL,
    POSITION,
    ROUGH,
    SHADING_NORMAL,
    SURFACE_SIZE,
    PackedScene,
    pack,
    surface_at,
)
from render.rasterize import rasterize
from render.scene import Material, Scene
from render.scene_gbuffer import cutouts_of
from render.shading import shade, tone_map

Mode = Literal["shaded", "clay", "normals", "wireframe", "base_color", "roughness", "metallic"]

_SHADED, _NORMALS, _BASE_COLOR, _ROUGHNESS, _METALLIC, _WIREFRAME = range(6)
_KERNEL_MODE: dict[Mode, int] = {
    "shaded": _SHADED,
    "clay": _SHADED,
    "normals": _NORMALS,
    "wireframe": _WIREFRAME,
    "base_color": _BASE_COLOR,
    "roughness": _ROUGHNESS,
    "metallic": _METALLIC,
}
_ENCODE_STEPS = 16384
_FLOOR_SIZE = 80
_FLOOR_REACH = 1.8
"""Half the side of the square of floor that may be in shadow, in radii of the object."""
_FLOOR_STRENGTH = np.float32(0.85)
"""The floor is as bright as the background, so its shadow is lighter than on a grey floor."""
_CLAY_SRGB = (0.80, 0.785, 0.765)
_LINE_PX = np.float32(0.55)
"""Half the width of a wireframe line, in output pixels."""
_SMOOTH = np.float32(0.94)
"""Cosine between neighbouring faces (20 degrees) below which a pixel shades them apart."""


class _View(NamedTuple):
    """What the kernel needs of one camera and the light."""

    c2w: Float[np.ndarray, "4 4"]
    intrinsics: Float[np.ndarray, "4"]
    perspective: bool
    screen: Float[np.ndarray, "V 2"]
    """Vertices in output pixels; only for wireframes, else empty."""
    lights: Float[np.ndarray, "D 3"]
    floor: Float[np.ndarray, "S S"]
    yaw_cosine: float
    yaw_sine: float
    mode: int
    show_floor: bool


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _line(view: _View, faces: NDArray[np.int32], face: int, b: NDArray[np.float32]) -> float:
    """How dark the wireframe is at a fragment, from its distance to the triangle's sides in pixels."""
    i0, i1, i2 = faces[face, 0], faces[face, 1], faces[face, 2]
    p = view.screen
    area = abs((p[i1, 0] - p[i0, 0]) * (p[i2, 1] - p[i0, 1]) - (p[i2, 0] - p[i0, 0]) * (p[i1, 1] - p[i0, 1]))
    s0 = np.sqrt((p[i2, 0] - p[i1, 0]) ** 2 + (p[i2, 1] - p[i1, 1]) ** 2)
    s1 = np.sqrt((p[i0, 0] - p[i2, 0]) ** 2 + (p[i0, 1] - p[i2, 1]) ** 2)
    s2 = np.sqrt((p[i1, 0] - p[i0, 0]) ** 2 + (p[i1, 1] - p[i0, 1]) ** 2)
    tiny = np.float32(1e-6)
    nearest = min(b[0] * area / (s0 + tiny), min(b[1] * area / (s1 + tiny), b[2] * area / (s2 + tiny)))
    return np.float32(min(max(_LINE_PX + np.float32(0.5) - nearest, np.float32(0.0)), np.float32(1.0)))


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _same_surface(scene: PackedScene, face_normals: NDArray[np.float32], a: int, b: int) -> bool:
    """Whether two faces meet smoothly: then their fragments in one pixel are shaded once."""
    if a == b:
        return True
    fa, fb = scene.faces[a], scene.faces[b]
    touch = False
    for i in range(3):
        for j in range(3):
            touch = touch or fa[i] == fb[j]
    if not touch:
        return False
    na, nb = face_normals[a], face_normals[b]
    return abs(na[0] * nb[0] + na[1] * nb[1] + na[2] * nb[2]) > _SMOOTH


@numba.njit(cache=True, error_model="numpy", parallel=True, fastmath={"contract", "nsz", "arcp"})
@no_type_check
def _draw(
    scene: PackedScene,
    occluders: Occluders,
    view: _View,
    sh: NDArray[np.float32],
    prefiltered: NDArray[np.float32],
    lut: NDArray[np.float32],
    face_normals: NDArray[np.float32],
    face: NDArray[np.int32],
    barycentric: NDArray[np.float32],
    depth: NDArray[np.float32],
    background: NDArray[np.float32],
    transparent: bool,
    encode: NDArray[np.float32],
    out: NDArray[np.uint8],
) -> None:
    height, width = out.shape[0], out.shape[1]
    fine = face.shape[0] // height
    subsamples = fine * fine
    fx, fy, cx, cy = view.intrinsics[0], view.intrinsics[1], view.intrinsics[2], view.intrinsics[3]
    m = view.c2w
    for row in numba.prange(height):
        surface = np.empty(SURFACE_SIZE, np.float32)
        share = np.ones(3, np.float32)
        scratch = np.empty(3, np.float32)
        color = np.empty(3, np.float32)
        total = np.empty(3, np.float32)
        done = np.empty(subsamples, np.bool_)
        # Places of the subsamples: a division for each would cost as much as the shading.
        down, right = np.empty(subsamples, np.int64), np.empty(subsamples, np.int64)
        for sub in range(subsamples):
            down[sub], right[sub] = row * fine + sub // fine, sub % fine
        lit_face, lit_normal = -1, np.empty(3, np.float32)
        for column in range(width):
            total[:] = np.float32(0.0)
            covered, empty, floor_alpha = 0, 0, np.float32(0.0)
            for sub in range(subsamples):
                done[sub] = face[down[sub], column * fine + right[sub]] < 0
                empty += done[sub]
            x = (column + np.float32(0.5) - cx) / fx
            y = -(row + np.float32(0.5) - cy) / fy
            rx = m[0, 0] * x + m[0, 1] * y
            ry = m[1, 0] * x + m[1, 1] * y
            rz = m[2, 0] * x + m[2, 1] * y
            if empty > 0 and view.show_floor:
                ox, oy, oz, dx, dy, dz = m[0, 3], m[1, 3], m[2, 3], rx - m[0, 2], ry - m[1, 2], rz - m[2, 2]
                if not view.perspective:
                    ox, oy, oz, dx, dy, dz = ox + rx, oy + ry, oz + rz, -m[0, 2], -m[1, 2], -m[2, 2]
                if dy < -1e-4:
                    t = (occluders.floor_y - oy) / dy
                    size = view.floor.shape[0]
                    hx, hz = (ox + t * dx) / _FLOOR_REACH, (oz + t * dz) / _FLOOR_REACH
                    fade = np.float32(1.0) - np.sqrt(hx * hx + hz * hz)
                    if t > 0.0 and fade > 0.0:
                        px = (hx * np.float32(0.5) + np.float32(0.5)) * size - np.float32(0.5)
                        pz = (hz * np.float32(0.5) + np.float32(0.5)) * size - np.float32(0.5)
                        px = min(max(px, np.float32(0.0)), np.float32(size - 1.001))
                        pz = min(max(pz, np.float32(0.0)), np.float32(size - 1.001))
                        i, j = int(pz), int(px)
                        wx, wz = px - j, pz - i
                        top = view.floor[i, j] * (1 - wx) + view.floor[i, j + 1] * wx
                        bottom = view.floor[i + 1, j] * (1 - wx) + view.floor[i + 1, j + 1] * wx
                        dark = np.float32(1.0) - (top * (1 - wz) + bottom * wz)
                        floor_alpha = dark * _FLOOR_STRENGTH * min(np.float32(1.0), 3 * fade)
            for sub in range(subsamples):
                if done[sub]:
                    continue
                r, q = down[sub], column * fine + right[sub]
                f = face[r, q]
                group, line = 0, np.float32(0.0)
                for other in range(sub, subsamples):
                    ro, qo = down[other], column * fine + right[other]
                    if not done[other] and _same_surface(scene, face_normals, f, face[ro, qo]):
                        done[other] = True
                        group += 1
                        if view.mode == _WIREFRAME:
                            line += _line(view, scene.faces, face[ro, qo], barycentric[ro, qo])
                covered += group
                vx, vy, vz = m[0, 2], m[1, 2], m[2, 2]
                pixel = np.float32(1.0) / fx
                if view.perspective:
                    vx, vy, vz = vx - rx, vy - ry, vz - rz
                    inverse = np.float32(1.0) / np.sqrt(vx * vx + vy * vy + vz * vz)
                    vx, vy, vz = vx * inverse, vy * inverse, vz * inverse
                    pixel *= depth[r, q]
                b = barycentric[r, q]
                surface_at(scene, f, b[0], b[1], b[2], vx, vy, vz, np.log2(pixel), surface)
                if view.mode == _SHADED or view.mode == _WIREFRAME:
                    # Soft light changes slowly: with 2x2 subsamples every second pixel takes its neighbour's,
                    # when both see the same surface.
                    steady = (
                        lit_face >= 0
                        and column % 2 == 1
                        and fine <= 2
                        and _same_surface(scene, face_normals, f, lit_face)
                        and surface[SHADING_NORMAL] * lit_normal[0]
                        + surface[SHADING_NORMAL + 1] * lit_normal[1]
                        + surface[SHADING_NORMAL + 2] * lit_normal[2]
                        > _SMOOTH
                    )
                    if not steady:
                        lit_face = f
                        lit_normal[:] = surface[SHADING_NORMAL : SHADING_NORMAL + 3]
                        lit_share(
                            occluders,
                            view.lights,
                            surface[POSITION],
                            surface[POSITION + 1],
                            surface[POSITION + 2],
                            surface[FACE_NORMAL],
                            surface[FACE_NORMAL + 1],
                            surface[FACE_NORMAL + 2],
                            surface[SHADING_NORMAL],
                            surface[SHADING_NORMAL + 1],
                            surface[SHADING_NORMAL + 2],
                            share,
                        )
                    shade(
                        surface,
                        vx,
                        vy,
                        vz,
                        share,
                        sh,
                        prefiltered,
                        lut,
                        view.yaw_cosine,
                        view.yaw_sine,
                        scratch,
                        color,
                    )
                    tone_map(color)
                    if view.mode == _WIREFRAME:
                        for c in range(3):
                            color[c] *= np.float32(1.0) - np.float32(0.9) * line / group
                elif view.mode == _NORMALS:
                    for c in range(3):
                        value = surface[SHADING_NORMAL + c] * np.float32(0.5) + np.float32(0.5)
                        color[c] = value ** np.float32(2.2)
                elif view.mode == _BASE_COLOR:
                    for c in range(3):
                        color[c] = surface[COLOR + c]
                else:
                    value = surface[ROUGH] if view.mode == _ROUGHNESS else surface[METAL]
                    for c in range(3):
                        color[c] = value ** np.float32(2.2)
                for c in range(3):
                    total[c] += color[c] * group
            share_covered = np.float32(covered) / subsamples
            behind = (np.float32(1.0) - share_covered) * (np.float32(1.0) - floor_alpha)
            # Interleaved gradient noise (Jimenez 2014) hides the steps of 8 bits in soft gradients.
            noise = np.float32(0.5)
            if covered < subsamples:
                noise = np.float32(0.06711056) * np.float32(column) + np.float32(0.00583715) * np.float32(row)
                noise = np.float32(52.9829189) * (noise - np.floor(noise))
                # Whole values stay as they are.
                noise = np.float32(0.01) + np.float32(0.98) * (noise - np.floor(noise))
            alpha = np.float32(1.0) - behind if transparent else np.float32(1.0)
            for c in range(3):
                value = total[c] / subsamples
                if transparent:
                    value = value / max(alpha, np.float32(1e-6))
                else:
                    value += behind * background[row, column, c]
                index = int(
                    min(max(value, np.float32(0.0)), np.float32(1.0)) * (encode.shape[0] - 1)
                    + np.float32(0.5)
                )
                out[row, column, c] = np.uint8(encode[index] * 255 + noise)
            out[row, column, 3] = np.uint8(alpha * 255 + np.float32(0.5))


def clay(scene: Scene) -> Scene:
    """The same shapes and cut-outs in one matt material without textures."""

    def material(old: Material) -> Material:
        return Material(
            base_color_srgb=np.array(_CLAY_SRGB, np.float32).reshape(1, 1, 3),
            metallic=np.zeros((1, 1), np.float32),
            roughness=np.full((1, 1), 0.6, np.float32),
            opacity=old.opacity,
            name=old.name,
        )

    return Scene(
        tuple(
            replace(part, mesh=replace(part.mesh, colors_srgb=None), material=material(part.material))
            for part in scene.parts
        )
    )


class PreviewRenderer:
    """A scene made ready for drawing: packed textures, shadow maps, prefiltered light.

    The light turns with the camera's azimuth unless `fixed_light`, so that every side of a turntable is lit
    as well as the first. Raises `InputError` on an empty scene or an unknown environment or mode.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        light: Environment | str = "studio",
        mode: Mode = "shaded",
        floor: bool = True,
        fixed_light: bool = False,
    ) -> None:
        if mode not in get_args(Mode):
            raise InputError(f"Unknown mode {mode!r}; choose one of {', '.join(get_args(Mode))}.")
        self.mode: Mode = mode
        self.lit = mode in ("shaded", "clay", "wireframe")
        self.floor = floor and self.lit
        self.fixed_light = fixed_light
        self.environment = environment(light) if isinstance(light, str) else light
        self.placement = placement_of(scene)
        packed = pack(clay(scene) if mode in ("clay", "wireframe") else scene)
        vertices = (packed.vertices - self.placement.center) / np.float32(self.placement.radius)
        self.packed = packed._replace(
            vertices=np.ascontiguousarray(vertices, np.float32),
            face_log2_uv=packed.face_log2_uv + np.float32(np.log2(self.placement.radius)),
        )
        corners = self.packed.vertices[self.packed.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
        self.face_normals = np.ascontiguousarray(normals, np.float32)
        self.cutouts = cutouts_of(self.packed)
        self.occluders = occluders_of(self.packed.vertices, self.packed.faces, self.cutouts)
        steps = np.linspace(0, 1, _ENCODE_STEPS, dtype=np.float32)
        self._encode = linear_to_srgb_np(steps)
        self._behind: tuple[tuple[str, int, int], NDArray[np.float32]] | None = None
        self._lit_by: tuple[float, NDArray[np.float32], NDArray[np.float32]] | None = None

    def render(
        self, cameras: Cameras, *, background: str = "gradient", supersample: int = 2
    ) -> UInt8[np.ndarray, "C H W 4"]:
        """Pictures of every camera; straight alpha, 255 everywhere unless the background is transparent."""
        if not 1 <= supersample <= 8:
            raise InputError(f"supersample is {supersample}; it must be from 1 to 8.")
        behind = self._background(background, cameras.width, cameras.height)
        placed = self.placement.cameras(cameras)
        out = np.empty((len(cameras), cameras.height, cameras.width, 4), np.uint8)
        for index in range(len(cameras)):
            self._draw_one(placed[index], behind, background == "transparent", supersample, out[index])
        return out

    def _draw_one(
        self,
        camera: Cameras,
        behind: NDArray[np.float32],
        transparent: bool,
        supersample: int,
        out: NDArray[np.uint8],
    ) -> None:
        fine = camera.resized(camera.width * supersample, camera.height * supersample)
        fragments = rasterize(self.packed.vertices, self.packed.faces, fine, self.cutouts)
        c2w = camera.c2w[0].cpu().numpy().astype(np.float32)
        yaw = 0.0 if self.fixed_light else float(np.arctan2(-c2w[2, 0], c2w[0, 0]))
        lights, floor = self._light(yaw)
        screen = np.zeros((0, 2), np.float32)
        if self.mode == "wireframe":
            screen = camera.project(torch.from_numpy(self.packed.vertices))[0][0].numpy()
        view = _View(
            c2w,
            camera.intrinsics[0].cpu().numpy().astype(np.float32),
            camera.projection == "perspective",
            np.ascontiguousarray(screen, np.float32),
            lights,
            floor,
            float(np.cos(yaw)),
            float(np.sin(yaw)),
            _KERNEL_MODE[self.mode],
            self.floor,
        )
        _draw(
            self.packed,
            self.occluders,
            view,
            self.environment.irradiance_sh,
            self.environment.prefiltered,
            brdf_lut(),
            self.face_normals,
            fragments.face[0],
            fragments.barycentric[0],
            fragments.depth[0],
            behind,
            transparent,
            self._encode,
            out,
        )

    def _background(self, name: str, width: int, height: int) -> NDArray[np.float32]:
        key = (name, width, height)
        if self._behind is None or self._behind[0] != key:
            self._behind = (key, background_linear(name, self.environment, width, height))
        return self._behind[1]

    def _light(self, yaw: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._lit_by is None or self._lit_by[0] != yaw:
            lights = light_of(self.occluders, self.environment, yaw)
            floor = np.ones((2, 2), np.float32)
            if self.floor:
                floor = floor_shadow(self.occluders, lights, _FLOOR_SIZE, _FLOOR_REACH)
            self._lit_by = (yaw, lights, floor)
        return self._lit_by[1], self._lit_by[2]


def render_scene(
    scene: Scene,
    cameras: Cameras,
    *,
    environment: str = "studio",
    background: str = "gradient",
    mode: Mode = "shaded",
    supersample: int = 3,
) -> UInt8[np.ndarray, "C H W 4"]:
    """Stills of `scene`: sRGB with straight alpha. For many frames keep a `PreviewRenderer`.

    `background` is "gradient" (of the environment's colours), "transparent" or a colour "#rrggbb".
    """
    renderer = PreviewRenderer(scene, light=environment, mode=mode)
    return renderer.render(cameras, background=background, supersample=supersample)
