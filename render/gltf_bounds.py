"""Checks of a parsed glTF file that cost no memory: it names nothing outside, and no more than there is.

For files of strangers, where they come in: a count of 2^31 or a path in a buffer's address is refused before
anything is decoded. Whoever reads the file later checks again what it reads (`render.glb`).
"""

from __future__ import annotations

from render.gltf_file import GltfFile


def check_bounds(file: GltfFile) -> None:
    """Looks at all buffers, views, accessors and images. `InputError` names the first that is wrong."""
    for index in range(len(file.items("buffers"))):
        file.buffer(index, "buffers")
    for index in range(len(file.items("bufferViews"))):
        file.view(index, "bufferViews")
    for index in range(len(file.items("images"))):
        entry = file.item("images", index, "images")
        if entry.get("bufferView") is not None:
            file.view(entry["bufferView"], f"images[{index}]")
        elif entry.get("uri") is not None:
            file.data_uri(entry["uri"], f"images[{index}]")
    for index in range(len(file.items("accessors"))):
        entry = file.item("accessors", index, "accessors")
        here = f"accessors[{index}]"
        for owner, where in ((entry, here), (file.mapping(entry, "sparse", here), f"{here}.sparse")):
            if owner:
                file.count(owner, where)
        if entry.get("bufferView") is not None:
            file.check_span(entry, here)
