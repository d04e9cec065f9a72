"""Materials of a glTF file as `Material`: images decoded, factors multiplied in.

Read: metallic-roughness with base colour, metallic-roughness, normal, occlusion and emissive textures and
factors, alpha cut-off, KHR_texture_transform, KHR_materials_emissive_strength. Fallbacks, because a
`Material` has one UV set and one model of light:
* KHR_materials_unlit becomes a rough dielectric that emits nothing;
* KHR_materials_pbrSpecularGlossiness: diffuse is base colour, glossiness is 1 - roughness, metallic 0;
* blended materials are cut at half opacity, or drawn opaque when all of them lies below it (glass);
* textures with another UV set or transform than the base colour's are left out (often light maps);
* textures repeat, whatever their sampler says. Images above 4096 pixels a side are halved until they fit.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.gltf_file import GltfFile
from render.ktx2 import IDENTIFIER as KTX2
from render.ktx2 import NotInstalledError, ktx2_pixels, ktx2_size
from render.scene import Material

_MAX_SIDE = 16384
_MAX_PIXELS = 8192 * 8192
_MAX_ALL_PIXELS = 4 * _MAX_PIXELS
_KEPT_SIDE, _KEPT_PIXELS, _SMALL_SIDE = 4096, 64_000_000, 512
_MAX_NUMBERS = 250_000_000
"""Of all maps of all materials: 1 GB."""
_MOST_GLOW = 1e5
"""Emission beyond which float32 sums of pixels lose everything else."""
_LEVELS = np.linspace(0, 1, 256, dtype=np.float32)


@dataclass(frozen=True)
class UvMapping:
    """Which texture coordinates a material uses, and how they are transformed (glTF's top-left origin)."""

    set_index: int = 0
    offset: tuple[float, float] = (0.0, 0.0)
    rotation_rad: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)

    def apply(self, uvs: Float[np.ndarray, "V 2"]) -> Float[np.ndarray, "V 2"]:
        """KHR_texture_transform: scale, then rotate counter-clockwise on screen, then move."""
        if (self.offset, self.rotation_rad, self.scale) == ((0.0, 0.0), 0.0, (1.0, 1.0)):
            return uvs
        u, v = uvs[:, 0] * self.scale[0], uvs[:, 1] * self.scale[1]
        cosine, sine = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        return np.stack(
            [cosine * u + sine * v + self.offset[0], -sine * u + cosine * v + self.offset[1]], 1
        ).astype(np.float32)


