"""3MF for 3D printing (the 3MF core specification 1.3): a zip of XML, millimetres, +Z up.

Every part is an object of welded triangles with the mean colour of its base colour map. The zip's
times are fixed, so equal packages give equal bytes.
"""

from __future__ import annotations

import io
import zipfile
from xml.sax.saxutils import quoteattr

import numpy as np

from recon.asset import Asset
from recon.export.stl import printed
from recon.package import Package, package_of
from recon.topology import weld
from render.conventions import linear_to_srgb_np, srgb_to_linear_np

_TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>'
    "</Types>\n"
)
_RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>'
    "</Relationships>\n"
)


def threemf_bytes(asset: Asset | Package) -> bytes:
    """The finest level as a 3MF file."""
    package = package_of(asset)
    objects, items, bases = [], [], []
    for number, part in enumerate(part for part in package.parts if len(part.mesh.faces)):
        vertices, faces = weld(part.mesh.vertices, part.mesh.faces)
        proper = (faces != np.roll(faces, 1, axis=1)).all(1)
        color = srgb_to_linear_np(part.material.base_color_srgb.reshape(-1, 3)).mean(0)
        red, green, blue = (linear_to_srgb_np(color.astype(np.float32)) * 255 + 0.5).astype(int).tolist()
        bases.append(
            f'<base name={quoteattr(part.material.name)} displaycolor="#{red:02X}{green:02X}{blue:02X}"/>'
        )
        points = "".join(
            f'<vertex x="{x:.6g}" y="{y:.6g}" z="{z:.6g}"/>' for x, y, z in printed(vertices).tolist()
        )
        triangles = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in faces[proper].tolist())
        objects.append(
            f'<object id="{number + 2}" type="model" name={quoteattr(part.name)} pid="1" pindex="{number}">'
            f"<mesh><vertices>{points}</vertices><triangles>{triangles}</triangles></mesh></object>"
        )
        items.append(f'<item objectid="{number + 2}"/>')
    model = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<model unit="millimeter" xml:lang="en-US" '
        'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">'
        '<metadata name="Application">Maquette</metadata>'
        f'<resources><basematerials id="1">{"".join(bases)}</basematerials>{"".join(objects)}</resources>'
        f"<build>{''.join(items)}</build></model>\n"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (
            ("[Content_Types].xml", _TYPES),
            ("_rels/.rels", _RELATIONS),
            ("3D/3dmodel.model", model),
        ):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
