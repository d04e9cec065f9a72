"""The database's tables at the version of this code (Alembic; the steps are in `worker/migrations/`)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from render.errors import InputError
from worker.database import Database

LOCK = 0x6D617175
"""Of Postgres: two that start at once do not migrate at once. SQLite's write lock does the same."""


def migrate(database: Database, revision: str = "head") -> None:
    """Brings the tables to a version; does nothing when they are there. `InputError` when the database cannot
    be reached, or was used by a newer version."""
    try:
        with database.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            known = {step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()}
            now_at = current(connection)
            if now_at is not None and now_at not in known:
                raise InputError(
                    f"The database is of a newer version of maquette ({now_at}). Update maquette."
                )
            command.upgrade(_config(connection), revision)
    except OperationalError as error:
        raise InputError(f"The database cannot be reached: {' '.join(str(error.orig).split())}") from None


def current(connection: Connection) -> str | None:
    """The version of the tables; None when there are none."""
    with suppress(DBAPIError):
        return MigrationContext.configure(connection).get_current_revision()
    return None


def newest() -> str | None:
    """The version of this code."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
