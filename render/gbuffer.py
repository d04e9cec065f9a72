"""G-buffers: what a view shows besides light. The contract between all stages.

`GBuffer` holds per-pixel channels; `ViewSet` adds the cameras that saw them.
A channel that a producer does not know is None. Where `alpha` is 0 the other
channels hold 0 (depth too). At partly covered pixels they hold the mean over the
covered part, not a blend with the background.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from render.cameras import Cameras, Projection


@dataclass(frozen=True)
class GBuffer:
    """Channels of `C` views, float32, row 0 on top."""

    alpha: Float[Tensor, "C H W 1"]
    """Coverage in [0, 1]."""
    base_color_srgb: Float[Tensor, "C H W 3"] | None = None
    """Unlit surface colour, sRGB in [0, 1]."""
    rgb_srgb: Float[Tensor, "C H W 3"] | None = None
    """Shaded colour, sRGB in [0, 1], for sources that know no base colour."""
    normal: Float[Tensor, "C H W 3"] | None = None
    """Unit normals in world space."""
    depth: Float[Tensor, "C H W 1"] | None = None
    """z-depth in world units."""
    metallic: Float[Tensor, "C H W 1"] | None = None
    roughness: Float[Tensor, "C H W 1"] | None = None
    emissive_srgb: Float[Tensor, "C H W 3"] | None = None
    """Emitted light up to white, for sources that tell it from the reflected one."""

    def channels(self) -> dict[str, Tensor]:
        """The channels that are present, by name."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}

    def __getitem__(self, index: int | slice | list[int]) -> GBuffer:
        """The chosen views, always as a batch."""
        chosen = [index] if isinstance(index, int) else index
        return GBuffer(**{name: value[chosen] for name, value in self.channels().items()})

    def to(self, device: torch.device | str) -> GBuffer:
        return GBuffer(**{name: value.to(device) for name, value in self.channels().items()})

    def detach(self) -> GBuffer:
        return GBuffer(**{name: value.detach() for name, value in self.channels().items()})


@dataclass(frozen=True)
class ViewSet:
    """Views of one object: cameras and what they see."""

    cameras: Cameras
    gbuffer: GBuffer

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int | slice | list[int]) -> ViewSet:
        return ViewSet(self.cameras[index], self.gbuffer[index])

    def to(self, device: torch.device | str) -> ViewSet:
        return ViewSet(self.cameras.to(device), self.gbuffer.to(device))

    def save(self, path: Path) -> None:
        """Write one safetensors file (lossless; pictures are made by `render.contact_sheet`)."""
        tensors = {name: value.contiguous() for name, value in self.gbuffer.channels().items()}
        tensors |= {"c2w": self.cameras.c2w.contiguous(), "intrinsics": self.cameras.intrinsics.contiguous()}
        save_file(tensors, path, metadata={"projection": self.cameras.projection})

    @staticmethod
    def load(path: Path) -> ViewSet:
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as file:
            projection: Projection = (
                "perspective" if file.metadata()["projection"] == "perspective" else "orthographic"
            )
            names = file.keys()  # a safetensors file is no mapping and cannot be iterated
            tensors = {name: file.get_tensor(name) for name in names}
        c2w, intrinsics = tensors.pop("c2w"), tensors.pop("intrinsics")
        _, height, width, _ = tensors["alpha"].shape
        return ViewSet(Cameras(c2w, intrinsics, width, height, projection), GBuffer(**tensors))


def concatenate(first: ViewSet, second: ViewSet) -> ViewSet:
    """The views of both, with the channels that both have. Sizes and projection must agree."""
    a, b = first.gbuffer.channels(), second.gbuffer.channels()
    cameras = replace(
        first.cameras,
        c2w=torch.cat([first.cameras.c2w, second.cameras.c2w]),
        intrinsics=torch.cat([first.cameras.intrinsics, second.cameras.intrinsics]),
    )
    return ViewSet(cameras, GBuffer(**{name: torch.cat([a[name], b[name]]) for name in a if name in b}))
