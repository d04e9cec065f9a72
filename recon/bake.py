"""Views -> the maps of a material on a UV-mapped mesh. No light is baked in: the views hold none.

Every texel gathers the views that see its point (`recon.gathering`). A view's weight
rises steeply with the cosine of the viewing angle, so that one view, the most frontal,
decides nearly alone: blending equally views that do not quite agree would blur the
detail of each.

Texels that no view sees are filled from the field's own pictures, then from the
nearest seen points of the surface in 3D. Views that agree, as pictures of a real thing do, then correct the
maps until they show what the views show (`recon.retouch`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.both_sides import Points, smoothed
from recon.field import Renderable
from recon.fusion import survey_cameras
from recon.gathering import Evidence, evidence_of
from recon.palette import flattened, memberships, palette_of, strange
from recon.picture_colors import without_light
from recon.retouch import retouched
from recon.texels import pull_push, texels_of
from recon.topology import face_vectors
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent
from render.scene import Material, Mesh

_CHANNELS = 5
"""Base colour, metallic, roughness."""
_SURE = 0.25
"""Weight from which a picture alone says what colour a place has."""


@dataclass(frozen=True)
class BakeConfig:
    """How views are blended into maps."""

    texture_size: int = 1024
    sharpness: float = 6.0
    """Power of the cosine in a view's weight; higher keeps more of the most frontal view alone."""
    edge_px: float = 2.0
    """Pixels from a silhouette or depth step at which a view counts fully."""
    outlier: float = 0.2
    """Colour distance (sRGB, Euclidean) from the others at which a view loses half of its weight."""
    field_view_size: int = 192
    """Side of the field's pictures that fill what no view sees."""
    default_roughness: float = 0.8
    """Where views carry no roughness."""
    rounds: int = 6
    """Corrections by what the views show of the maps, where these are posed pictures."""
    flatten: float = 1.0
    """How much of the way the maps of drawn views go to materials of one colour each (`recon.palette`)."""
    flatten_px: float = 8.0
    """Pixels of the views over which such a material's colour may change."""
    border_px: float = 1.4
    """Pixels of the views over which a border between two of them is even."""

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "texture_size": (16, 8192),
            "sharpness": (0.5, 32.0),
            "edge_px": (0.0, 16.0),
            "outlier": (0.01, 10.0),
            "field_view_size": (32, 1024),
            "default_roughness": (0.0, 1.0),
            "rounds": (0, 200),
            "flatten": (0.0, 1.0),
            "flatten_px": (1.0, 1000.0),
            "border_px": (1.0, 100.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"bake.{name} is {value}; it must be from {low:g} to {high:g}")


