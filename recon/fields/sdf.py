"""A radiance field whose density comes from a signed distance: NeuS (arXiv:2106.10689) on lattices.

The signed distance, positive outside, is a pyramid of lattices; features are another; a small MLP turns
features into base colour, metallic and roughness, and a second one, which also knows normal and viewing
direction, into what light adds (`residual`). So highlights need no bumps and stay out of the base colour.

Along a ray, the opacity between two samples is NeuS's Eq. 13: max(0, (Phi(f_i) - Phi(f_i+1)) / Phi(f_i)) with
Phi the logistic distribution function of width `std`. Only samples in a band around the surface are read:
the lattice itself, refreshed by `refresh`, is the occupancy grid. The surface is the zero set (`surface`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear, normalize, relu

from recon.fields.lattices import coarser, composed, read, read_sum, to_grid
from recon.fusion import Volume
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer
from render.progress import Progress, silent
from render.scene import Mesh

if TYPE_CHECKING:
    from recon.fields.gaussians import GaussianField

_BAND = 4.0
"""Half the width of the band, in logistic widths: beyond it opacity is below 2 %."""
_MIN_WEIGHT = 0.02
"""Samples that count less have no colour and normal computed; the others share their weight."""
_COARSE = 4.0
"""Spacing of the coarse lattice of distances, in voxels."""
_FEATURE_SPACING = (6.0, 3.0, 1.5)
_RAYS = 8192
"""Rays that `render` traces at a time."""
FEATURES = 4
"""Channels of each feature lattice."""
_DIRECTION = 9
"""Spherical harmonics up to degree 2."""


@dataclass(frozen=True)
class Traced:
    """What `R` rays saw."""

    alpha: Float[Tensor, "R 1"]
    values: Float[Tensor, "R 5"]
    """Base colour, metallic, roughness; weighted by alpha."""
    residual: Float[Tensor, "R 3"]
    """What light adds to the base colour from here; weighted by alpha."""
    normal: Float[Tensor, "R 3"]
    """World space, weighted by alpha."""
    distance: Float[Tensor, "R 1"]
    """Along the ray, world units; weighted by alpha."""


@dataclass
class SdfField:
    """Leaves that `recon.fit_sdf` changes in place, and the box that they fill."""

    low: Float[Tensor, "3"]
    voxel: float
    distances: list[Tensor]
    """Pyramid [1, 1, X, Y, Z], coarse first."""
    features: list[Tensor]
    """Lattices [1, 4, x, y, z]."""
    mlp: dict[str, Tensor]
    std: float
    """Width of the logistic, world units."""

    def __post_init__(self) -> None:
        self.refresh()

    @staticmethod
    def from_volume(volume: Volume, std: float, generator: torch.Generator, hidden: int = 32) -> SdfField:
        """A field with the volume's zero set and grey all over."""
        nx, ny, nz = volume.values.shape
        finest = torch.from_numpy(np.ascontiguousarray(volume.values))[None, None]
        coarse = torch.zeros(1, 1, *coarser((nx, ny, nz), _COARSE))
        features = [
            0.01 * torch.randn(1, FEATURES, *coarser((nx, ny, nz), divisor), generator=generator)
            for divisor in _FEATURE_SPACING
        ]
        width = FEATURES * len(features)

        def layer(out: int, into: int, gain: float = 1.0) -> Tensor:
            weights: Tensor = torch.randn(out, into, generator=generator) * (gain * (2 / into) ** 0.5)
            return weights

        mlp = {
            "base_w1": layer(hidden, width),
            "base_b1": torch.zeros(hidden),
            "base_w2": layer(5, hidden, 0.1),
            "base_b2": torch.tensor([0.0, 0.0, 0.0, -3.0, 1.4]),
            "light_w1": layer(hidden, width + 3 + 2 * _DIRECTION),
            "light_b1": torch.zeros(hidden),
            "light_w2": torch.zeros(3, hidden),
            "light_b2": torch.zeros(3),
        }
        low = torch.from_numpy(volume.origin.astype(np.float32))
        return SdfField(low, float(volume.voxel), [coarse, finest], features, mlp, std)

    @property
    def shape(self) -> tuple[int, int, int]:
        nx, ny, nz = self.distances[-1].shape[2:]
        return nx, ny, nz

    @property
    def high(self) -> Float[Tensor, "3"]:
        high: Tensor = self.low + self.voxel * (self.low.new_tensor(self.shape) - 1)
        return high

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the occupancy up to date with the distances."""
        near = composed(self.distances).abs() < _BAND * self.std + 1.8 * self.voxel
        self._occupied: Bool[Tensor, " n"] = near.reshape(-1)
        self._cells = self._occupied.nonzero()[:, 0]

    def occupied_points(self, count: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """Random points in the cells of the band."""
        _, ny, nz = self.shape
        cell = self._cells[torch.randint(len(self._cells), (count,), generator=generator)]
        x, y, z = cell // (ny * nz), cell // nz % ny, cell % nz
        place = torch.stack([x, y, z], -1) + torch.rand(count, 3, generator=generator) - 0.5
        return self.low + self.voxel * place

    def distance(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Signed distance, positive outside."""
        return read_sum(self.distances, to_grid(points, self.low, self.high))[:, 0]

    def gradient(self, points: Float[Tensor, "n 3"], reach: float = 1.0) -> Float[Tensor, "n 3"]:
        """Central differences over `reach` voxels to each side: smoother than that of one cell."""
        step = reach * self.voxel
        offsets = step * torch.cat([torch.eye(3), -torch.eye(3)]).to(points)
        values = self.distance((points[:, None] + offsets).reshape(-1, 3)).reshape(-1, 6)
        return (values[:, :3] - values[:, 3:]) / (2 * step)

    def values(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n 5"], Float[Tensor, "n 3"]]:
        """Base colour, metallic and roughness of points, and what light adds seen along `directions`."""
        grid = to_grid(points, self.low, self.high)
        features = torch.cat([read(lattice, grid) for lattice in self.features], 1)
        m = self.mlp
        hidden = relu(linear(features, m["base_w1"], m["base_b1"]))
        base = torch.sigmoid(linear(hidden, m["base_w2"], m["base_b2"]))
        # Highlights are smooth functions of the mirrored direction, shading is one of the normal.
        mirrored = directions - 2 * (directions * normals).sum(-1, keepdim=True) * normals
        inputs = [features, normals, _harmonics(directions), _harmonics(mirrored)]
        hidden = relu(linear(torch.cat(inputs, 1), m["light_w1"], m["light_b1"]))
        return base, linear(hidden, m["light_w2"], m["light_b2"])

    def trace(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        *,
        step_voxels: float = 1.0,
        jitter: torch.Generator | None = None,
    ) -> Traced:
        """Differentiable volume rendering of rays; `jitter` moves samples at random within their steps."""
        count = len(origins)
        step = step_voxels * self.voxel
        start, end = self._span(origins, directions)
        steps = max(1, int(torch.ceil((end - start).max().clamp_min(0) / step)))
        phase = torch.rand(count, 1, generator=jitter) if jitter is not None else torch.full((count, 1), 0.5)
        t = start[:, None] + step * (torch.arange(steps + 1) + phase - 1)
        near = self._near(origins, directions, t) & (t <= end[:, None] + step)
        near = near[:, :-1] | near[:, 1:]
        ends = torch.nn.functional.pad(near, (0, 1)) | torch.nn.functional.pad(near, (1, 0))
        ray, at = ends.nonzero().unbind(1)
        f = self.distance(origins[ray] + t[ray, at, None] * directions[ray])
        dense = torch.full((count, steps + 1), 1e3).index_put((ray, at), f)
        phi = torch.sigmoid(dense / self.std)
        alphas = ((phi[:, :-1] - phi[:, 1:]) / phi[:, :-1].clamp_min(1e-6)).clamp(0, 1) * near
        through = torch.cumprod(torch.cat([torch.ones(count, 1), 1 - alphas + 1e-7], 1), 1)
        weights = alphas * through[:, :-1]
        counted = weights * (weights.detach() > _MIN_WEIGHT)
        alpha = weights.sum(1, keepdim=True).clamp(0, 1)
        counted = counted * (alpha / counted.sum(1, keepdim=True).clamp_min(_MIN_WEIGHT)).detach()
        ray, at = (counted.detach() > 0).nonzero().unbind(1)
        weight = counted[ray, at, None]
        # The place of the zero crossing between the two samples, where there is one: sharper than the middle.
        before, after = dense[ray, at].detach(), dense[ray, at + 1].detach()
        share = torch.where((before > 0) & (after < 0), before / (before - after).clamp_min(1e-9), 0.5)
        distance = (t[ray, at] + step * share)[:, None]
        points = origins[ray] + distance * directions[ray]
        normals = normalize(self.gradient(points), dim=-1, eps=1e-6)
        base, light = self.values(points, normals.detach(), directions[ray])
        columns = torch.cat([base, light, normals, distance], 1) * weight
        total = torch.zeros(count, columns.shape[1]).index_add(0, ray, columns)
        values, residual, normal, distance = total.split([5, 3, 3, 1], 1)
        return Traced(alpha, values, residual, normal, distance)

    def _span(self, origins: Tensor, directions: Tensor) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
        """Where rays enter and leave the box; leaving before entering when they miss it."""
        inverse = 1 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
        a, b = (self.low - origins) * inverse, (self.high - origins) * inverse
        start = torch.minimum(a, b).amax(1).clamp_min(0)
        end = torch.maximum(a, b).amin(1)
        return start, torch.maximum(end, start)

    def _near(self, origins: Tensor, directions: Tensor, t: Float[Tensor, "R T"]) -> Bool[Tensor, "R T"]:
        """Whether samples lie in the band, by the nearest lattice sample."""
        nx, ny, nz = self.shape
        start = (origins - self.low) / self.voxel + 0.5
        rate = directions / self.voxel
        index = torch.zeros(t.shape, dtype=torch.int64)
        inside = torch.ones(t.shape, dtype=torch.bool)
        for axis, n in enumerate((nx, ny, nz)):
            cell = (start[:, axis, None] + t * rate[:, axis, None]).floor_()
            inside &= (cell >= 0) & (cell < n)
            index = index * n + cell.clamp_(0, n - 1).long()
        return self._occupied[index] & inside

    def render(self, cameras: Cameras) -> GBuffer:
        """What the cameras see; differentiable with respect to `parameters`."""
        return self.seen(cameras)[0]

    def seen(self, cameras: Cameras) -> tuple[GBuffer, Float[Tensor, "C H W 3"]]:
        """What the cameras see, and what light adds to the base colour there."""
        origins, directions = (rays.reshape(-1, 3) for rays in cameras.rays())
        pieces: list[Traced] = []
        for first in range(0, len(origins), _RAYS):
            pieces.append(self.trace(origins[first : first + _RAYS], directions[first : first + _RAYS]))
        size = (len(cameras), cameras.height, cameras.width, -1)

        def image(name: str) -> Tensor:
            return torch.cat([getattr(piece, name) for piece in pieces]).reshape(size)

        alpha = image("alpha")
        covered = (alpha > 1e-3).to(alpha)
        share = covered / alpha.clamp_min(1e-3)
        values = image("values") * share
        forward = -cameras.c2w[:, None, None, :3, 2]
        along = (directions.reshape(size) * forward).sum(-1, keepdim=True)
        away = torch.zeros_like(along)
        if cameras.projection == "orthographic":
            offset = origins.reshape(size) - cameras.c2w[:, None, None, :3, 3]
            away = (offset * forward).sum(-1, keepdim=True) * covered
        gbuffer = GBuffer(
            alpha=alpha,
            base_color_srgb=values[..., :3],
            normal=normalize(image("normal"), dim=-1, eps=1e-6) * covered,
            depth=image("distance") * share * along + away,
            metallic=values[..., 3:4],
            roughness=values[..., 4:5],
        )
        return gbuffer, image("residual") * share

    def volume(self) -> Volume:
        """The signed distance on the finest lattice, solid inside, with an empty border."""
        from scipy.ndimage import label

        with torch.no_grad():
            values = composed(self.distances).numpy().copy()
        for axis in range(3):
            for side in (0, -1):
                np.moveaxis(values, axis, 0)[side] = self.voxel
        # What no ray from outside can reach is no surface that anybody saw.
        open_space, _ = label(values > 0)
        values[(values > 0) & (open_space != open_space[0, 0, 0])] = -0.5 * self.voxel
        return Volume(values, self.low.numpy(), self.voxel)

    def surface(self, relax_rounds: int, min_component: float, *, progress: Progress = silent) -> Mesh:
        """The zero set as a closed, manifold, outward mesh with smooth normals."""
        from recon.cleanup import clean
        from recon.fusion import march
        from recon.relax import relax
        from recon.topology import is_closed_manifold, vertex_normals

        progress(0.0, "extracting the zero set")
        vertices, faces = clean(*march(self.volume()), min_component=min_component)
        if len(faces) == 0:
            raise InputError("the views show no object: the fitted distance is positive everywhere")
        progress(0.5, "smoothing")
        if relax_rounds:
            moved = relax(vertices, faces, normal_rounds=relax_rounds, limit=self.voxel)
            again = clean(moved, faces, min_component=min_component)
            if is_closed_manifold(again[1]):
                vertices, faces = again
        progress(1.0, "surface")
        return Mesh(vertices, faces, vertex_normals(vertices, faces))

    def splats(self) -> GaussianField:
        """Flat Gaussians of this field's own pictures, for splat files."""
        from recon.fields.gaussians import GaussianField
        from recon.fusion import survey_cameras
        from render.gbuffer import ViewSet

        cameras = survey_cameras(128)
        with torch.no_grad():
            return GaussianField.from_views(ViewSet(cameras, self.render(cameras).detach()))

    def parameters(self) -> dict[str, Tensor]:
        """The leaf tensors, by name."""
        named = {f"distances.{i}": lattice for i, lattice in enumerate(self.distances)}
        named |= {f"features.{i}": lattice for i, lattice in enumerate(self.features)}
        return named | {f"mlp.{name}": value for name, value in self.mlp.items()}

    def state_dict(self) -> dict[str, Tensor]:
        leaves = {name: value.detach().contiguous() for name, value in self.parameters().items()}
        return leaves | {
            "low": self.low,
            "scalars": torch.tensor([self.voxel, self.std], dtype=torch.float64),
        }

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        save_file(self.state_dict(), path, metadata={"kind": "sdf"})

    @staticmethod
    def load(path: Path) -> SdfField:
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        try:
            voxel, std = tensors.pop("scalars").tolist()
            low = tensors.pop("low")
            groups: dict[str, dict[str, Tensor]] = {"distances": {}, "features": {}, "mlp": {}}
            for name, value in tensors.items():
                group, _, key = name.partition(".")
                groups[group][key] = value
        except KeyError as error:
            raise InputError(f"{path}: not a field of distances; {error} is missing") from None
        ordered = [[groups[g][str(i)] for i in range(len(groups[g]))] for g in ("distances", "features")]
        return SdfField(low, voxel, ordered[0], ordered[1], groups["mlp"], std)


def _harmonics(d: Float[Tensor, "n 3"]) -> Float[Tensor, "n 9"]:
    """Real spherical harmonics up to degree 2, without their constants."""
    x, y, z = d.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack([one, x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], -1)
