"""The gallery: 24 fixed prompts and 6 fixed pictures, made with the shipped model.

    python bench/gallery.py                    # all, preset standard, into out/gallery
    python bench/gallery.py --preset draft --only 5
    python bench/gallery.py --docs             # and docs/gallery.md with its picture

Nothing is picked: seed 0 for all. A finished item is not made again. Prints one line per item, and
whether every one ended in a valid, watertight GLB; exits with 1 when one did not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "assets" / "samples"
SEED = 0

PROMPTS = (
    "a wooden barrel with iron bands",
    "a wooden crate",
    "a pine tree",
    "an oak tree in autumn",
    "a red mushroom with white dots",
    "a sword with a golden hilt",
    "a small stone house with a red roof",
    "a yellow car",
    "a wooden chair",
    "a blue sofa",
    "a grey rock covered with moss",
    "a treasure chest",
    "a street lamp",
    "a wooden table",
    "a medieval tower",
    "a rowing boat",
    "a green cactus",
    "a stone well",
    "a campfire",
    "a potion bottle",
    "a shield",
    "a wooden fence",
    "a rocket",
    "a traffic cone",
)
PICTURES = ("barrel", "mushroom", "tree", "house", "crate", "sword")


@dataclass(frozen=True)
class Item:
    """One picture of the gallery."""

    label: str
    folder: Path
    seconds: float
    asset: dict[str, object]
    consistency: float
    looks_like: str = ""
    """What the drawn views look most like to the model's critic, of all that it knows."""
    error: str = ""

    @property
    def valid(self) -> bool:
        return not self.error and bool(self.asset.get("watertight")) and bool(self.asset.get("manifold"))


def make(label: str, text: str, image: Path | None, folder: Path, preset: str) -> Item:
    """Runs one item, or reads what an earlier run left."""
    from pipeline import generate
    from render.errors import MaquetteError

    if not (folder / "report.json").is_file():
        start = time.perf_counter()
        try:
            generate(text, image=image, out=folder, preset=preset, seed=SEED)
        except MaquetteError as error:
            return Item(label, folder, time.perf_counter() - start, {}, 0.0, error=str(error))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    views = report["views"]
    agree, looks_like = views["consistency"]["geometry"], ", ".join(views["looks_like"][:2])
    return Item(label, folder, report["total_s"], report["asset"], agree, looks_like)


def write_docs(items: list[Item], preset: str) -> None:
    """The contact sheet of the README and the gallery's page."""
    from render.contact_sheet import sheet

    done = [item for item in items if not item.error]
    images = []
    for item in done:
        with Image.open(item.folder / "preview.png") as picture:
            images.append(picture.convert("RGB"))
    target = ROOT / "docs" / "images" / "gallery.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet(images, [item.label for item in done], columns=6, cell_px=220).save(target, quality=88)
    valid = sum(item.valid for item in items)
    lines = [
        "# Gallery",
        "",
        f"Made by `python bench/gallery.py --preset {preset} --docs`: 24 fixed prompts and 6 fixed pictures",
        f"of our own (`scripts/make_samples.py`), seed {SEED}, nothing picked.",
        f"{valid} of {len(items)} ended in a valid, watertight GLB. What the drawn views look most like, of",
        "all that the model knows, is what its critic says, which also helped to choose them.",
        "",
        "![Gallery](images/gallery.jpg)",
        "",
        "| asked for | looks most like | triangles | watertight | charts | views agree | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for item in items:
        if item.error:
            lines.append(f"| {item.label} | | {item.error} | | | | |")
            continue
        facts = item.asset
        watertight = "yes" if facts["watertight"] else "NO"
        lines.append(
            f"| {item.label} | {item.looks_like} | {facts['triangles']:,} | {watertight} | "
            f"{facts['uv_charts']} | {item.consistency:.3f} | {item.seconds:.0f} |"
        )
    (ROOT / "docs" / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gallery")
    parser.add_argument("--only", type=int, help="the first so many prompts, without pictures")
    parser.add_argument("--docs", action="store_true", help="write docs/gallery.md and its picture")
    arguments = parser.parse_args()
    base = arguments.out / arguments.preset
    work: list[tuple[str, str, Path | None, Path]] = [
        (prompt, prompt, None, base / f"{i:02d}") for i, prompt in enumerate(PROMPTS[: arguments.only])
    ]
    if arguments.only is None:
        work += [
            (f"picture of a {name}", "", SAMPLES / f"{name}.png", base / f"picture-{name}")
            for name in PICTURES
        ]
    items = []
    for label, text, image, folder in work:
        item = make(label, text, image, folder, arguments.preset)
        items.append(item)
        state = "valid" if item.valid else f"INVALID {item.error}"
        print(f"{item.seconds:6.1f} s  agree {item.consistency:.3f}  {state:<8} {label}", flush=True)
    valid = sum(item.valid for item in items)
    print(f"{valid} of {len(items)} valid and watertight")
    if arguments.docs:
        write_docs(items, arguments.preset)
    sys.exit(valid != len(items))


if __name__ == "__main__":
    main()
