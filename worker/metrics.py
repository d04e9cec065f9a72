"""Numbers about the service for Prometheus, counted in the database so that no process's end loses them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection

from worker.database import insert
from worker.schema import tally


def count(connection: Connection, name: str, labels: Mapping[str, str], by: float = 1.0) -> None:
    """Adds to a counter, in the transaction of what is counted."""
    text = json.dumps(dict(labels), sort_keys=True, separators=(",", ":"))[:160]
    connection.execute(
        insert(connection, tally)
        .values(name=name, labels=text, value=by)
        .on_conflict_do_update(index_elements=["name", "labels"], set_={"value": tally.c.value + by})
    )
