"""The packed training meshes: reading, surface properties of their faces, captions.

A pack is `<stem>.bin.xz` + `<stem>.jsonl`: positions and colours per vertex, a
material index per face, and a line of JSON per object (caption, pack, category,
split, material names). The format is stated in `docs/training.md`.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from pipeline.color_names import COLOR_WORDS, COLORS, nearest_colors
from render.errors import InputError


@dataclass(frozen=True)
class Prop:
    """One training object, centred, inside the unit ball, +Y up, front +Z."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    colors: UInt8[np.ndarray, "V 3"]
    """sRGB base colour."""
    metallic: Float[np.ndarray, " F"]
    roughness: Float[np.ndarray, " F"]
    material_known: Float[np.ndarray, " F"]
    """1 where metallic and roughness follow from a name, 0 where they are a guess."""
    caption: str
    pack: str
    category: str
    split: str
    materials: tuple[str, ...]
    captions: tuple[str, ...] = ()
    """What it may be called; empty where that follows from the caption, colours and materials."""


# Metallic and roughness that go with words in material names; the first match wins. Values are those of
# physicallybased.info and of the usual PBR charts, rounded.
_SURFACES: tuple[tuple[str, float, float], ...] = (
    (r"gold|brass", 1.0, 0.30),
    (r"silver|chrome|steel|alumin", 1.0, 0.30),
    (r"copper|bronze", 1.0, 0.40),
    (r"metal|iron(?!wood)", 1.0, 0.45),
    (r"glass|window|visor|lens", 0.0, 0.10),
    (r"water|ice", 0.0, 0.10),
    (r"gem|crystal|diamond|ruby|emerald", 0.0, 0.15),
    (r"wood|bark|plank|trunk|log", 0.0, 0.80),
    (r"stone|rock|brick|concrete|cliff|asphalt|road|marble|clay|plaster", 0.0, 0.90),
    (r"dirt|sand|ground|soil|snow|grass|earth", 0.0, 0.95),
    (r"leaf|leaves|leafs|foliage|plant|bush|flower|petal|cactus|moss", 0.0, 0.75),
    (r"fabric|cloth|carpet|shirt|pants|textile|wool|hay|rope|paper|canvas|pillow|curtain", 0.0, 0.90),
    (r"leather|skin|hair|fur|muzzle|shoes|bone", 0.0, 0.70),
    (r"rubber|tire|tyre|wheel", 0.0, 0.85),
    (r"plastic|ceramic|porcelain|paint", 0.0, 0.40),
    (r"roof|wall|tile", 0.0, 0.85),
)
_UNKNOWN_SURFACE = (0.0, 0.75)
# Nothing in these categories is metal, whatever colour palette they share.
_NEVER_METAL = {"nature": 0.85, "food": 0.70, "character": 0.80}


def surface_of(material: str) -> tuple[float, float] | None:
    """(metallic, roughness) that a material's name tells, or None."""
    for pattern, metallic, roughness in _SURFACES:
        if re.search(pattern, material.lower()):
            return metallic, roughness
    return None


def load_props(stem: Path) -> Iterator[Prop]:
    """Every object of the pack `<stem>.bin.xz`, in order. `InputError` if it is not there."""
    binary, index = stem.with_suffix(".bin.xz"), stem.with_suffix(".jsonl")
    for path in (binary, index):
        if not path.is_file():
            raise InputError(f"training data not found: {path} (set `data` in the training configuration)")
    rows = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()]
    blob = lzma.decompress(binary.read_bytes())
    n_vertices = rows[-1]["v0"] + rows[-1]["nv"]
    n_faces = rows[-1]["f0"] + rows[-1]["nf"]
    positions = np.frombuffer(blob, "<u2", 3 * n_vertices).reshape(3, n_vertices).T
    at = positions.nbytes
    colors = np.frombuffer(blob, "u1", 3 * n_vertices, at).reshape(3, n_vertices).T
    at += colors.nbytes
    deltas = np.frombuffer(blob, "<i4", 3 * n_faces, at)
    at += deltas.nbytes
    face_material = np.frombuffer(blob, "u1", n_faces, at)
    for row in rows:
        v = slice(row["v0"], row["v0"] + row["nv"])
        f = slice(row["f0"], row["f0"] + row["nf"])
        vertices = positions[v].astype(np.float32)
        faces = np.cumsum(deltas[f.start * 3 : f.stop * 3].astype(np.int64)).reshape(-1, 3)
        materials = tuple(row["materials"]) or ("",)
        surfaces = _surfaces(materials, row["category"])[face_material[f]]
        yield Prop(
            vertices=in_unit_ball(vertices),
            faces=faces.astype(np.int32),
            colors=np.ascontiguousarray(colors[v]),
            metallic=surfaces[:, 0],
            roughness=surfaces[:, 1],
            material_known=surfaces[:, 2],
            caption=row["caption"],
            pack=row["pack"],
            category=row["category"],
            split=row["split"],
            materials=materials,
        )


