"""Fields: what is fitted to the views and turned into a mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from safetensors import SafetensorError, safe_open
from torch import Tensor

from recon.fields.gaussians import GaussianField
from recon.fields.sdf import SdfField
from recon.fields.seeding import SeedConfig
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer

__all__ = ["Field", "GaussianField", "SdfField", "SeedConfig", "load_field"]


@runtime_checkable
class Field(Protocol):
    """A scene representation that can be looked at from anywhere."""

    def render(self, cameras: Cameras) -> GBuffer:
        """What the cameras see; differentiable with respect to `parameters`."""
        ...

    def parameters(self) -> dict[str, Tensor]:
        """The leaf tensors that fitting changes, by name."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `save` writes."""
        ...

    def splats(self) -> GaussianField:
        """Flat Gaussians that look like the field, for splat files."""
        ...

    def save(self, path: Path) -> None:
        """Write one safetensors file, which `load_field` reads."""
        ...


def load_field(path: Path) -> GaussianField | SdfField:
    """Read a field of either kind; `InputError` when the file holds none."""
    try:
        with safe_open(path, framework="pt") as file:
            kind = (file.metadata() or {}).get("kind", "gaussians")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    return SdfField.load(path) if kind == "sdf" else GaussianField.load(path)
