"""Speed of the preview renderer: `python bench/preview.py [ASSET.glb ...]`.

Prints, for a textured object of 10,000 triangles (or the given assets) at 512 pixels: the time to make ready
(textures, shadow maps), a still as `maquette generate` draws it (768 pixels, 3x3 subsamples), frames a second
with 2x2 subsamples, and a whole turntable with encoding. The bar is 10 frames a second on two free cores.
Threads: NUMBA_NUM_THREADS. The object is a bumpy sphere, so that it fills the frame and shadows itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numba
import numpy as np
import trimesh

from render.environment import environment
from render.glb import load_scene
from render.preview import PreviewRenderer, frame_cameras
from render.scene import Material, Mesh, Part, Scene
from render.turntable import TurntableConfig, turntable

FRAMES = 24
BAR = 10.0


def bumpy_sphere(rings: int = 72, sectors: int = 70, texture_px: int = 1024) -> Scene:
    """10,080 triangles with 1k base colour, metallic, roughness and normal maps."""
    v, u = np.meshgrid(np.linspace(0, 1, rings + 1), np.linspace(0, 1, sectors + 1), indexing="ij")
    polar, azimuth = (1 - v) * np.pi, u * 2 * np.pi
    radius = 0.8 + 0.12 * np.sin(7 * azimuth) * np.sin(polar) ** 2 * np.sin(6 * polar)
    vertices = np.stack(
        [
            radius * np.sin(polar) * np.sin(azimuth),
            radius * np.cos(polar),
            radius * np.sin(polar) * np.cos(azimuth),
        ],
        -1,
    ).reshape(-1, 3)
    index = np.arange(rings * (sectors + 1)).reshape(rings, sectors + 1)[:, :-1].ravel()
    over = index + sectors + 1
    faces = np.concatenate([np.stack([index, index + 1, over], 1), np.stack([index + 1, over + 1, over], 1)])
    normals = trimesh.Trimesh(vertices, faces, process=False).vertex_normals
    rng = np.random.default_rng(0)
    noise = rng.uniform(size=(texture_px, texture_px, 3)).astype(np.float32)
    material = Material(
        base_color_srgb=0.3 + 0.5 * noise,
        metallic=(noise[..., 0] > 0.5).astype(np.float32),
        roughness=0.2 + 0.6 * noise[..., 1],
        normal=np.array([0.5, 0.5, 1.0], np.float32) + 0.05 * (noise - 0.5),
    )
    mesh = Mesh(
        vertices.astype(np.float32),
        faces.astype(np.int32),
        normals=normals.astype(np.float32),
        uvs=np.stack([u, v], -1).reshape(-1, 2).astype(np.float32),
    )
    return Scene((Part(mesh, material),))


def measure(name: str, scene: Scene, size_px: int) -> float:
    """Prints one line; returns frames a second."""
    start = time.perf_counter()
    renderer = PreviewRenderer(scene)
    ready = time.perf_counter() - start
    start = time.perf_counter()
    renderer.render(frame_cameras(scene, 768), supersample=3)
    still = time.perf_counter() - start
    azimuths = tuple(360.0 * index / FRAMES for index in range(FRAMES))
    cameras = frame_cameras(scene, size_px, azimuths_deg=azimuths)
    spent = []
    for index in range(FRAMES):
        start = time.perf_counter()
        renderer.render(cameras[index])
        spent.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        turntable(scene, Path(folder) / "turn.mp4", TurntableConfig(frames=FRAMES, size_px=size_px))
        turn = time.perf_counter() - start
    rate = 1 / statistics.median(spent)
    triangles = sum(len(part.mesh.faces) for part in scene.parts)
    print(
        f"{name:28} {triangles:8} triangles  ready {ready:5.2f} s  still {still:5.2f} s  "
        f"{rate:5.1f} frames/s  turntable of {FRAMES} {turn:5.2f} s"
    )
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assets", nargs="*", type=Path)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} processors, {numba.get_num_threads()} threads, "
        f"{arguments.size} pixels, load {os.getloadavg()[0]:.1f}"
    )
    warm = bumpy_sphere(texture_px=64)
    PreviewRenderer(warm).render(frame_cameras(warm, 32))
    start = time.perf_counter()
    environment("studio")
    print(f"environment {time.perf_counter() - start:.2f} s")
    rate = measure("bumpy sphere, 1k textures", bumpy_sphere(), arguments.size)
    for asset in arguments.assets:
        measure(asset.name, load_scene(asset), arguments.size)
    print(f"bar {BAR:.0f} frames/s: {'met' if rate >= BAR else 'missed'}")


if __name__ == "__main__":
    main()