def in_unit_ball(vertices: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 3"]:
    """Vertices with the middle of their box at the origin, the farthest at distance 1."""
    centered = vertices - (vertices.min(0) + vertices.max(0)) / 2
    return (centered / np.linalg.norm(centered, axis=1).max()).astype(np.float32)


def _surfaces(materials: tuple[str, ...], category: str) -> NDArray[np.float32]:
    """(metallic, roughness, known) of each material."""
    out = []
    for name in materials:
        surface = surface_of(name)
        if surface is not None:
            out.append((*surface, 1.0))
        elif category in _NEVER_METAL:
            out.append((0.0, _NEVER_METAL[category], 1.0))
        else:
            out.append((*_UNKNOWN_SURFACE, 0.0))
    return np.array(out, np.float32)


# Parts and modular tiles that nobody asks for by such a name.
_NOT_ASKED_FOR = re.compile(
    r"\b(track|monorail|numbers?|letter|debris|coaster|conveyor|corner|skew|narrow|striped|straight|bend|"
    r"body ar|stock|grip|magazine|scope|receiver|barrel ar|ar|hexagon(al)?|path|river|coast|ramp|curve|"
    r"railing|transition|template|mat|prototype|connector|detail|details|border|ceiling|overhang|cliff|edge|"
    r"crops|stage|trim|gizmo|cursor|hud|icon|arrow indicator|pattern|center|side|left|right|top|bottom|"
    r"base|end|mid|middle|segment|piece|section|floor|wall|door frame|window frame|low detail)\b"
)
_CODES = re.compile(r"\b([a-h]|[0-9]+|type|variant|version|lod[0-9]?|(first|second|third) age|level|lvl)\b")
# Names that people use for what the makers call otherwise.
_SYNONYMS: tuple[tuple[str, str], ...] = (
    ("couch", "sofa"), ("lounge sofa", "sofa"), ("television", "tv"), ("sedan", "car"), ("hatchback", "car"),
    ("suv", "car"), ("taxi", "taxi car"), ("police", "police car"), ("common tree", "tree"),
    ("rocks", "rock"),
    ("stone", "rock"), ("oak", "oak tree"), ("houseplant", "potted plant"), ("chest", "treasure chest"),
    ("armchair", "chair"), ("building", "house"), ("hut", "house"), ("cottage", "house"), ("box", "crate"),
    ("blaster", "sci-fi gun"), ("ship", "boat"), ("longsword", "sword"), ("toadstool", "mushroom"),
)  # fmt: skip


def is_asked_for(prop: Prop) -> bool:
    """Whether a user might ask for this object by its name."""
    return bool(clean_caption(prop.caption)) and not _NOT_ASKED_FOR.search(prop.caption)


def clean_caption(caption: str) -> str:
    """A caption without part codes."""
    return " ".join(_CODES.sub(" ", caption.lower()).split())


def color_words(prop: Prop, minimum_share: float = 0.25) -> tuple[str, ...]:
    """Names of the dominant colours by visible area (faces weighted by area), largest first."""
    corners = prop.vertices[prop.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    nearest = nearest_colors(prop.colors[prop.faces].astype(np.float32).mean(1))
    share = np.bincount(nearest, area, len(COLORS)) / max(area.sum(), 1e-12)
    order = np.argsort(-share)
    return tuple(COLOR_WORDS[i] for i in order if share[i] >= minimum_share)


_MATERIAL_WORDS = (
    ("wood", "wooden"),
    ("stone", "stone"),
    ("metal", "metal"),
    ("gold", "golden"),
    ("glass", "glass"),
)
_PACK_WORDS: tuple[tuple[str, str], ...] = (
    ("medieval", "medieval"), ("castle", "medieval"), ("dungeon", "dungeon"), ("space", "sci-fi"),
    ("sci_fi", "sci-fi"), ("cyberpunk", "cyberpunk"), ("pirate", "pirate"), ("graveyard", "spooky"),
    ("halloween", "halloween"), ("holiday", "christmas"), ("fantasy", "fantasy"), ("rpg", "fantasy"),
    ("survival", "survival"), ("cute", "cute"), ("city", "modern"), ("kitchen", "kitchen"),
)  # fmt: skip


def captions(prop: Prop) -> list[str]:
    """What people might type to get this object, the plainest first; at least one."""
    if prop.captions:
        return list(prop.captions)
    name = clean_caption(prop.caption)
    colors = color_words(prop)
    plain = [name]
    for maker, common in _SYNONYMS:
        if re.search(rf"\b{maker}\b", name) and common not in name:
            plain.append(re.sub(rf"\b{maker}\b", common, name))
    out = list(plain)
    if colors and not any(word in name for word in COLOR_WORDS):
        out += [f"{colors[0]} {text}" for text in plain]
        if len(colors) > 1:
            out.append(f"{colors[0]} and {colors[1]} {name}")
    for key, word in _MATERIAL_WORDS:
        known = sum(key in m.lower() for m in prop.materials)
        if prop.materials and known * 2 >= len(prop.materials) and word not in name and key not in name:
            out.append(f"{word} {plain[-1]}")
    for key, word in _PACK_WORDS:
        if key in prop.pack.lower() and word not in name:
            out.append(f"{word} {name}")
            break
    return [with_article(text) if i % 2 else text for i, text in enumerate(out)]


def with_article(text: str) -> str:
    """`a red barrel`."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
