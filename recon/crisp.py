"""Flat faces, sharp edges and even curves for the surface of drawn views.

Drawn views disagree on where a surface is by pixels, and a surface between them ripples. On how it is
turned they agree within degrees: a network draws flat faces flat and edges sharp. So the faces of a dense
mesh get the normals that the views show, and the mesh is bent until it has them:

1. The mesh is smoothed without shrinking (Taubin, 1995), its triangles made even.
2. Every face takes the mean of the normals that the views show there, outliers apart (`recon.gathering`).
3. Edges in it are a blur of a few pixels, and lie elsewhere in every view. Every face takes the mean of
   the patches around it whose normals differ least (Kuwahara et al., 1976, on a mesh; the guide of Zhang
   et al., "Guided Mesh Normal Filtering", 2015), and by what alike neighbours still differ is diffused
   away (bilateral, as in `recon.relax`).
4. Edges of triangles are laid into the planes of their normals and the triangles sewn together again by a
   Poisson equation (Yu et al., "Mesh Editing with Poisson-Based Gradient Field Manipulation", 2004), with
   a pull to where the surface was, which decides beyond `reach_px`, and a limit to how far it may go.
5. Where the object is thin, its normals are the least known: thickness is given back as it was on average
   around a place, so that legs and blades do not fade.
6. Views that disagree carve each other in a fit. All faces move outwards until the outlines of the mesh are
   on average those of the views; what is thin gets its own back later (`recon.outlines`).

Connectivity does not change: what was closed stays closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import binary_erosion

from recon.consensus import cameras_of, disagreement_px
from recon.fusion import DepthMaps, depth_maps
from recon.gathering import evidence_of, gathered
from recon.normal_filter import diffused, flattest, patches
from recon.relax import neighbour_faces
from recon.sewing import cotangents, evened, mitres, sewn, smoothed, smoothed_vectors, unfolded
from recon.thickness import Through, through
from recon.topology import face_vectors, vertex_normals
from render.errors import InputError
from render.gbuffer import ViewSet
from render.rasterize import rasterize
from render.scene import Mesh

_LEAST_PX = 0.25
"""Views that disagree by less have a surface near the truth, which is left alone."""
_SOFTNESS = 0.01
"""Spread of a patch's normals, 1 - |their mean|, that tells a flat patch from one over an edge: that of
normals 8 degrees off. A patch on a barrel 60 pixels wide has 0.001, one over a right angle 0.3."""
_MOST = 96
"""Faces of a patch."""
_SHARPENINGS = 2
_SEWINGS = 2
_EVENINGS = 5
_SMOOTHINGS = 4
_MOST_GROWN = 1.5
"""In units of the views' disagreement."""
_MOST_THICKER = 0.4
"""By which part of its thickness a thin place may grow at that."""
_THIN_PX = 6.0
"""What is thinner keeps its thickness, wholly from two thirds of it down."""
_WIDE_ROUNDS = 400
"""Of smoothing over neighbours, for how thickness changes: some 15 pixels wide. What changes over less shows
as a step in a plate."""


@dataclass(frozen=True)
class CrispConfig:
    """How the surface of drawn views is made flat and sharp. Pixels are those of the views."""

    strength: float = 1.0
    """How much of the way vertices go; 0 leaves the surface as it was."""
    patch: float = 2.0
    """Radius of the patches that sharpen edges, in units of the views' disagreement (of 1.2 to 3 pixels)."""
    edge_deg: float = 20.0
    """Neighbours whose normals differ by this much hardly mix."""
    rounds: int = 100
    """Of diffusion between alike neighbours."""
    anchor: float = 0.05
    """Weight of what the views show beside that of one neighbour."""
    reach_px: float = 30.0
    """Over what is longer than this, where the surface was decides; over what is shorter, its normals."""
    limit: float = 4.0
    """How far a vertex may go, in units of the views' disagreement."""

    def __post_init__(self) -> None:
        limits = {
            "strength": (0, 1),
            "patch": (0, 10),
            "edge_deg": (1, 90),
            "rounds": (0, 10_000),
            "anchor": (0, 100),
            "reach_px": (1, 1000),
            "limit": (0, 100),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"surface.crisp.{name} must be from {low} to {high}, not {getattr(self, name)}"
                )


