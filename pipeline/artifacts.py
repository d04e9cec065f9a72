"""Meshes and materials as safetensors: what stages hand on through files, without loss."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from render.scene import Material, Mesh


def save_mesh(mesh: Mesh, path: Path) -> None:
    """Write the arrays that the mesh has."""
    _save(mesh, path, {})


def load_mesh(path: Path) -> Mesh:
    """Read what `save_mesh` wrote."""
    return Mesh(**_load(path)[0])


def save_material(material: Material, path: Path) -> None:
    """Write the maps that the material has, float32, its name, and how much it emits."""
    # One entry: safetensors writes several in no fixed order, and the same asset is the same bytes.
    told = {"name": material.name, "emissive_strength": material.emissive_strength}
    _save(material, path, {"material": json.dumps(told)})


def load_material(path: Path) -> Material:
    """Read what `save_material` wrote."""
    arrays, metadata = _load(path)
    told = json.loads(metadata["material"])
    return Material(**arrays, name=told["name"], emissive_strength=told["emissive_strength"])


def _save(value: Mesh | Material, path: Path, metadata: dict[str, str]) -> None:
    arrays = {
        field.name: np.ascontiguousarray(array)
        for field in fields(value)
        if isinstance(array := getattr(value, field.name), np.ndarray)
    }
    save_file(arrays, path, metadata=metadata)


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
