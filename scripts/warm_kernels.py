"""Compiles the kernels that a run needs, so that the first asset does not wait for it: `make kernels`.

A small asset is made into a folder that is thrown away. Kernels that were compiled with other sources than
today's are forgotten first (`render.kernel_cache`).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from pipeline.config import build
from pipeline.preset import Preset
from pipeline.run import generate
from render.kernel_cache import forget_stale

SMALL = {
    "name": "small",
    "views": {"size_px": 64, "num_inference_steps": 2},
    "fit": {"steps": 6, "guidance_steps": 2, "guidance_size": 64},
    "distillation": {},
    "surface": {"view_size": 96, "max_voxels": 150_000},
    "mesh": {"polycount": 800},
    "bake": {"texture_size": 512},
    "preview": {"size_px": 96, "turntable_frames": 2, "turntable_size_px": 64},
}


def main() -> None:
    began = time.perf_counter()
    forgotten = forget_stale(Path(__file__).resolve().parent.parent, ("render", "recon", "pipeline"))
    with tempfile.TemporaryDirectory() as folder:
        generate("a barrel", out=Path(folder) / "barrel", preset=build(Preset, SMALL))
    stale = f", {len(forgotten)} files of stale ones forgotten" if forgotten else ""
    print(f"Kernels are compiled: {time.perf_counter() - began:.0f} s{stale}.")


if __name__ == "__main__":
    main()