def crisp(mesh: Mesh, views: ViewSet, config: CrispConfig) -> Mesh:
    """The closed mesh with faces turned as the views show them; the same triangles.

    views: as drawn, with depth and normals; without these, and where they agree, it comes back as it is.
    """
    seen = views.gbuffer
    if (
        seen.depth is None
        or seen.normal is None
        or config.strength == 0
        or not bool((seen.alpha > 0.5).any())
    ):
        return mesh
    maps = depth_maps(views.cameras, seen)
    pixel, disagreement = maps.footprint, disagreement_px(maps)
    if disagreement < _LEAST_PX:
        return mesh
    faces = np.ascontiguousarray(mesh.faces, np.int32)
    even = evened(mesh.vertices.astype(np.float64), faces, _EVENINGS)
    shape = _Shape.of(even, faces, pixel)
    guide, trust = _shown(shape, views)
    patch = float(np.clip(config.patch * disagreement, 1.2, 3.0)) if config.patch else 0.0
    normals = _filtered(shape, guide, trust, patch, config)
    bent = _bent(shape, normals, config.reach_px * pixel, config.limit * disagreement * pixel)
    bent = _as_thick(bent, shape)
    small = _too_small_px(Mesh(bent.astype(np.float32), faces), maps, disagreement)
    grown = np.minimum(
        np.clip(small, 0.0, _MOST_GROWN * disagreement), _MOST_THICKER * shape.through.thick_px / 2
    )
    outwards = mitres(faces, normals, shape.areas, len(bent))
    # Where normals are noisy so are these: smoothed they cost an edge a little of its sharpness.
    bent = bent + pixel * grown[:, None] * smoothed_vectors(outwards, faces, _SMOOTHINGS)
    bent = unfolded(bent, faces, normals, 10)
    vertices = (mesh.vertices + config.strength * (bent - mesh.vertices)).astype(np.float32)
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


