"""Preset files: YAML with a base, as plain values. What they mean is in `pipeline.preset`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import read_yaml
from pipeline.resources import preset_names, resource_directory
from render.errors import InputError


def preset_values(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a shipped preset by its name, or of a YAML file, with those of its bases; unchecked.

    `InputError` when there is none of that name. `seen`: the presets that led here.
    """
    if name in seen:
        raise InputError(f"Presets name each other as base: {' -> '.join((*seen, name))}.")
    if name in preset_names():
        path = resource_directory("configs") / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        raise InputError(
            f"Unknown preset {name!r}. Known: {', '.join(preset_names())}, or a path to a .yaml file."
        )
    data = read_yaml(path)
    base = data.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise InputError(f"{path}: base must be the name of a preset.")
    data.setdefault("name", path.stem)
    return _merged(preset_values(base, (*seen, name)), data) if base is not None else data


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merged(out[key], value) if both else value
    return out