def bake(
    mesh: Mesh,
    views: ViewSet,
    field: Renderable | None,
    config: BakeConfig,
    *,
    rounds: int = 0,
    flatten: float = 0.0,
    mirrored: bool = False,
    pictured: ViewSet | None = None,
    progress: Progress = silent,
) -> Material:
    """Base colour (sRGB), metallic and roughness maps of `mesh`, which must have UVs and normals.

    rounds: corrections by what the views show of the maps; only for views that agree within a pixel.
    flatten: see `BakeConfig.flatten`; for views that were drawn.
    mirrored: whether left and right of the mesh are alike, so that what is flattened is too
    (`recon.both_sides`).
    pictured: given pictures as views; the map has their colour, without its light, where it faces them.
    """
    size = config.texture_size
    texels = texels_of(mesh, size)
    chosen = texels.face >= 0
    positions = texels.interpolate(mesh.vertices, mesh.faces)
    # Faces' own normals decide what can be seen; smooth ones would see around edges.
    cross = face_vectors(mesh.vertices, mesh.faces)
    unit = (cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    normals = unit[texels.face[chosen]]
    progress(0.2, "gathering views")
    evidence = _evidence(mesh, views, config)
    points = Points(positions, normals)
    materials = _Materials.of(evidence) if flatten else None
    if materials and mirrored:
        points = points.mirrored(materials.belongs, config.sharpness)
    values, weights = points.gathered(evidence, config.sharpness, config.outlier)
    progress(0.6, "filling what no view sees")
    unseen = weights < 1e-4
    if unseen.any() and field is not None:
        cameras = survey_cameras(config.field_view_size)
        with torch.no_grad():
            filler = ViewSet(cameras, field.render(cameras).detach())
        extra, extra_weights = gather(mesh, positions[unseen], normals[unseen], filler, config)
        values[unseen], weights[unseen] = extra, extra_weights
        unseen = weights < 1e-4
    if unseen.any() and not unseen.all():
        values[unseen] = _from_neighbours(
            positions, normals, values, ~unseen, positions[unseen], normals[unseen]
        )
    elif unseen.all():
        values[:] = (0.5, 0.5, 0.5, 0.0, config.default_roughness)
    if materials:
        progress(0.7, "flattening")
        flat = _flat(points, materials, values, weights, config)
        values = values + np.float32(flatten) * (flat - values)
    image = np.zeros((size, size, _CHANNELS), np.float32)
    image[chosen] = values
    if pictured is not None:
        progress(0.8, "taking colours from the picture")
        unlit = without_light(pictured, mesh, pull_push(image, chosen)[..., :3])
        shown, sure = gather(mesh, positions, normals, unlit, config)
        share = np.clip(sure / _SURE, 0, 1)[:, None]
        values[:, :3] += share * (shown[:, :3] - values[:, :3])
        image[chosen] = values
    if rounds:
        progress(0.7, "correcting by the views")
        image = retouched(mesh, image, chosen, views.cameras, evidence.channels, evidence.confidence, rounds)
    progress(0.9, "padding charts")
    image = np.clip(pull_push(image, chosen), 0.0, 1.0)
    progress(1.0, "baked")
    return Material(
        base_color_srgb=np.ascontiguousarray(image[..., :3]),
        metallic=np.ascontiguousarray(image[..., 3]),
        roughness=np.ascontiguousarray(image[..., 4]),
    )


def gather(
    mesh: Mesh,
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    views: ViewSet,
    config: BakeConfig,
) -> tuple[Float[np.ndarray, "n 5"], Float[np.ndarray, " n"]]:
    """Blended channels of surface points and the sum of the views' weights (0: no view sees the point)."""
    evidence = _evidence(mesh, views, config)
    return Points(positions, normals).gathered(evidence, config.sharpness, config.outlier)


def _evidence(mesh: Mesh, views: ViewSet, config: BakeConfig) -> Evidence:
    return evidence_of(mesh, views.cameras, views.gbuffer, _channels(views.gbuffer, config), config.edge_px)


def _channels(gbuffer: GBuffer, config: BakeConfig) -> Float[np.ndarray, "C H W 5"]:
    """Base colour, metallic, roughness."""
    color = gbuffer.base_color_srgb if gbuffer.base_color_srgb is not None else gbuffer.rgb_srgb
    if color is None:
        raise InputError("the views have no colour to bake")
    out = np.zeros((*gbuffer.alpha.shape[:3], _CHANNELS), np.float32)
    out[..., :3] = color.detach().cpu().numpy()
    out[..., 3] = 0.0 if gbuffer.metallic is None else gbuffer.metallic.detach().cpu().numpy()[..., 0]
    rough = gbuffer.roughness
    out[..., 4] = config.default_roughness if rough is None else rough.detach().cpu().numpy()[..., 0]
    return out


@dataclass(frozen=True)
class _Materials:
    """What the views are painted in."""

    palette: Float[np.ndarray, "K 5"]
    belongs: Evidence
    """How much pixels belong to each, as channels."""

    @staticmethod
    def of(evidence: Evidence) -> _Materials:
        palette = palette_of(evidence.channels, evidence.alpha)
        belongs = memberships(evidence.channels, evidence.alpha, palette)
        belongs = np.pad(belongs, ((0, 0),) * 3 + ((0, max(0, 3 - len(palette))),))
        return _Materials(palette, replace(evidence, channels=belongs))


def _flat(
    points: Points,
    materials: _Materials,
    values: Float[np.ndarray, "n 5"],
    weights: Float[np.ndarray, " n"],
    config: BakeConfig,
) -> NDArray[np.float32]:
    """The values with sharp, even borders between materials of one colour each."""
    palette, belongs = materials.palette, materials.belongs
    # No outliers among votes.
    votes, seen = points.gathered(belongs, config.sharpness, np.inf)
    votes = smoothed(points.positions, votes, seen, config.border_px, belongs)
    nearest = cKDTree(palette).query(values)[1]
    # Votes are a share each, so that their sum tells whether any were cast around.
    material = np.where(votes.sum(1) > 0.5, votes[:, : len(palette)].argmax(1), nearest)
    # What lies near a border is mixed with what is beyond it.
    sure = np.take_along_axis(votes, material[:, None], 1)[:, 0] ** 4
    trust = np.where(seen > 0, weights * sure, 1e-4).astype(np.float32)
    cell = config.flatten_px / float(belongs.cameras.intrinsics[:, 0].min())
    flat = flattened(points.positions, values, material, trust, cell)
    own = strange(values, palette)[:, None]
    return np.asarray(flat + own * (values - flat), np.float32)


def _from_neighbours(
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    values: Float[np.ndarray, "n 5"],
    known: NDArray[np.bool_],
    at: Float[np.ndarray, "m 3"],
    at_normals: Float[np.ndarray, "m 3"],
) -> Float[np.ndarray, "m 5"]:
    """Inverse-distance mean of the nearest known points in 3D; a side that faces away counts as farther."""
    stretch = 0.1
    source: Int[np.ndarray, " s"] = np.flatnonzero(known)
    source = source[:: max(1, len(source) // 60_000)]
    tree = cKDTree(np.concatenate([positions[source], stretch * normals[source]], 1))
    # Neighbouring texels have the same answer: ask once per cell of a fine grid.
    cell = np.concatenate([at / 0.01, at_normals * 4.0], 1).round().astype(np.int64)
    _, first, inverse = np.unique(cell, axis=0, return_index=True, return_inverse=True)
    query = np.concatenate([at[first], stretch * at_normals[first]], 1)
    distance, index = tree.query(query, k=min(8, len(source)))
    distance, index = distance.reshape(len(query), -1), index.reshape(len(query), -1)
    weight = 1.0 / (distance + 1e-4) ** 2
    weight /= weight.sum(1, keepdims=True)
    found = np.einsum("mk,mkc->mc", weight, values[source][index]).astype(np.float32)
    return np.asarray(found[inverse.ravel()])
