"""A surface made of flat 3D Gaussians that carry material values.

After 2DGS (arXiv:2403.17888), projected by EWA instead of ray intersection: each
Gaussian is a disc with two standard deviations; its third axis is the normal.
Values are those of a G-buffer, so nothing here knows of light.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.splats import SplatImages, rasterize_splats
from render.splats.reference import rotations

if TYPE_CHECKING:
    from recon.fields.seeding import SeedConfig

_COVERED = 1e-3
"""Below this alpha a pixel counts as empty, and its other channels are 0."""


@dataclass
class GaussianField:
    """`N` flat Gaussians. The tensors are leaves that `recon.fit` changes in place."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    """wxyz; the rotated +Z axis is the surface normal, outward where it is known."""
    log_scales: Float[Tensor, "N 2"]
    """Logarithms of the standard deviations along the rotated X and Y axes, world units."""
    opacity_logits: Float[Tensor, " N"]
    base_color_srgb: Float[Tensor, "N 3"]
    metallic: Float[Tensor, "N 1"]
    roughness: Float[Tensor, "N 1"]

    def __len__(self) -> int:
        return len(self.means)

    @staticmethod
    def from_views(views: ViewSet, config: SeedConfig | None = None) -> GaussianField:
        """Gaussians seeded from the depth and normals of the views; see `recon.fields.seeding`."""
        from recon.fields.seeding import SeedConfig, seed_field

        return seed_field(views, config or SeedConfig())

    @property
    def normals(self) -> Float[Tensor, "N 3"]:
        """Unit normals, outward where the seeds knew the outside."""
        return rotations(self.quats)[:, :, 2]

    @property
    def opacities(self) -> Float[Tensor, " N"]:
        return torch.sigmoid(self.opacity_logits)

    def images(self, cameras: Cameras) -> SplatImages:
        """Composited values; channels are base colour (3), metallic, roughness."""
        scales = torch.nn.functional.pad(self.log_scales.exp(), (0, 1))
        values = torch.cat([self.base_color_srgb, self.metallic, self.roughness], 1)
        return rasterize_splats(self.means, self.quats, scales, self.opacities, values, cameras)

    def render(self, cameras: Cameras) -> GBuffer:
        """What the cameras see; differentiable. Normals are unit, the rest means over the covered part."""
        seen = self.images(cameras)
        covered = (seen.alphas > _COVERED).to(seen.alphas)
        share = covered / seen.alphas.clamp_min(_COVERED)
        values = seen.channels * share
        return GBuffer(
            alpha=seen.alphas,
            base_color_srgb=values[..., :3],
            normal=torch.nn.functional.normalize(seen.normals, dim=-1, eps=1e-6) * covered,
            depth=seen.depths * share,
            metallic=values[..., 3:4],
            roughness=values[..., 4:5],
        )

    def contributions(self, cameras: Cameras) -> Float[Tensor, " N"]:
        """Sum of each Gaussian's compositing weights over all pixels of all cameras, in pixels."""
        with torch.enable_grad():
            marker = torch.zeros(len(self), 1, device=self.means.device, requires_grad=True)
            scales = torch.nn.functional.pad(self.log_scales.detach().exp(), (0, 1))
            seen = rasterize_splats(
                self.means.detach(), self.quats.detach(), scales, self.opacities.detach(), marker, cameras
            )
            (total,) = torch.autograd.grad(seen.channels.sum(), marker)
        return total[:, 0]

    def parameters(self) -> dict[str, Tensor]:
        """The leaf tensors, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.detach().contiguous() for name, value in self.parameters().items()}

    def kept(self, keep: Bool[Tensor, " N"]) -> GaussianField:
        """The chosen Gaussians, as new leaves."""
        return GaussianField(**{name: value[keep].clone() for name, value in self.state_dict().items()})

    def splats(self) -> GaussianField:
        """Itself: what splat files hold."""
        return self

    def to(self, device: torch.device | str) -> GaussianField:
        return replace(self, **{name: value.to(device) for name, value in self.state_dict().items()})

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        save_file({k: v.cpu() for k, v in self.state_dict().items()}, path, metadata={"kind": "gaussians"})

    @staticmethod
    def load(path: Path) -> GaussianField:
        """Read what `save` wrote; a file of another kind is an `InputError`."""
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error})") from error
        wanted = {f.name for f in fields(GaussianField)}
        if set(tensors) != wanted:
            raise InputError(f"{path}: not a Gaussian field; its tensors are {sorted(tensors)}")
        return GaussianField(**tensors)
