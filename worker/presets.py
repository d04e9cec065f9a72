"""The shipped presets, read once in a process: none changes in one, and reading costs ten milliseconds."""

from __future__ import annotations

from functools import cache

from pipeline.preset import Preset, load_preset


@cache
def shipped_preset(name: str) -> Preset:
    """A preset by its name. `InputError` when there is none."""
    return load_preset(name)
