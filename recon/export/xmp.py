"""What an asset says of its making as XMP (ISO 16684-1), for programs that read no extras of ours.

In: the provenance of a package. Out: a packet of the Khronos extension KHR_xmp_json_ld, with the words that
Dublin Core and IPTC have for it, and the receipt's values in a namespace of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXTENSION = "KHR_xmp_json_ld"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's word for media that a trained model made."""
_CONTEXT = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "maquette": "urn:maquette:receipt:",
}


def xmp_packet(name: str, provenance: Mapping[str, str | int | float]) -> dict[str, Any]:
    """JSON-LD as the extension limits it: a prefix for each namespace, no local contexts, no bare arrays."""
    packet: dict[str, Any] = {"@context": _CONTEXT, "dc:title": _text(name)}
    if provenance.get("prompt"):
        packet["dc:description"] = _text(str(provenance["prompt"]))
    if "generator" in provenance:
        packet["xmp:CreatorTool"] = str(provenance["generator"])
    if "views" not in provenance:  # of posed pictures nothing is known: they may be photographs
        packet["Iptc4xmpExt:DigitalSourceType"] = GENERATED
    return packet | {f"maquette:{key}": value for key, value in provenance.items() if key != "generator"}


def _text(value: str) -> dict[str, Any]:
    return {"@type": "rdf:Alt", "rdf:_1": {"@language": "x-default", "@value": value}}
