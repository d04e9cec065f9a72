"""Time of a fit's step and of the bake beside what the machine could do: bytes and operations to move.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m bench.roofline [--splats 24000] [--texture 2048]

First the machine: bandwidth of copying 256 MB, and operations a second of a scalar loop in numba (these
kernels branch on every pixel and do not vectorise) and of a matrix product. Then one step of the fit of flat
Gaussians to three views (forward, backward, Adam) and the bake of 32 views of 256 pixels. Operations are
counted from the data: pairs of splat and pixel within three standard deviations, texels times views, and
what each costs in the kernels' source. A share of 1 would be a step limited by arithmetic or memory alone.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import no_type_check

import numba
import numpy as np
import torch
import trimesh

from bench.splats import bumpy_sphere
from recon.adam import Adam
from recon.bake import BakeConfig, gather
from recon.texels import texels_of
from recon.topology import vertex_normals
from recon.uv import unwrap
from render.cameras import orbit_cameras
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Mesh
from render.splats import rasterize_splats

FORWARD_OPERATIONS = 40
"""Of a splat at a pixel: quadratic form, exponential, blending of twelve values."""
BACKWARD_OPERATIONS = 120
GATHER_OPERATIONS = 30
"""Of a texel and a view: projection, angle, depth test."""
SAMPLE_OPERATIONS = 90
"""Of a texel and a view that sees it: bilinear sample of seven planes, weights, outliers."""
FLOATS_PER_SPLAT = 15


@numba.njit(cache=True)
@no_type_check
def _scalar(n: int, start: float) -> float:
    a, b, c, d = start, start + 1, start + 2, start + 3
    for _ in range(n):
        # Four chains, so that latency does not decide; each depends on itself and cannot be vectorised away.
        a, b, c, d = a * 0.999 + 1e-3, b * 0.998 + 2e-3, c * 0.997 + 3e-3, d * 0.996 + 4e-3
    return a + b + c + d


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def machine() -> tuple[float, float]:
    """Bytes a second and scalar operations a second."""
    source = np.ones(64 << 20, np.float32)
    target = np.empty_like(source)
    bandwidth = 2 * source.nbytes / best(lambda: np.copyto(target, source))
    scalar = 8 * 2_000_000 / best(lambda: _scalar(2_000_000, 0.5))
    matrix = torch.rand(1024, 1024)
    peak = 2 * 1024**3 / best(lambda: matrix @ matrix)
    print(
        f"machine | {bandwidth / 1e9:.1f} GB/s | operations: scalar {scalar / 1e9:.2f} G/s, "
        f"matrices {peak / 1e9:.0f} G/s"
    )
    return bandwidth, scalar


def fit_step(splats: int, size: int, bandwidth: float, scalar: float) -> None:
    leaves = [
        value.clone().requires_grad_() for value in bumpy_sphere(splats, torch.Generator().manual_seed(0))
    ]
    cameras = orbit_cameras([0.0, 120.0, 240.0], [15.0] * 3, size)
    optimizer = Adam([(leaf, 1e-4) for leaf in leaves], betas=(0.9, 0.99), eps=1e-15)

    def step() -> None:
        seen = rasterize_splats(*leaves, cameras)
        parts = (seen.alphas, seen.channels, seen.depths, seen.normals)
        sum((part * part).mean() for part in parts).backward()  # type: ignore[union-attr]
        optimizer.step()

    seconds = best(step)
    # A disc of standard deviation s seen at the mean angle covers half of its face, 9 pi s^2 / 2.
    pixels = float(cameras.intrinsics[0, 0])
    area = float((leaves[2].detach()[:, 0] * leaves[2].detach()[:, 1]).sum()) * np.pi * 9 / 2 * pixels**2
    pairs = 3 * area
    operations = pairs * (FORWARD_OPERATIONS + BACKWARD_OPERATIONS)
    moved = 4 * (7 * FLOATS_PER_SPLAT * splats + 4 * 12 * 3 * size**2)
    report(f"fit step, {splats} splats, 3 views of {size}", seconds, moved, operations, bandwidth, scalar)
    print(f"  {pairs / (3 * size**2):.0f} splats a pixel, {1e9 * seconds / pairs:.1f} ns a pair, both ways")


def bake_rate(texture: int, bandwidth: float, scalar: float) -> None:
    ball = trimesh.creation.icosphere(5, 0.8)
    vertices, faces = np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32)
    mesh = unwrap(Mesh(vertices, faces, vertex_normals(vertices, faces)), texture)
    cameras = orbit_cameras([45.0 * i for i in range(32)], [-60 + 120 * i / 31 for i in range(32)], 256)
    depth = torch.from_numpy(rasterize(mesh.vertices, mesh.faces, cameras).depth)[..., None]
    alpha = (depth > 0).float()
    views = ViewSet(
        cameras, GBuffer(alpha=alpha, base_color_srgb=alpha.expand(-1, -1, -1, 3) * 0.5, depth=depth)
    )
    texels = texels_of(mesh, texture)
    places = texels.interpolate(mesh.vertices, mesh.faces)
    normals = places / np.linalg.norm(places, axis=1, keepdims=True)
    seconds = best(lambda: gather(mesh, places, normals, views, BakeConfig()), 2)
    seen = float(np.mean([(normals @ c2w[:3, 2] > 0.08).mean() for c2w in cameras.c2w.numpy()])) * len(
        cameras
    )
    operations = len(places) * (len(cameras) * GATHER_OPERATIONS + seen * SAMPLE_OPERATIONS)
    # Texels once in and out; of the views what a texel reads lies in the caches for its neighbours too.
    moved = len(places) * 4 * (6 + 6) + 4 * 7 * len(cameras) * 256**2
    report(f"bake, {len(places)} texels, 32 views", seconds, moved, operations, bandwidth, scalar)
    print(f"  {len(places) / seconds / 1e6:.2f} million texels a second; {seen:.1f} views see a texel")


def report(
    name: str, seconds: float, moved: float, operations: float, bandwidth: float, scalar: float
) -> None:
    by_memory, by_arithmetic = moved / bandwidth, operations / scalar
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name} | {1e3 * seconds:.1f} ms | memory alone {1e3 * by_memory:.1f} ms, arithmetic alone "
        f"{1e3 * by_arithmetic:.1f} ms | share {max(by_memory, by_arithmetic) / seconds:.2f} | "
        f"peak {peak:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--splats", type=int, default=24_000)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--texture", type=int, default=2048)
    given = parser.parse_args()
    bandwidth, scalar = machine()
    fit_step(given.splats, given.size, bandwidth, scalar)
    bake_rate(given.texture, bandwidth, scalar)


if __name__ == "__main__":
    main()
