"""USDZ (the specification of Pixar and Apple): one USD layer and its textures in an uncompressed zip.

Materials are UsdPreviewSurface, as Apple's Quick Look, Blender, Omniverse and Unity read it; metres,
+Y up. The extra `usd` installs usd-core. The zip is written here, 64-byte aligned with fixed times, so
that equal packages give equal bytes.
"""

from __future__ import annotations

import re
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from recon.asset import Asset
from recon.export import images
from recon.needs import require
from recon.package import Package, bounds_of, package_of
from render.conventions import srgb_to_linear_np
from render.scene import Part

_ALIGNMENT = 64
_DATE = (1980 - 1980) << 9 | 1 << 5 | 1


def usdz_bytes(asset: Asset | Package) -> bytes:
    """The finest level as a USDZ archive. `InputError` when usd-core is not installed."""
    package = package_of(asset)
    pictures: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="maquette-usd-") as folder:
        layer = Path(folder) / "asset.usdc"
        _write_layer(package, layer, pictures)
        files = {"asset.usdc": layer.read_bytes(), **pictures}
    return _archive(files)


def _write_layer(package: Package, path: Path, pictures: dict[str, bytes]) -> None:
    require("usdz")
    from pxr import Gf, Kind, Sdf, Usd, UsdGeom, UsdShade, Vt

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    names: set[str] = set()
    top = UsdGeom.Xform.Define(stage, f"/{_identifier(package.name, names)}")
    stage.SetDefaultPrim(top.GetPrim())
    Usd.ModelAPI(top).SetKind(Kind.Tokens.component)
    root = top.GetPath()
    materials: dict[int, Any] = {}
    inner: set[str] = {"Materials"}
    stage.DefinePrim(root.AppendChild("Materials"), "Scope")
    for part in package.parts:
        if not len(part.mesh.faces):
            continue
        shape = UsdGeom.Mesh.Define(stage, root.AppendChild(_identifier(part.name, inner)))
        mesh = part.mesh
        shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(mesh.vertices, np.float32)))
        shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.reshape(-1).astype(np.int32)))
        shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
        shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        low, high = bounds_of([part])
        shape.CreateExtentAttr([Gf.Vec3f(*low.tolist()), Gf.Vec3f(*high.tolist())])
        if mesh.normals is not None:
            shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(mesh.normals, np.float32)))
            shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        if mesh.uvs is not None:
            primvar = UsdGeom.PrimvarsAPI(shape).CreatePrimvar(
                "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
            )
            primvar.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(mesh.uvs, np.float32)))
        if part.material.opacity is not None:
            shape.CreateDoubleSidedAttr(True)
        key = id(part.material)
        if key not in materials:
            where = root.AppendChild("Materials").AppendChild(_identifier(part.material.name, inner))
            materials[key] = _material(stage, where, part, pictures, f"m{len(materials)}")
        UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(materials[key])
    stage.GetRootLayer().Save()


