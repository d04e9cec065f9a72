"""The connection to SQLite or Postgres: transactions, the database's clock, inserts that may find a row.

SQLite runs in WAL mode with synchronous FULL (what is committed survives a power cut) and every write
transaction begins IMMEDIATE, so that it waits for another writer at its start and never in its middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Double, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from render.errors import InputError

BUSY_S = 30.0
"""How long a writer waits for another before it gives up."""


class now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, the one clock that all workers share."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgres(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


class Database:
    """One process's way to the database. Make it after a fork, not before."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite":
                if parsed.database in (None, "", ":memory:"):
                    raise InputError(
                        "MAQUETTE_DATABASE_URL: SQLite needs a file, such as sqlite:////data/m.db."
                    )
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            self.engine = _engine(url, parsed.get_backend_name())
        except (ArgumentError, NoSuchModuleError) as error:
            raise InputError(f"MAQUETTE_DATABASE_URL is no database that is known: {error}.") from None
        except ModuleNotFoundError as error:
            raise InputError(
                f"MAQUETTE_DATABASE_URL needs {error.name}: pip install 'maquette[postgres]'."
            ) from None
        self.path = (
            Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None
        )
        """The file, of SQLite."""

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write: committed at the end, rolled back by an exception."""
        with self.engine.connect().execution_options(maquette_write=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; SQLite gives it one moment's view and no lock."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def insert(connection: Connection, table: Table) -> Any:
    """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def _engine(url: str, backend: str) -> Engine:
    if backend == "postgresql":
        return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=8, pool_recycle=1800)
    if backend != "sqlite":
        raise InputError(f"MAQUETTE_DATABASE_URL: {backend} is not supported; use SQLite or PostgreSQL.")
    engine = create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, below
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("maquette_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
