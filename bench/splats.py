"""Splat rasteriser, forward and backward: the numba kernels beside the torch reference.

    python bench/splats.py [--splats 20000] [--views 4] [--size 128] [--repeats 5]

Both render the same flat Gaussians (a bumpy sphere, as a fitted object has them) with
nine composited values each, from the same cameras, and differentiate the same loss.
They take turns, and the medians are compared, so that a busy machine slows both. The
reference runs view by view, because its autograd tape of four views does not fit in a
few GB. The thread counts are those of OMP_NUM_THREADS and NUMBA_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Literal

import numba
import torch
from torch import Tensor

from render.cameras import Cameras, orbit_cameras
from render.splats import rasterize_splats


def bumpy_sphere(count: int, generator: torch.Generator) -> list[Tensor]:
    """Flat Gaussians that cover a bumpy sphere: means, quats, scales, opacities, 5 channels."""
    index = torch.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, 2.39996323 * index  # golden-angle spiral
    ring = (1 - height**2).sqrt()
    directions = torch.stack([ring * angle.cos(), height, ring * angle.sin()], -1)
    bumps = 1 + 0.05 * (8 * directions).sin().prod(-1, keepdim=True)
    means = 0.8 * directions * bumps
    # The shortest turn from +Z to the direction.
    quats = (
        torch.stack([1 + directions[:, 2], -directions[:, 1], directions[:, 0], torch.zeros(count)], -1)
        + 1e-6
    )
    spacing = 0.8 * (4 * torch.pi / count) ** 0.5
    scales = torch.tensor([0.7, 0.7, 0.0]) * spacing * (0.8 + 0.4 * torch.rand(count, 1, generator=generator))
    opacities = 0.6 + 0.35 * torch.rand(count, generator=generator)
    channels = torch.rand(count, 5, generator=generator)
    return [t.contiguous() for t in (means, quats, scales, opacities, channels)]


def seconds(splats: list[Tensor], views: list[Cameras], backend: Literal["numba", "torch"]) -> float:
    """Time of forward and backward over all views."""
    leaves = [t.clone().requires_grad_() for t in splats]
    start = time.perf_counter()
    for cameras in views:
        images = rasterize_splats(*leaves, cameras, backend=backend)
        parts = (images.alphas, images.channels, images.depths, images.normals)
        sum((part * part).mean() for part in parts).backward()  # type: ignore[union-attr]
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splats", type=int, default=20_000)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only-fast", action="store_true", help="time the kernels alone")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    splats = bumpy_sphere(options.splats, generator)
    azimuths = [360.0 * i / options.views for i in range(options.views)]
    cameras = orbit_cameras(azimuths, [15.0] * options.views, options.size)
    one_by_one = [cameras[i] for i in range(options.views)]
    seconds(splats, [cameras], "numba")  # compiles, or loads from the cache
    fast, plain = [], []
    for _ in range(options.repeats):
        fast.append(seconds(splats, [cameras], "numba"))
        if not options.only_fast:
            plain.append(seconds(splats, one_by_one, "torch"))
    print(f"{options.splats} splats, {options.views} views of {options.size} px, forward and backward")
    print(f"threads: torch {torch.get_num_threads()}, numba {numba.get_num_threads()}")
    print(f"numba kernels    {1e3 * statistics.median(fast):9.1f} ms")
    if plain:
        print(f"torch reference  {1e3 * statistics.median(plain):9.1f} ms")
        print(f"ratio            {statistics.median(plain) / statistics.median(fast):9.1f}")


if __name__ == "__main__":
    main()
