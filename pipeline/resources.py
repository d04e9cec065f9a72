"""Where the files that ship with Maquette lie: presets (`configs`) and weights (`assets`).

In a checkout they are folders beside the packages; `pip install .` puts them beside the packages too,
as `maquette_configs` and `maquette_assets`, because bare names are not ours to take in site-packages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from render.errors import InputError

_ROOT = Path(__file__).resolve().parent.parent


def resource_directory(name: Literal["configs", "assets"]) -> Path:
    """The folder of shipped presets or assets."""
    in_checkout = (_ROOT / "pyproject.toml").is_file()
    directory = _ROOT / (name if in_checkout else f"maquette_{name}")
    if not directory.is_dir():
        raise InputError(f"The installation is incomplete: {directory} is missing. Install maquette again.")
    return directory


def preset_names() -> list[str]:
    """Names of the shipped presets, quickest first."""
    known = [path.stem for path in resource_directory("configs").glob("*.yaml")]
    order = {"draft": 0, "standard": 1, "high": 2}
    return sorted(known, key=lambda name: (order.get(name, len(order)), name))


def user_data_directory() -> Path:
    """Where what a user made for later runs is kept: `$XDG_DATA_HOME/maquette`, or `~/.local/share/...`."""
    import os

    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "share") / "maquette"