@dataclass(frozen=True)
class _Shape:
    """The evened mesh and what is measured on it (float64)."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    pixel: float
    """Of the views, in world units."""
    areas: Float[np.ndarray, " F"]
    own: Float[np.ndarray, "F 3"]
    """Normals of the faces."""
    outward: Float[np.ndarray, "V 3"]
    through: Through

    @staticmethod
    def of(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], pixel: float) -> _Shape:
        cross = face_vectors(vertices, faces)
        length = np.linalg.norm(cross, axis=1)
        outward = vertex_normals(vertices, faces).astype(np.float64)
        return _Shape(
            vertices,
            faces,
            pixel,
            np.maximum(length / 2, 1e-6 * float(np.median(length))),
            cross / np.maximum(length, 1e-30)[:, None],
            outward,
            through(vertices, faces, outward, pixel),
        )


def _shown(shape: _Shape, views: ViewSet) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, " F"]]:
    """Mean normal that the views show of every face, and how much they say of it, 0 to 1."""
    mesh = Mesh(shape.vertices.astype(np.float32), shape.faces)
    normal = views.gbuffer.normal
    assert normal is not None
    channels = normal.detach().cpu().numpy().astype(np.float32)
    evidence = evidence_of(mesh, views.cameras, views.gbuffer, channels, edge_px=2.0)
    # Which way a face lies decides what sees it: its own normal is the noisiest of the mesh.
    facing = _unit(shape.outward[shape.faces].mean(1))
    centers = mesh.vertices[mesh.faces].mean(1)
    values, weights = gathered(evidence, centers, facing, sharpness=2.0, outlier=0.3)
    length = np.linalg.norm(values, axis=1)
    normals = values / np.maximum(length, 1e-9)[:, None]
    # Normals 60 degrees off and more are those of another surface; a short mean is one of contradictions.
    alike = np.clip(2 * (normals * facing).sum(1), 0, 1)
    trust = np.minimum(weights, 1.0) * np.clip((length - 0.5) / 0.4, 0, 1) * alike
    return np.where(trust[:, None] > 1e-3, normals, facing), np.maximum(trust, 0.02)


def _filtered(
    shape: _Shape,
    guide: Float[np.ndarray, "F 3"],
    trust: Float[np.ndarray, " F"],
    patch_px: float,
    config: CrispConfig,
) -> Float[np.ndarray, "F 3"]:
    """The guide with sharp edges and nothing but these between flat or evenly curved faces."""
    faces, pixel = shape.faces, shape.pixel
    normals = _unit(guide.astype(np.float64))
    thick_px = np.maximum(shape.through.thick_px[faces].mean(1), 1e-3)
    if patch_px:
        order = np.argsort(faces.ravel(), kind="stable")
        first = np.searchsorted(faces.ravel()[order], np.arange(len(shape.vertices) + 1))
        start, members = patches(
            faces,
            shape.vertices[faces].mean(1),
            shape.own,
            (order // 3).astype(np.int32),
            first.astype(np.int64),
            pixel * np.minimum(patch_px, 0.5 * thick_px),
            _MOST,
        )
        for _ in range(_SHARPENINGS):
            normals = flattest(normals, shape.areas * trust, start, members, _SOFTNESS)
    sigma = 2.0 * np.sin(np.deg2rad(config.edge_deg) / 2.0)
    # Around a thin leg alike neighbours go all the way round: what was shown counts for more.
    anchor = config.anchor * np.clip((4.0 / thick_px) ** 2, 1.0, 20.0) * trust
    found = diffused(normals, anchor, shape.areas, neighbour_faces(faces), 0.5 / sigma**2, config.rounds)
    return np.asarray(found)


def _too_small_px(mesh: Mesh, maps: DepthMaps, disagreement: float) -> float:
    """How far the views' outlines lie outside of the mesh's, mean along these.

    Views that disagree carve each other: what any of them cuts off is hard to get back in a fit.
    """
    mask = rasterize(mesh.vertices, mesh.faces, cameras_of(maps)).face >= 0
    rim = mask & ~binary_erosion(mask, np.ones((1, 3, 3)))
    if not rim.any():
        return 0.0
    most = 2.0 * disagreement
    return float(-np.clip(maps.outside_px[rim] + 0.5, -most, most).mean())


def _bent(
    shape: _Shape, normals: Float[np.ndarray, "F 3"], reach: float, limit: float
) -> Float[np.ndarray, "V 3"]:
    """Vertices (float64) whose faces have these normals, as far as `limit` lets them."""
    start, faces = shape.vertices, shape.faces
    pull = np.zeros(len(start))
    for corner in range(3):
        pull += np.bincount(faces[:, corner], shape.areas / (3 * reach**2), len(start))
    bent = start
    for _ in range(_SEWINGS):
        off = sewn(bent, start, faces, normals, cotangents(bent, faces), pull, 1e-4, 300) - start
        far = np.linalg.norm(off, axis=1, keepdims=True)
        bent = start + off * np.minimum(1.0, limit / np.maximum(far, 1e-12))
    return bent


def _as_thick(bent: Float[np.ndarray, "V 3"], shape: _Shape) -> Float[np.ndarray, "V 3"]:
    """The bent vertices with the thickness that thin places had, apart from what is but a ripple in it."""
    thin = np.clip(3.0 * (1.0 - shape.through.thick_px / _THIN_PX), 0.0, 1.0)
    if not thin.any():
        return bent
    off = bent - shape.vertices
    across = np.einsum("vk,vki->vi", shape.through.place, off[shape.faces[shape.through.behind]])
    change = ((off - across) * shape.outward).sum(1)
    change = smoothed(change * (thin > 0), shape.faces, (thin > 0).astype(np.float64), _WIDE_ROUNDS)
    # Both sides give a half of it; half of that is given back, as the outlines say the rest.
    return np.asarray(bent - (0.5 * thin * change)[:, None] * shape.outward)


def _unit(v: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-30))
