"""What finished assets are like, counted for the metrics by revision of the model and by preset.

Each number of a report is added to a sum and counted, so that Prometheus has averages over any time (shares,
where a number is 0 or 1) and a new revision can be compared with the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.models import revision_of
from worker.database import Database
from worker.metrics import QUALITY_COUNT, QUALITY_SUM, count

NUMBERS: dict[str, tuple[str, ...]] = {
    "views_agree": ("views", "consistency", "score"),
    "views_geometry": ("views", "consistency", "geometry"),
    "views_shape": ("views", "consistency", "shape"),
    "views_color": ("views", "consistency", "color"),
    "domain_score": ("views", "domain_score"),
    "in_domain": ("views", "in_domain"),
    "watertight": ("asset", "watertight"),
    "manifold": ("asset", "manifold"),
    "components": ("asset", "components"),
    "triangles": ("asset", "triangles"),
    "uv_coverage": ("asset", "uv_coverage"),
    "texel_density": ("asset", "texel_density_median"),
    "work_seconds": ("work_seconds",),
}
"""Where a report has them."""


def numbers_of(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a report (`pipeline.report.Report` as plain values) has; the others are left out."""
    stages = report.get("stages") or ()
    known = {**report, "work_seconds": sum(stage["seconds"] for stage in stages) if stages else None}
    consistency = dict((report.get("views") or {}).get("consistency") or {})
    parts = [consistency.get(name) for name in ("shape", "connected", "color", "framing")]
    if all(isinstance(part, int | float) for part in parts):
        # As `pipeline.consistency.Consistency.score`, which is no field of it.
        consistency["score"] = math.prod(float(part) for part in parts if part is not None)
    known["views"] = {**(report.get("views") or {}), "consistency": consistency}
    found: dict[str, float] = {}
    for name, path in NUMBERS.items():
        value: Any = known
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and math.isfinite(value):
            found[name] = float(value)
    return found


def count_asset(database: Database, report: Mapping[str, Any], weights: Mapping[str, str]) -> None:
    """Counts a finished asset's numbers. Not in the transaction of its commit, but after it: a process that
    is killed in between leaves one asset out of the averages."""
    labels = {"revision": revision_of(dict(weights)), "preset": str(report.get("preset", ""))[:40]}
    with database.write() as connection:
        for name, value in numbers_of(report).items():
            count(connection, QUALITY_SUM, {**labels, "number": name}, value)
            count(connection, QUALITY_COUNT, {**labels, "number": name})
