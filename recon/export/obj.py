"""Wavefront OBJ with MTL (the PBR extension's `map_Pr`, `map_Pm`, `norm`) and PNG textures. Metres, +Y up."""

from __future__ import annotations

import numpy as np

from recon.asset import Asset
from recon.export import images
from recon.package import Package, package_of
from render.scene import Material, Part


def obj_files(asset: Asset | Package, stem: str) -> dict[str, bytes]:
    """File contents by name: the OBJ first, its MTL and textures beside it. The finest level only."""
    package = package_of(asset)
    parts = [part for part in package.parts if len(part.mesh.faces)]
    lines = [f"mtllib {stem}.mtl"]
    library: list[str] = []
    pictures: dict[str, bytes] = {}
    labels: dict[int, str] = {}
    first = [1, 1, 1]
    for part in parts:
        if id(part.material) not in labels:
            base = _label(package.name if len(parts) == 1 else part.material.name)
            label, number = base, 1
            while label in labels.values():
                number += 1
                label = f"{base}_{number}"
            labels[id(part.material)] = label
            prefix = stem if len(parts) == 1 else f"{stem}_{label}"
            entry, files = _material(part.material, label, prefix)
            library += entry
            pictures |= files
        lines += _object(part, _label(part.name), labels[id(part.material)], first)
    return {
        f"{stem}.obj": ("\n".join(lines) + "\n").encode(),
        f"{stem}.mtl": ("\n".join(library) + "\n").encode(),
        **pictures,
    }


def _object(part: Part, name: str, material: str, first: list[int]) -> list[str]:
    """Lines of one object; `first` are the next indices of v, vt and vn, and moves on."""
    mesh = part.mesh
    lines = [f"o {name}"]
    lines += _rows("v", mesh.vertices)
    if mesh.uvs is not None:
        lines += _rows("vt", mesh.uvs)
    if mesh.normals is not None:
        lines += _rows("vn", mesh.normals)
    lines.append(f"usemtl {material}")
    v, vt, vn = first
    textured, smooth = mesh.uvs is not None, mesh.normals is not None
    names = []
    for i in range(len(mesh.vertices)):
        name = f"{v + i}"
        if textured:
            name += f"/{vt + i}"
        if smooth:
            name += f"/{vn + i}" if textured else f"//{vn + i}"
        names.append(name)
    lines += [f"f {names[a]} {names[b]} {names[c]}" for a, b, c in mesh.faces.tolist()]
    count = len(mesh.vertices)
    first[0] += count
    first[1] += count * textured
    first[2] += count * smooth
    return lines


def _material(material: Material, label: str, prefix: str) -> tuple[list[str], dict[str, bytes]]:
    color, metallic, roughness = (f"{prefix}_{what}.png" for what in ("base_color", "metallic", "roughness"))
    lines = [f"newmtl {label}", "Kd 1 1 1", "Ks 0 0 0", "illum 1"]
    lines += [f"map_Kd {color}", f"map_Pm {metallic}", f"map_Pr {roughness}"]
    pictures = {
        color: images.png(images.to_bytes(material.base_color_srgb)),
        metallic: images.png(images.to_bytes(material.metallic)),
        roughness: images.png(images.to_bytes(material.roughness)),
    }
    extra = {
        "normal": ("norm", material.normal),
        "occlusion": ("map_Ka", material.occlusion),
        "emissive": ("map_Ke", material.emissive_srgb),
        "opacity": ("map_d", material.opacity),
    }
    for what, (key, values) in extra.items():
        if values is not None:
            lines.append(f"{key} {prefix}_{what}.png")
            pictures[f"{prefix}_{what}.png"] = images.png(images.to_bytes(values))
    return lines, pictures


def _label(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name) or "asset"


def _rows(key: str, values: np.ndarray) -> list[str]:
    form = key + " %.6g" * values.shape[1]
    return [form % tuple(row) for row in values.tolist()]
