"""Provenance as XMP: in every GLB that has a provenance, within the limits of KHR_xmp_json_ld."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import trimesh

from recon.export.glb import glb_bytes
from recon.export.xmp import EXTENSION, GENERATED, xmp_packet
from tests.recon.export.test_export import barrel, document


def test_a_file_says_how_it_was_made():
    asset = barrel()
    data = glb_bytes(asset)
    root = document(data)
    assert root["asset"]["extensions"] == {EXTENSION: {"packet": 0}}
    assert EXTENSION in root["extensionsUsed"]
    assert EXTENSION not in root.get("extensionsRequired", [])
    (packet,) = root["extensions"][EXTENSION]["packets"]
    assert packet["dc:title"]["rdf:_1"]["@value"] == asset.name
    assert packet["dc:description"]["rdf:_1"]["@value"] == "ein Faß"
    assert (packet["maquette:seed"], packet["maquette:scale"]) == (7, 1.5)
    assert root["asset"]["extras"] == asset.provenance  # as before
    _check(packet)
    assert len(trimesh.load(io.BytesIO(data), file_type="glb").geometry) == 1


def test_who_made_it_is_said_of_what_a_model_made_alone():
    drawn = xmp_packet("barrel", {"generator": "maquette 1", "prompt": "a barrel", "seed": 1})
    assert drawn["xmp:CreatorTool"] == "maquette 1"
    assert drawn["Iptc4xmpExt:DigitalSourceType"] == GENERATED
    photographed = xmp_packet("barrel", {"generator": "maquette 1", "prompt": "", "views": "0f"})
    assert "Iptc4xmpExt:DigitalSourceType" not in photographed
    assert "dc:description" not in photographed
    for packet in (drawn, photographed):
        _check(packet)


def test_a_file_without_provenance_has_none():
    root = document(glb_bytes(replace(barrel(), provenance={})))
    assert "extensions" not in root
    assert "extensionsUsed" not in root


def _check(packet: dict[str, Any]) -> None:
    """Every name has a prefix that the context knows; no array is bare, no object but texts in languages."""
    known = packet["@context"]
    assert len(set(known.values())) == len(known)
    for name, value in packet.items():
        if name == "@context":
            continue
        assert name.partition(":")[0] in known, name
        if isinstance(value, dict):
            assert value["@type"] == "rdf:Alt"
            assert set(value["rdf:_1"]) == {"@language", "@value"}
        else:
            assert isinstance(value, str | int | float)