class MaterialReader:
    """Reads materials of one file, each image and each material once."""

    def __init__(self, file: GltfFile) -> None:
        self.file = file
        self._images: dict[int, UInt8[np.ndarray, "H W 4"]] = {}
        self._materials: dict[int, tuple[Material, UvMapping]] = {}
        self._maps: dict[tuple[object, ...], NDArray[np.float32]] = {}
        self._pixels = self._kept = self._numbers = 0

    def read(self, index: object) -> tuple[Material, UvMapping]:
        """The material at `index`, or glTF's default one for None."""
        key = -1 if index is None else index
        if not isinstance(key, int) or key not in self._materials:
            entry = {} if index is None else self.file.item("materials", index, "a primitive")
            made = self._read(entry, f"materials[{index}]" if index is not None else "default material")
            assert isinstance(key, int)
            self._materials[key] = made
        return self._materials[key]

    def _read(self, entry: dict[str, Any], here: str) -> tuple[Material, UvMapping]:
        file = self.file
        extensions = file.mapping(entry, "extensions", here)
        pbr = file.mapping(entry, "pbrMetallicRoughness", here)
        glossy = "KHR_materials_pbrSpecularGlossiness" in extensions and not pbr
        if glossy:
            specular = file.mapping(extensions, "KHR_materials_pbrSpecularGlossiness", here)
            pbr = {
                "baseColorFactor": specular.get("diffuseFactor", [1, 1, 1, 1]),
                "metallicFactor": 0,
                "roughnessFactor": 1
                - min(max(file.number(specular, "glossinessFactor", here, 1.0), 0.0), 1.0),
            }
            if "diffuseTexture" in specular:
                pbr["baseColorTexture"] = specular["diffuseTexture"]
        if "KHR_materials_unlit" in extensions:
            pbr = {**pbr, "metallicFactor": 0, "roughnessFactor": 1}
            pbr.pop("metallicRoughnessTexture", None)

        slots = {
            "base": (pbr, "baseColorTexture"),
            "metallic_roughness": (pbr, "metallicRoughnessTexture"),
            "normal": (entry, "normalTexture"),
            "occlusion": (entry, "occlusionTexture"),
            "emissive": (entry, "emissiveTexture"),
        }
        mapping: UvMapping | None = None
        images: dict[str, UInt8[np.ndarray, "H W 4"]] = {}
        for slot, (owner, key) in slots.items():
            if owner.get(key) is None:
                continue
            info = file.mapping(owner, key, here)
            image = self._texture(info.get("index"), f"{here}.{key}")
            own = self._mapping(info, f"{here}.{key}")
            if image is not None and (mapping is None or own == mapping):
                mapping, images[slot] = own, image

        base, opacity = self._base_color(images.get("base"), pbr, entry, here)
        rough_metal = images.get("metallic_roughness")
        metallic = _unit(file.number(pbr, "metallicFactor", here, 1.0))
        roughness = _unit(file.number(pbr, "roughnessFactor", here, 1.0))
        normal_scale = file.number(file.mapping(entry, "normalTexture", here), "scale", here, 1.0)
        strength = _unit(file.number(file.mapping(entry, "occlusionTexture", here), "strength", here, 1.0))
        name = entry.get("name")
        emissive, glow = self._emissive(images.get("emissive"), entry, extensions, here)
        return (
            Material(
                base_color_srgb=base,
                metallic=self._map(_channel, rough_metal, 2, _LEVELS * np.float32(metallic), metallic),
                roughness=self._map(_channel, rough_metal, 1, _LEVELS * np.float32(roughness), roughness),
                normal=None
                if "normal" not in images or normal_scale == 0
                else self._map(_normal, images["normal"], normal_scale),
                occlusion=None
                if "occlusion" not in images
                else self._map(
                    _channel, images["occlusion"], 0, 1 + np.float32(strength) * (_LEVELS - 1), 1.0
                ),
                emissive_srgb=emissive,
                opacity=opacity,
                name=name if isinstance(name, str) and name else "material",
                emissive_strength=glow,
            ),
            mapping or UvMapping(),
        )

    def _base_color(
        self, image: UInt8[np.ndarray, "H W 4"] | None, pbr: dict[str, Any], entry: dict[str, Any], here: str
    ) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "Ha Wa"] | None]:
        file = self.file
        factor = np.clip(file.vector(pbr, "baseColorFactor", here, (1.0, 1.0, 1.0, 1.0)), 0, 1)
        base = self._map(_tinted, image, factor[:3].astype(np.float32))
        mode = entry.get("alphaMode", "OPAQUE")
        if mode not in ("OPAQUE", "MASK", "BLEND"):
            file.fail(f"{here}.alphaMode", f"is {str(mode)[:20]!r}, which glTF does not know")
        if mode == "OPAQUE":
            return base, None
        alpha = self._map(_channel, image, 3, _LEVELS * np.float32(factor[3]), float(factor[3]))
        if mode == "BLEND":
            return base, None if float(alpha.max()) < 0.5 else alpha
        # Shifted so that the cut lies at 0.5, where `Material.opacity` has it.
        cutoff = file.number(entry, "alphaCutoff", here, 0.5)
        return base, np.clip(alpha - np.float32(cutoff - 0.5), 0, 1).astype(np.float32)

    def _emissive(
        self,
        image: UInt8[np.ndarray, "H W 4"] | None,
        entry: dict[str, Any],
        extensions: dict[str, Any],
        here: str,
    ) -> tuple[Float[np.ndarray, "He We 3"] | None, float]:
        """The map, and the strength that it is to be multiplied with."""
        file = self.file
        factor = np.clip(file.vector(entry, "emissiveFactor", here, (0.0, 0.0, 0.0)), 0, None)
        strong = file.mapping(extensions, "KHR_materials_emissive_strength", here)
        factor = np.clip(factor * file.number(strong, "emissiveStrength", here, 1.0), 0, _MOST_GLOW)
        if not factor.any():
            return None, 1.0
        glow = max(float(factor.max()), 1.0)
        return self._map(_tinted, image, (factor / glow).astype(np.float32)), glow

    def _mapping(self, info: dict[str, Any], here: str) -> UvMapping:
        file = self.file
        set_index = file.integer(info, "texCoord", here, 0)
        transform = file.mapping(file.mapping(info, "extensions", here), "KHR_texture_transform", here)
        offset = file.vector(transform, "offset", here, (0.0, 0.0))
        scale = file.vector(transform, "scale", here, (1.0, 1.0))
        return UvMapping(
            file.integer(transform, "texCoord", here, set_index),
            (float(offset[0]), float(offset[1])),
            file.number(transform, "rotation", here, 0.0),
            (float(scale[0]), float(scale[1])),
        )

    def _texture(self, index: object, here: str) -> UInt8[np.ndarray, "H W 4"] | None:
        file = self.file
        texture = file.item("textures", index, here)
        source = texture.get("source")
        for extension in ("EXT_texture_webp", "KHR_texture_basisu"):
            if source is None:
                packed = file.mapping(file.mapping(texture, "extensions", here), extension, here)
                source = packed.get("source")
        if source is None:
            file.fail(here, "has no image in a format that is read", "export textures as PNG or JPEG")
        entry = file.item("images", source, here)
        if source not in self._images:
            where = f"images[{source}]"
            if entry.get("uri") is not None:
                data = file.data_uri(entry["uri"], where)
            else:
                data = file.view_bytes(entry.get("bufferView"), where)
            self._images[source] = self._decode(data, where)
        return self._images[source]

    def _decode(self, data: bytes, here: str) -> UInt8[np.ndarray, "H W 4"]:
        file = self.file
        if data.startswith(KTX2):
            data = self._unpacked(data, here)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                opened = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            file.fail(here, f"is larger than {_MAX_PIXELS} pixels", "make the texture smaller")
        except Exception:
            file.fail(here, "is not a PNG, JPEG or WebP image that can be read")
        with opened:
            width, height = opened.size
            self._pixels += width * height
            if width * height > _MAX_PIXELS or max(width, height) > _MAX_SIDE:
                file.fail(
                    here, f"is {width} x {height} pixels, more than {_MAX_PIXELS}", "make the texture smaller"
                )
            if self._pixels > _MAX_ALL_PIXELS:
                file.fail(
                    here, f"brings all textures over {_MAX_ALL_PIXELS} pixels", "make the textures smaller"
                )
            try:
                image: Image.Image = opened
                if image.mode.startswith("I"):
                    # 16-bit PNGs: Pillow's own conversion would clip instead of scale.
                    deep = np.asarray(image, np.float32) / 65535 * 255
                    image = Image.fromarray(np.clip(deep + 0.5, 0, 255).astype(np.uint8))
                image = image.convert("RGBA")
            except Exception:
                # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
                file.fail(here, "is a broken image")
        while max(image.size) > _KEPT_SIDE or (
            self._kept + image.width * image.height > _KEPT_PIXELS and max(image.size) > _SMALL_SIDE
        ):
            image = image.reduce(2)
        self._kept += image.width * image.height
        return np.asarray(image)

    def _unpacked(self, data: bytes, here: str) -> bytes:
        """A KTX2 texture as a PNG, so that all pictures are judged alike."""
        file = self.file
        try:
            width, height = ktx2_size(data)
            if width * height > _MAX_PIXELS or max(width, height) > _MAX_SIDE:
                file.fail(
                    here, f"is {width} x {height} pixels, more than {_MAX_PIXELS}", "make the texture smaller"
                )
            pixels = ktx2_pixels(data)
        except NotInstalledError:
            file.fail(
                here,
                "is a KTX2 texture, which needs opengl_basisu",
                "install it with: pip install 'maquette[ktx2]', or export textures as PNG",
            )
        except ValueError:
            file.fail(here, "is a broken KTX2 texture")
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
        return buffer.getvalue()

    def _map(self, make: Callable[..., NDArray[np.float32]], image: Any, *how: Any) -> Any:
        """What `make` makes of an image, once for all materials that want the same."""
        key = (make, id(image), *(h.tobytes() if isinstance(h, np.ndarray) else h for h in how))
        if image is None or key not in self._maps:
            made = make(image, *how)
            self._numbers += made.size
            if self._numbers > _MAX_NUMBERS:
                self.file.fail(
                    "materials", f"hold over {_MAX_NUMBERS} numbers in textures", "use smaller ones"
                )
            if image is None:
                return made
            self._maps[key] = made
        return self._maps[key]


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _channel(
    image: UInt8[np.ndarray, "H W 4"] | None, channel: int, table: Float[np.ndarray, "256"], constant: float
) -> Float[np.ndarray, "H W"]:
    if image is None:
        return np.full((1, 1), constant, np.float32)
    return np.asarray(table[image[..., channel]], np.float32)


def _tinted(
    image: UInt8[np.ndarray, "H W 4"] | None, factor: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "H W 3"]:
    """sRGB image times linear factor, as sRGB."""
    if image is None:
        return linear_to_srgb_np(factor).reshape(1, 1, 3)
    tables = linear_to_srgb_np(srgb_to_linear_np(_LEVELS)[:, None] * factor)
    out = np.empty((*image.shape[:2], 3), np.float32)
    for c in range(3):
        np.take(_LEVELS if factor[c] == 1 else tables[:, c], image[..., c], out=out[..., c])
    return out


def _normal(image: UInt8[np.ndarray, "H W 4"], scale: float) -> Float[np.ndarray, "Hn Wn 3"]:
    if scale == 1:
        return np.asarray(_LEVELS[image[..., :3]])
    normal = _LEVELS[image[..., :3]] * 2 - 1
    normal[..., :2] *= np.float32(scale)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    return np.asarray(normal * 0.5 + 0.5, np.float32)
