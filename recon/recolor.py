"""New colours on an old material: views painted anew, baked, with the grain that the old texture had.

Views are coarser than a texture. What is finer than they can show (planks, scratches, weave) is still true of
the object after it got another colour, and is taken over: the old look, seen by the same cameras and baked
in the same way, is what the views can say of the old texture; the ratio between the texture and that is its
grain, and multiplies the new colour. When the views come back as they were, so does the texture.

Relief, occlusion and opacity belong to the shape and stay; what shone by itself (emissive) goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from recon.bake import BakeConfig, bake
from recon.texels import texels_of
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.errors import InputError
from render.gbuffer import ViewSet
from render.progress import Progress, silent
from render.scene import Material, Mesh

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Of linear sRGB (ITU-R BT.709)."""
_FLOOR = 0.02
"""Added to both luminances of a ratio: grain of what is nearly black is noise."""
_LIMITS = (0.4, 2.5)
"""Of the ratio: beyond them lie edges of patterns that the views show too, a little beside their place."""


@dataclass(frozen=True)
class RecolorConfig:
    """How the new material is put together."""

    texture_size: int = 1024
    grain: float = 1.0
    """How much of the old texture's grain is kept, 0 to 1."""

    def __post_init__(self) -> None:
        if not 16 <= self.texture_size <= 8192:
            raise InputError(f"texture_size must be between 16 and 8192, not {self.texture_size}.")
        if not 0 <= self.grain <= 1:
            raise InputError(f"grain must be between 0 and 1, not {self.grain:g}.")


def recolor(
    mesh: Mesh,
    old: Material,
    seen: ViewSet,
    painted: ViewSet,
    config: RecolorConfig,
    *,
    progress: Progress = silent,
) -> Material:
    """The material with the colours, metallic and roughness of `painted`.

    `mesh` has UVs and normals, in the world of the views; `seen` are views of it with its old material, from
    the cameras of `painted`.
    """
    baking = BakeConfig(texture_size=config.texture_size)
    # The views are as true as the mesh: none contradicts the others, and no colour is an outlier.
    new = bake(mesh, painted, None, baking, progress=lambda done, text="": progress(0.5 * done, text))
    color, roughness = new.base_color_srgb, new.roughness
    if config.grain > 0 and max(old.base_color_srgb.shape[:2]) > 1:
        coarse = bake(
            mesh, seen, None, baking, progress=lambda done, text="": progress(0.5 + 0.4 * done, text)
        )
        color = _grained(color, old.base_color_srgb, coarse.base_color_srgb, config.grain)
        if max(old.roughness.shape) > 1:
            fine = _resized(old.roughness[..., None], config.texture_size)[..., 0]
            roughness = np.clip(roughness + config.grain * (fine - coarse.roughness), 0.0, 1.0)
    progress(1.0)
    return replace(
        old,
        base_color_srgb=np.ascontiguousarray(color, np.float32),
        metallic=new.metallic,
        roughness=np.ascontiguousarray(roughness, np.float32),
        emissive_srgb=None,
    )


def overlaps(mesh: Mesh, size: int = 512) -> bool:
    """Whether several places of the surface share texels, so that they cannot get colours of their own."""
    assert mesh.uvs is not None
    if mesh.uvs.min() < -1e-4 or mesh.uvs.max() > 1 + 1e-4:
        return True
    corners = mesh.uvs[mesh.faces].astype(np.float64)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = float(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / 2
    covered = float(texels_of(mesh, size, margin_px=0.0).inside.mean())
    # A texel counts when its centre is inside: borders of charts make the two differ by a few per cent.
    return area > 1.1 * covered + 0.01


def _grained(
    color: Float[np.ndarray, "S S 3"],
    old: Float[np.ndarray, "H W 3"],
    coarse: Float[np.ndarray, "S S 3"],
    amount: float,
) -> Float[np.ndarray, "S S 3"]:
    """The sRGB colour in linear light times the old texture's luminance over that of its coarse self."""
    fine = srgb_to_linear_np(_resized(old, len(color))) @ _LUMINANCE
    ratio = (fine + _FLOOR) / (srgb_to_linear_np(coarse) @ _LUMINANCE + _FLOOR)
    ratio = np.clip(ratio, *_LIMITS) ** amount
    linear = srgb_to_linear_np(color) * ratio[..., None]
    return np.asarray(linear_to_srgb_np(np.clip(linear, 0, 1).astype(np.float32)))


def _resized(image: Float[np.ndarray, "H W c"], size: int) -> Float[np.ndarray, "S S c"]:
    """Area means where it gets smaller, bicubic where it grows."""
    if image.shape[:2] == (size, size):
        return np.asarray(image)
    from PIL import Image

    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., k], np.float32)).resize(
                (size, size), Image.Resampling.BICUBIC, reducing_gap=None
            )
        )
        for k in range(image.shape[2])
    ]
    return np.asarray(np.clip(np.stack(channels, -1), 0.0, 1.0))
