"""Wavefront OBJ with MTL (the PBR extension's `map_Pr`, `map_Pm`) and PNG textures. Metres, +Y up."""

from __future__ import annotations

import numpy as np

from recon.asset import Asset
from recon.export import images


def obj_files(asset: Asset, stem: str) -> dict[str, bytes]:
    """File contents by name: the OBJ first, its MTL and textures beside it."""
    mesh, material = asset.in_metres(), asset.material
    label = "".join(c if c.isalnum() or c in "-_." else "_" for c in asset.name) or "asset"
    lines = [f"mtllib {stem}.mtl", f"o {label}"]
    lines += _rows("v", mesh.vertices)
    if mesh.uvs is not None:
        lines += _rows("vt", mesh.uvs)
    if mesh.normals is not None:
        lines += _rows("vn", mesh.normals)
    lines.append(f"usemtl {label}")
    corner = {
        (True, True): "{0}/{0}/{0}",
        (True, False): "{0}/{0}",
        (False, True): "{0}//{0}",
        (False, False): "{0}",
    }
    form = corner[(mesh.uvs is not None, mesh.normals is not None)]
    names = [form.format(i + 1) for i in range(len(mesh.vertices))]
    lines += [f"f {names[a]} {names[b]} {names[c]}" for a, b, c in mesh.faces.tolist()]
    color, metallic, roughness = f"{stem}_base_color.png", f"{stem}_metallic.png", f"{stem}_roughness.png"
    library = [
        f"newmtl {label}",
        "Kd 1 1 1",
        "Ks 0 0 0",
        "illum 1",
        f"map_Kd {color}",
        f"map_Pm {metallic}",
        f"map_Pr {roughness}",
    ]
    return {
        f"{stem}.obj": ("\n".join(lines) + "\n").encode(),
        f"{stem}.mtl": ("\n".join(library) + "\n").encode(),
        color: images.png(images.to_bytes(material.base_color_srgb)),
        metallic: images.png(images.to_bytes(material.metallic)),
        roughness: images.png(images.to_bytes(material.roughness)),
    }


def _rows(key: str, values: np.ndarray) -> list[str]:
    form = key + " %.6g" * values.shape[1]
    return [form % tuple(row) for row in values.tolist()]
