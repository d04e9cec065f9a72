"""The reference renderer: path-traced stills and turntables of any scene, by Mitsuba 3.

In: a `Scene`, cameras, an environment, a background. Out: pictures as `render.preview` makes them, with
the same framing, light, tone map and background, so that either can stand in for the other. Light
bounces, shadows are exact, and the floor is a real one: it catches the object's shadow and throws light
back, yet only its shadow is shown. The extra `path` installs Mitsuba (Jakob et al., 2022).

Materials become Mitsuba's `principled` BSDF (Burley 2012), whose metallic, roughness and specular mean
what glTF's do; its diffuse part is a little brighter than glTF's Lambertian one, and light scatters once
from its microfacets, so that very rough metals come out darker than in the preview. Occlusion maps are not
used: the light does not need them. Vertex colours multiply constant base colours only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from render.background import background_linear
from render.cameras import Cameras
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.environment import Environment, environment
from render.errors import InputError
from render.framing import placement_of
from render.packed_scene import pack
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import fragments_of
from render.shading import tone_mapped

_FLOOR_REACH = 40.0
_FLOOR_FADE = 1.8
"""Radii at which the shadow has faded out, and its strength: as in render.preview."""
_FLOOR_STRENGTH = 0.85
_COVERAGE_SAMPLES = 4
_BRIGHTEST = 50.0
"""Radiance above which a sample is cut: a few such paths would show as specks."""


@dataclass(frozen=True)
class PathConfig:
    """How long light is followed."""

    samples: int = 64
    """Paths a pixel; noise falls with the square root."""
    max_bounces: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("samples", 1, 65536), ("max_bounces", 1, 64), ("seed", 0, 2**31 - 1)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"path.{name} is {getattr(self, name)}; it must be from {low} to {high}.")


class PathRenderer:
    """A scene made ready for tracing; takes the place of `render.preview.PreviewRenderer`.

    The light turns with the camera's azimuth unless `fixed_light`. `floor` False leaves the shadow catcher
    out. Raises `InputError` on an empty scene, an unknown environment, or when Mitsuba is not installed.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        light: Environment | str = "studio",
        floor: bool = True,
        fixed_light: bool = False,
        config: PathConfig | None = None,
    ) -> None:
        self.config = config or PathConfig()
        self.environment = environment(light) if isinstance(light, str) else light
        self.floor = floor
        self.fixed_light = fixed_light
        self.placement = placement_of(scene)
        self._mi = _mitsuba()
        self._packed = pack(scene)
        vertices = (self._packed.vertices - self.placement.center) / np.float32(self.placement.radius)
        self._packed = self._packed._replace(vertices=np.ascontiguousarray(vertices, np.float32))
        up, down = _irradiance_y(self.environment, 1.0), _irradiance_y(self.environment, -1.0)
        # The floor gives back what the environment itself sends from below, less the object's shadow.
        self._floor_albedo = float(np.clip(down.mean() / max(float(up.mean()), 1e-6), 0.05, 0.9))
        self._floor_light = up * self._floor_albedo
        self._floor_y = float(vertices[np.unique(self._packed.faces), 1].min())
        self._shapes: dict[str, Any] = {}
        for number, part in enumerate(p for p in scene.parts if len(p.mesh.faces)):
            for name, shape in self._shapes_of(part, f"part{number}"):
                self._shapes[name] = shape

    def render(
        self, cameras: Cameras, *, background: str = "gradient", supersample: int = 1
    ) -> UInt8[np.ndarray, "C H W 4"]:
        """Pictures of every camera; straight alpha. `supersample` is there for the preview's sake only."""
        behind = background_linear(background, self.environment, cameras.width, cameras.height)
        placed = self.placement.cameras(cameras)
        out = np.empty((len(cameras), cameras.height, cameras.width, 4), np.uint8)
        for index in range(len(cameras)):
            out[index] = self._picture(placed[index], behind, background == "transparent")
        return out

    def radiance(self, cameras: Cameras) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
        """Linear radiance of one camera, floor and all, and the object's coverage; for comparisons."""
        return self._trace(self.placement.cameras(cameras))

    def _picture(
        self, camera: Cameras, behind: NDArray[np.float32], transparent: bool
    ) -> UInt8[np.ndarray, "H W 4"]:
        light, coverage = self._trace(camera)
        ground: NDArray[np.float32] = light
        shadow = np.zeros(coverage.shape, np.float32)
        if self.floor:
            # The floor as it would be seen behind the object's edge, to take its share out of mixed pixels.
            bare = coverage <= 0
            if bare.any() and not bare.all():
                rows, columns = distance_transform_edt(~bare, return_distances=False, return_indices=True)
                ground = np.asarray(light[rows, columns], np.float32)
            light = np.asarray(light - (1 - coverage[..., None]) * ground, np.float32)
            shadow = self._shadow(ground, camera)
        thick = np.maximum(coverage, 1e-4)[..., None]
        shown = tone_mapped(np.maximum(light / thick, 0).reshape(-1, 3)).reshape(light.shape)
        shown *= (coverage > 1e-4)[..., None]
        rest = (1 - coverage) * (1 - shadow)
        alpha = 1 - rest if transparent else np.ones_like(rest)
        mixed: NDArray[Any] = shown * coverage[..., None]
        if transparent:
            mixed = mixed / np.maximum(alpha, 1e-6)[..., None]
        else:
            mixed = mixed + rest[..., None] * behind
        srgb = linear_to_srgb_np(np.clip(mixed, 0, 1).astype(np.float32))
        pixels = np.concatenate([srgb, alpha[..., None]], -1)
        return np.asarray(np.clip(pixels * 255 + 0.5, 0, 255), np.uint8)

    def _shadow(self, ground: NDArray[np.float32], camera: Cameras) -> NDArray[np.float32]:
        """How much of the background the floor's shadow takes away."""
        single = replace(camera, c2w=camera.c2w.float(), intrinsics=camera.intrinsics.float())
        origins, directions = (value[0].numpy() for value in single.rays())
        down = directions[..., 1] < -1e-4
        t = (self._floor_y - origins[..., 1]) / np.where(down, directions[..., 1], -1.0)
        point = origins + t[..., None] * directions
        fade = 1 - np.hypot(point[..., 0], point[..., 2]) / _FLOOR_FADE
        weight = np.array([0.2126, 0.7152, 0.0722], np.float32)
        share = (ground @ weight) / max(float(self._floor_light @ weight), 1e-6)
        dark = np.clip(1 - share, 0, 1) * _FLOOR_STRENGTH * np.clip(3 * fade, 0, 1)
        return np.asarray(np.where(down & (t > 0), dark, 0), np.float32)

    def _trace(self, camera: Cameras) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mi, c2w = self._mi, camera.c2w[0].cpu().numpy().astype(np.float64)
        yaw = 0.0 if self.fixed_light else float(np.arctan2(-c2w[2, 0], c2w[0, 0]))
        sensor = self._sensor(camera, c2w)
        world: dict[str, Any] = {
            "type": "scene",
            "integrator": {
                "type": "path",
                "max_depth": self.config.max_bounces + 1,
                "hide_emitters": True,
            },
            "light": {
                "type": "envmap",
                "bitmap": mi.Bitmap(np.ascontiguousarray(self.environment.equirect_linear, np.float32)),
                # Mitsuba's map begins at -Z where ours begins at +Z.
                "to_world": _transform(mi, _turn_y(yaw) @ _turn_y(np.pi)),
            },
            **self._shapes,
        }
        if self.floor:
            flat = np.eye(4)
            flat[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]) * _FLOOR_REACH
            flat[1, 3] = self._floor_y - 1e-4
            world["floor"] = {
                "type": "rectangle",
                "to_world": _transform(mi, flat),
                "bsdf": {
                    "type": "diffuse",
                    "reflectance": {"type": "rgb", "value": [self._floor_albedo] * 3},
                },
            }
        image = mi.render(
            mi.load_dict(world), sensor=mi.load_dict(sensor), spp=self.config.samples, seed=self.config.seed
        )
        pixels = np.array(image, np.float32)
        pixels[..., :3] = np.clip(np.nan_to_num(pixels[..., :3]), 0, _BRIGHTEST)
        if self.floor:
            fragments = fragments_of(self._packed, camera, _COVERAGE_SAMPLES)
            n = _COVERAGE_SAMPLES
            hit = (fragments.face[0] >= 0).reshape(camera.height, n, camera.width, n)
            return pixels[..., :3], hit.mean((1, 3)).astype(np.float32)
        return pixels[..., :3], np.clip(pixels[..., 3], 0, 1)

    def _sensor(self, camera: Cameras, c2w: NDArray[np.float64]) -> dict[str, Any]:
        fx, fy, cx, cy = camera.intrinsics[0].tolist()
        sensor: dict[str, Any] = {
            # Mitsuba's cameras look along +Z with +X to the left.
            "to_world": _transform(self._mi, c2w @ np.diag([-1.0, 1.0, -1.0, 1.0])),
            "film": {
                "type": "hdrfilm",
                "width": camera.width,
                "height": camera.height,
                "pixel_format": "rgba",
                "rfilter": {"type": "box"},
            },
            "sampler": {"type": "multijitter", "sample_count": self.config.samples},
            "near_clip": 0.01,
            "far_clip": 1000.0,
        }
        if camera.projection == "perspective":
            sensor |= {
                "type": "perspective",
                "fov_axis": "y",
                "fov": float(np.rad2deg(2 * np.arctan(camera.height / (2 * fy)))),
                "principal_point_offset_x": 0.5 - cx / camera.width,
                "principal_point_offset_y": 0.5 - cy / camera.height,
            }
            return sensor
        scaled = c2w @ np.diag([-1.0, 1.0, -1.0, 1.0])
        scaled[:3, :3] *= np.array([camera.width / (2 * fx), camera.width / (2 * fx), 1.0])
        return sensor | {"type": "orthographic", "to_world": _transform(self._mi, scaled)}

    def _shapes_of(self, part: Part, name: str) -> list[tuple[str, Any]]:
        """Mitsuba meshes; two where a normal map lies on faces whose texture is mirrored."""
        mesh, material = part.mesh, part.material
        if material.normal is None or mesh.uvs is None:
            return [(name, self._shape(mesh, material, name))]
        uvs = mesh.uvs[mesh.faces].astype(np.float64)
        a, b = uvs[:, 1] - uvs[:, 0], uvs[:, 2] - uvs[:, 0]
        mirrored = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0
        out = []
        for flip, chosen in ((False, ~mirrored), (True, mirrored)):
            if chosen.any():
                half = Mesh(
                    mesh.vertices, mesh.faces[chosen], mesh.normals, mesh.uvs, colors_srgb=mesh.colors_srgb
                )
                title = f"{name}{'m' if flip else ''}"
                out.append((title, self._shape(half, material, title, flip=flip)))
        return out

    def _shape(self, mesh: Mesh, material: Material, name: str, *, flip: bool = False) -> Any:
        mi = self._mi
        used, inverse = np.unique(mesh.faces, return_inverse=True)
        faces = inverse.reshape(-1, 3)
        vertices = (mesh.vertices[used] - self.placement.center) / np.float32(self.placement.radius)
        colored = mesh.colors_srgb is not None and material.base_color_srgb.shape[:2] == (1, 1)
        properties = mi.Properties()
        properties["bsdf"] = mi.load_dict(self._bsdf(material, mesh.uvs is not None, colored, flip))
        if mesh.normals is None:
            properties["face_normals"] = True
        if material.emissive_srgb is not None and material.emissive_srgb.any():
            emitted = srgb_to_linear_np(material.emissive_srgb) * np.float32(material.emissive_strength)
            properties["emitter"] = mi.load_dict(
                {"type": "area", "radiance": _texture(mi, emitted, mesh.uvs is not None)}
            )
        shape = mi.Mesh(
            name,
            len(vertices),
            len(faces),
            has_vertex_normals=mesh.normals is not None,
            has_vertex_texcoords=mesh.uvs is not None,
            props=properties,
        )
        if colored:
            assert mesh.colors_srgb is not None
            tint = srgb_to_linear_np(np.asarray(mesh.colors_srgb[used], np.float32))
            tint = tint * srgb_to_linear_np(material.base_color_srgb.reshape(1, 3))
            shape.add_attribute("vertex_color", 3, tint.astype(np.float32).ravel())
        values = mi.traverse(shape)
        values["vertex_positions"] = vertices.astype(np.float32).ravel()
        values["faces"] = faces.astype(np.uint32).ravel()
        if mesh.normals is not None:
            values["vertex_normals"] = mesh.normals[used].astype(np.float32).ravel()
        if mesh.uvs is not None:
            # Mitsuba's v runs down the picture.
            turned = np.stack([mesh.uvs[used, 0], 1 - mesh.uvs[used, 1]], 1)
            values["vertex_texcoords"] = turned.astype(np.float32).ravel()
        values.update()
        return shape

    def _bsdf(self, material: Material, has_uvs: bool, colored: bool, flip: bool) -> dict[str, Any]:
        mi = self._mi
        color: dict[str, Any] = {"type": "mesh_attribute", "name": "vertex_color"}
        if not colored:
            color = _texture(mi, srgb_to_linear_np(material.base_color_srgb), has_uvs)
        bsdf: dict[str, Any] = {
            "type": "principled",
            "base_color": color,
            "metallic": _texture(mi, material.metallic, has_uvs),
            # Mitsuba's GGX cannot be sharper than this without noise.
            "roughness": _texture(mi, np.maximum(material.roughness, 0.03), has_uvs),
            "specular": 0.5,
        }
        if material.normal is not None and has_uvs:
            normal = material.normal.copy()
            if flip:
                normal[..., 1] = 1 - normal[..., 1]
            bsdf = {"type": "normalmap", "normalmap": _texture(mi, normal, True), "bsdf": bsdf}
        bsdf = {"type": "twosided", "bsdf": bsdf}
        if material.opacity is not None and has_uvs:
            cut = (material.opacity >= 0.5).astype(np.float32)
            bsdf = {"type": "mask", "opacity": _texture(mi, cut, True), "bsdf": bsdf}
        return bsdf