def _material(stage: Any, path: Any, part: Part, pictures: dict[str, bytes], prefix: str) -> Any:
    from pxr import Gf, Sdf, UsdShade

    material, textured = part.material, part.mesh.uvs is not None
    out = UsdShade.Material.Define(stage, path)
    shader = UsdShade.Shader.Define(stage, path.AppendChild("Surface"))
    shader.CreateIdAttr("UsdPreviewSurface")
    out.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    reader: Any = None
    if textured:
        reader = UsdShade.Shader.Define(stage, path.AppendChild("Reader"))
        reader.CreateIdAttr("UsdPrimvarReader_float2")
        reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
        reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)

    def sample(what: str, pixels: np.ndarray, *, srgb: bool = False, normal: bool = False) -> Any:
        name = f"textures/{prefix}_{what}.png"
        pictures[name] = images.png(pixels)
        node = UsdShade.Shader.Define(stage, path.AppendChild(what))
        node.CreateIdAttr("UsdUVTexture")
        node.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(Sdf.AssetPath(name))
        node.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB" if srgb else "raw")
        for axis in ("wrapS", "wrapT"):
            node.CreateInput(axis, Sdf.ValueTypeNames.Token).Set("repeat")
        if normal:
            node.CreateInput("scale", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(2, 2, 2, 1))
            node.CreateInput("bias", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(-1, -1, -1, 0))
        node.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
        for channel in ("r", "g", "b", "a"):
            node.CreateOutput(channel, Sdf.ValueTypeNames.Float)
        node.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
        return node.ConnectableAPI()

    color = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
    if textured and (_varies(material.base_color_srgb) or material.opacity is not None):
        picture = sample("base_color", images.base_color(material), srgb=True)
        color.ConnectToSource(picture, "rgb")
        if material.opacity is not None:
            shader.CreateInput("opacity", Sdf.ValueTypeNames.Float).ConnectToSource(picture, "a")
            shader.CreateInput("opacityThreshold", Sdf.ValueTypeNames.Float).Set(0.5)
    else:
        color.Set(Gf.Vec3f(*_mean_linear(material.base_color_srgb)))
    rough = shader.CreateInput("roughness", Sdf.ValueTypeNames.Float)
    metal = shader.CreateInput("metallic", Sdf.ValueTypeNames.Float)
    hidden = material.occlusion is not None and _varies(material.occlusion)
    if textured and (_varies(material.metallic) or _varies(material.roughness) or hidden):
        packed = sample("orm", images.metallic_roughness(material))
        rough.ConnectToSource(packed, "g")
        metal.ConnectToSource(packed, "b")
        if hidden:
            shader.CreateInput("occlusion", Sdf.ValueTypeNames.Float).ConnectToSource(packed, "r")
    else:
        rough.Set(float(material.roughness.mean()))
        metal.Set(float(material.metallic.mean()))
    if textured and material.normal is not None and _varies(material.normal):
        bent = sample("normal", images.to_bytes(material.normal), normal=True)
        shader.CreateInput("normal", Sdf.ValueTypeNames.Normal3f).ConnectToSource(bent, "rgb")
    if material.emissive_srgb is not None and material.emissive_srgb.any():
        glow = shader.CreateInput("emissiveColor", Sdf.ValueTypeNames.Color3f)
        if textured and _varies(material.emissive_srgb):
            picture = sample("emissive", images.to_bytes(material.emissive_srgb), srgb=True)
            glow.ConnectToSource(picture, "rgb")
            if material.emissive_strength != 1:
                scale = picture.CreateInput("scale", Sdf.ValueTypeNames.Float4)
                scale.Set(Gf.Vec4f(*[float(material.emissive_strength)] * 3, 1.0))
        else:
            mean = _mean_linear(material.emissive_srgb)
            glow.Set(Gf.Vec3f(*(float(material.emissive_strength) * c for c in mean)))
    return out


def _mean_linear(color_srgb: np.ndarray) -> list[float]:
    mean = srgb_to_linear_np(np.asarray(color_srgb.reshape(-1, 3), np.float32)).mean(0)
    return [float(c) for c in mean]


def _varies(values: np.ndarray) -> bool:
    return values.shape[:2] != (1, 1)


def _identifier(name: str, taken: set[str]) -> str:
    """A USD identifier that is not taken yet."""
    base = re.sub(r"[^A-Za-z0-9_]", "_", name) or "asset"
    if base[0].isdigit():
        base = f"_{base}"
    found, number = base, 1
    while found in taken:
        number += 1
        found = f"{base}_{number}"
    taken.add(found)
    return found


def _archive(files: dict[str, bytes]) -> bytes:
    """A zip without compression whose files begin at multiples of 64 bytes, as USDZ asks."""
    out, directory = bytearray(), bytearray()
    for name, data in files.items():
        title, checksum = name.encode(), zlib.crc32(data)
        start = len(out)
        # An extra field of at least four bytes (its own head) fills up to the alignment.
        padding = -(start + 30 + len(title) + 4) % _ALIGNMENT
        extra = struct.pack("<HH", 0x1986, padding) + b"\0" * padding
        out += struct.pack("<I", 0x04034B50) + _head(checksum, len(data), len(title), len(extra))
        out += title + extra + data
        directory += struct.pack("<IH", 0x02014B50, 20) + _head(checksum, len(data), len(title), 0)
        directory += struct.pack("<HHHII", 0, 0, 0, 0, start) + title
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(files), len(files), len(directory), len(out), 0)
    return bytes(out + directory + end)


def _head(checksum: int, size: int, title: int, extra: int) -> bytes:
    """The fields that a file's own header and the directory share; time 0 on 1 January 1980."""
    return struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, _DATE, checksum, size, size, title, extra)
