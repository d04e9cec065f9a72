"""The stages of a run and the versions of their code, for whoever plans a run without running it."""

from __future__ import annotations

from typing import Literal

StageName = Literal["views", "field", "surface", "mesh", "texture", "export", "preview"]

VERSIONS: dict[StageName, int] = {
    "views": 22,
    "field": 4,
    "surface": 13,
    "mesh": 6,
    "texture": 9,
    "export": 6,
    "preview": 1,
}
"""Part of every stage's key: raise a stage's number when its code changes what it makes."""

RetextureStage = Literal["paint", "texture", "export", "preview"]

RETEXTURE_VERSIONS: dict[RetextureStage, int] = {"paint": 2, "texture": 1, "export": 2, "preview": 1}
"""Of `pipeline.retexture`."""

ReworkStage = Literal["rework", "preview"]

REWORK_VERSIONS: dict[ReworkStage, int] = {"rework": 1, "preview": 1}
"""Of `pipeline.rework`."""