def _irradiance_y(light: Environment, y: float) -> NDArray[np.float32]:
    """Irradiance over pi of a surface that faces +Y or -Y (render.environment's basis)."""
    sh = light.irradiance_sh
    return np.asarray(
        0.282095 * sh[0] + 0.488603 * y * sh[1] - 0.315392 * sh[6] - 0.546274 * sh[8], np.float32
    )


def _mitsuba() -> Any:
    try:
        import mitsuba as mi
    except ImportError:
        raise InputError(
            "The path tracer needs Mitsuba 3; install it with: pip install 'maquette[path]'"
        ) from None
    # Of its variants only this one needs nothing besides: the vectorised ones compile with the system's LLVM.
    if mi.variant() != "scalar_rgb":
        mi.set_variant("scalar_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    return mi


def _texture(mi: Any, values: NDArray[np.float32], has_uvs: bool) -> dict[str, Any]:
    """A bitmap of linear values, or their mean where there is nothing to map."""
    three = values.ndim == 3
    if not has_uvs or values.shape[:2] == (1, 1):
        mean = values.reshape(-1, 3 if three else 1).mean(0, dtype=np.float64)
        if three:
            return {"type": "rgb", "value": [float(c) for c in mean]}
        return {"type": "uniform", "value": float(mean[0])}
    data = np.ascontiguousarray(values if three else values[..., None], np.float32)
    return {"type": "bitmap", "bitmap": mi.Bitmap(data), "raw": True, "wrap_mode": "repeat"}


def _transform(mi: Any, matrix: NDArray[np.float64]) -> Any:
    return mi.ScalarTransform4f(matrix.tolist())


def _turn_y(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1.0]])
