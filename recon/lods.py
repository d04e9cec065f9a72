"""Levels of detail: the same object with fewer and fewer triangles.

In: the finest level, any scene. Out: coarser levels of one part each. Each is decimated, unwrapped and
baked anew from the finest one (colour, normals, occlusion), with half of the texture's side of the
level before, so all of them together need a third more texture memory than the first alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from recon.simplify import simplify
from recon.transfer import TransferConfig, transfer
from recon.uv import unwrap
from render.errors import InputError
from render.progress import Progress, silent
from render.scene import Part, Scene, merged

_LEAST_TRIANGLES = 12
_LEAST_TEXTURE = 128


@dataclass(frozen=True)
class LodConfig:
    """How many levels, and how much coarser each is than the one before."""

    levels: int = 4
    """With the finest one: `_LOD0` to `_LOD3`."""
    ratio: float = 0.5
    """Triangles of a level over those of the level before."""

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 8:
            raise InputError(f"lods.levels is {self.levels}; it must be from 1 to 8")
        if not 0.05 <= self.ratio <= 0.95:
            raise InputError(f"lods.ratio is {self.ratio}; it must be from 0.05 to 0.95")


def make_lods(
    finest: Scene, texture_size: int, config: LodConfig | None = None, *, progress: Progress = silent
) -> tuple[Part, ...]:
    """The levels after the finest one; fewer than asked for when there are no triangles left to save."""
    config = config or LodConfig()
    out: list[Part] = []
    whole = merged(finest)
    size, triangles = texture_size, len(whole.faces)
    for level in range(1, config.levels):
        progress((level - 1) / max(config.levels - 1, 1), f"level of detail {level}")
        size = max(size // 2, _LEAST_TEXTURE)
        target = int(len(whole.faces) * config.ratio**level)
        if target < _LEAST_TRIANGLES:
            break
        simple = simplify(whole, target, close=False)
        if len(simple.faces) >= triangles:
            break
        triangles = len(simple.faces)
        mesh, material = transfer(
            unwrap(simple, size), finest, TransferConfig(texture_size=size, two_sided=True)
        )
        out.append(Part(mesh, material, finest.parts[0].name))
    progress(1.0)
    return tuple(out)
