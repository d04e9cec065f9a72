"""Makes the sample pictures in assets/samples: six props of ours, built from primitives and rendered.

    python scripts/make_samples.py

Each is seen from another side, under another light, on another background (transparent, white, grey,
coloured), because that is what users' pictures are like. Same script, same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh import creation, transformations

from render.preview import PreviewRenderer, frame_cameras
from render.scene import Material, Mesh, Part, Scene

OUT = Path(__file__).resolve().parent.parent / "assets" / "samples"
SIZE_PX = 512

Color = tuple[float, float, float]
Piece = tuple[trimesh.Trimesh, Color, float, float]
"""Shape, base colour (sRGB), metallic, roughness."""

WOOD: Color = (0.52, 0.33, 0.17)
DARK_WOOD: Color = (0.36, 0.22, 0.12)
IRON: Color = (0.42, 0.42, 0.45)


def box(size: tuple[float, float, float], at: tuple[float, float, float]) -> trimesh.Trimesh:
    return creation.box(size, transformations.translation_matrix(at))


def lathe(profile: list[tuple[float, float]], at: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    """A solid of revolution around +Y from (radius, height) points."""
    mesh = creation.revolve(np.array(profile, float), sections=48)
    mesh.apply_transform(transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    mesh.apply_translation(at)
    return mesh


def ball(radius: float, at: tuple[float, float, float], squash: float = 1.0) -> trimesh.Trimesh:
    mesh = creation.icosphere(3, radius)
    mesh.apply_scale([1, squash, 1])
    mesh.apply_translation(at)
    return mesh


def barrel() -> list[Piece]:
    heights = np.linspace(-0.6, 0.6, 17)
    radii = 0.36 + 0.1 * np.cos(heights / 0.6 * np.pi / 2)
    body = lathe([(0.0, -0.6), *zip(radii.tolist(), heights.tolist(), strict=True), (0.0, 0.6)])
    pieces: list[Piece] = [(body, WOOD, 0.0, 0.75)]
    for y in (-0.42, -0.12, 0.12, 0.42):
        r = 0.375 + 0.1 * float(np.cos(y / 0.6 * np.pi / 2))
        band = lathe([(0.0, y - 0.05), (r, y - 0.05), (r, y + 0.05), (0.0, y + 0.05)])
        pieces.append((band, IRON, 0.9, 0.4))
    return pieces


def mushroom() -> list[Piece]:
    stem = lathe([(0.0, -0.6), (0.2, -0.58), (0.13, -0.2), (0.15, 0.15), (0.0, 0.15)])
    arc = np.linspace(0, np.pi / 2, 12)
    cap = lathe([(0.0, 0.05), *((0.55 * float(np.cos(t)), 0.05 + 0.42 * float(np.sin(t))) for t in arc)])
    pieces: list[Piece] = [(stem, (0.93, 0.88, 0.76), 0.0, 0.8), (cap, (0.78, 0.1, 0.08), 0.0, 0.5)]
    for azimuth, height in ((20, 25), (95, 40), (150, 20), (215, 35), (290, 22), (340, 55), (60, 65)):
        a, h = np.deg2rad(azimuth), np.deg2rad(height)
        at = (0.54 * np.cos(h) * np.sin(a), 0.05 + 0.41 * np.sin(h), 0.54 * np.cos(h) * np.cos(a))
        pieces.append((ball(0.07, at, 0.7), (0.96, 0.95, 0.9), 0.0, 0.6))
    return pieces


def tree() -> list[Piece]:
    pieces: list[Piece] = [
        (lathe([(0.0, -0.7), (0.1, -0.7), (0.07, -0.2), (0.0, -0.2)]), DARK_WOOD, 0.0, 0.9)
    ]
    for base, radius, green in ((-0.35, 0.46, 0.3), (-0.02, 0.36, 0.36), (0.28, 0.25, 0.42)):
        cone = lathe([(0.0, base), (radius, base), (0.0, base + 0.5)])
        pieces.append((cone, (0.13, green, 0.17), 0.0, 0.85))
    return pieces


def house() -> list[Piece]:
    roof = trimesh.Trimesh(
        [
            [-0.55, 0.1, -0.45],
            [0.55, 0.1, -0.45],
            [0.55, 0.1, 0.45],
            [-0.55, 0.1, 0.45],
            [-0.55, 0.55, 0],
            [0.55, 0.55, 0],
        ],
        [[0, 1, 2], [0, 2, 3], [3, 2, 5], [3, 5, 4], [1, 0, 4], [1, 4, 5], [0, 3, 4], [2, 1, 5]],
    )
    return [
        (box((0.95, 0.6, 0.75), (0, -0.2, 0)), (0.78, 0.74, 0.66), 0.0, 0.9),
        (roof, (0.62, 0.2, 0.14), 0.0, 0.8),
        (box((0.18, 0.34, 0.04), (-0.15, -0.33, 0.38)), DARK_WOOD, 0.0, 0.7),
        (box((0.18, 0.18, 0.04), (0.22, -0.12, 0.38)), (0.35, 0.55, 0.72), 0.0, 0.2),
        (box((0.14, 0.4, 0.14), (0.28, 0.42, -0.15)), (0.5, 0.42, 0.4), 0.0, 0.9),
    ]


def crate() -> list[Piece]:
    pieces: list[Piece] = [(box((0.9, 0.9, 0.9), (0, 0, 0)), WOOD, 0.0, 0.8)]
    for a in (-0.44, 0.44):
        for b in (-0.44, 0.44):
            pieces.append((box((1.0, 0.12, 0.12), (0, a, b)), DARK_WOOD, 0.0, 0.8))
            pieces.append((box((0.12, 1.0, 0.12), (a, 0, b)), DARK_WOOD, 0.0, 0.8))
            pieces.append((box((0.12, 0.12, 1.0), (a, b, 0)), DARK_WOOD, 0.0, 0.8))
    return pieces


def sword() -> list[Piece]:
    blade = creation.cylinder(0.1, 1.1, sections=4)
    blade.apply_transform(transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    blade.apply_scale([1, 1, 0.25])
    blade.apply_translation([0, 0.3, 0])
    tip = lathe([(0.0, 0.0), (0.1, 0.0), (0.0, 0.18)])
    tip.apply_scale([1, 1, 0.25])
    tip.apply_translation([0, 0.85, 0])
    gold: Color = (0.85, 0.65, 0.2)
    return [
        (blade, (0.75, 0.77, 0.8), 1.0, 0.3),
        (tip, (0.75, 0.77, 0.8), 1.0, 0.3),
        (box((0.5, 0.08, 0.12), (0, -0.28, 0)), gold, 1.0, 0.35),
        (lathe([(0.0, -0.62), (0.05, -0.62), (0.045, -0.3), (0.0, -0.3)]), DARK_WOOD, 0.0, 0.7),
        (ball(0.08, (0, -0.66, 0)), gold, 1.0, 0.35),
    ]


def scene_of(pieces: list[Piece]) -> Scene:
    parts = []
    for shape, color, metallic, roughness in pieces:
        flat = shape.copy()
        flat.unmerge_vertices()
        mesh = Mesh(
            np.asarray(flat.vertices, np.float32),
            np.asarray(flat.faces, np.int32),
            normals=np.repeat(np.asarray(flat.face_normals, np.float32), 3, axis=0),
        )
        constant = np.ones((1, 1), np.float32)
        base = np.asarray(color, np.float32).reshape(1, 1, 3)
        parts.append(Part(mesh, Material(base, constant * metallic, constant * roughness)))
    return Scene(tuple(parts))


LOOKS = {
    # name: pieces, azimuth, elevation, field of view, light, background
    "barrel": (barrel(), 25.0, 15.0, 30.0, "studio", "transparent"),
    "mushroom": (mushroom(), 40.0, 10.0, 35.0, "overcast", "#c9b79a"),
    "tree": (tree(), 0.0, 12.0, 25.0, "studio", "#8fa7bd"),
    "house": (house(), 35.0, 20.0, 40.0, "sunset", "#ffffff"),
    "crate": (crate(), 30.0, 25.0, 35.0, "overcast", "#6f747a"),
    "sword": (sword(), 15.0, 5.0, 25.0, "studio", "#3f5566"),
}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (pieces, azimuth, elevation, fov, light, background) in LOOKS.items():
        scene = scene_of(pieces)
        cameras = frame_cameras(scene, SIZE_PX, azimuths_deg=(azimuth,), elevation_deg=elevation, fov_deg=fov)
        # A transparent picture has no floor, whose shadow would be part of the object.
        renderer = PreviewRenderer(scene, light=light, floor=background != "transparent")
        pixels = renderer.render(cameras, background=background, supersample=3)[0]
        image = Image.fromarray(pixels)
        (image if background == "transparent" else image.convert("RGB")).save(
            OUT / f"{name}.png", optimize=True
        )
        print(OUT / f"{name}.png")


if __name__ == "__main__":
    main()
