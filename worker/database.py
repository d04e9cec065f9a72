"""The connection to SQLite or Postgres: transactions, the database's clock, inserts that may find a row.

A transaction may leave rows for its end (`at_the_end`): they are written together just before it is
committed, so that several are one round trip, and the rows that all transactions share (counters) are
locked last and for the shortest time.

SQLite runs in WAL mode with synchronous FULL (what is committed survives a power cut) and every write
transaction begins IMMEDIATE, so that it waits for another writer at its start and never in its middle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import JSON, Connection, Double, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from render.errors import InputError

BUSY_S = 30.0
"""How long a writer waits for another before it gives up."""
TRUSTED_S = 5.0
"""A connection to a server that was used so lately is taken for alive; another is asked first."""


class now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, the one clock that all workers share."""

    type = Double()
    inherit_cache = True


class json_object_of(FunctionElement[dict[str, Any]]):
    """A JSON object of all rows: names, values."""

    type = JSON()
    inherit_cache = True


@compiles(json_object_of, "sqlite")
def _json_object_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_group_object({compiler.process(element.clauses, **options)})"


@compiles(json_object_of, "postgresql")
def _json_object_postgres(element: Any, compiler: Any, **options: Any) -> str:
    return f"coalesce(json_object_agg({compiler.process(element.clauses, **options)}), '{{}}'::json)"


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgres(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


ENDINGS = "maquette_endings"


class Ending(Protocol):
    """What a transaction writes at its end."""

    place: int
    """Lower ones are written first."""

    def write(self, connection: Connection) -> None: ...


E = TypeVar("E", bound=Ending)


def at_the_end(connection: Connection, kind: type[E]) -> E:
    """The one `kind` of the transaction under way (`Database.write`), to be filled."""
    found: E = connection.info[ENDINGS].setdefault(kind, kind())
    return found


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
        self._reading = self.engine
        if self.engine.dialect.name == "postgresql":
            self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.path = (
            Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None
        )
        """The file, of SQLite."""

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write: committed at the end, rolled back by an exception."""
        with self.engine.connect().execution_options(maquette_write=True) as connection, connection.begin():
            endings: dict[type[Ending], Ending] = {}
            connection.info[ENDINGS] = endings
            yield connection
            for ending in sorted(endings.values(), key=lambda one: one.place):
                ending.write(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """What only reads; SQLite gives it one moment's view and no lock, Postgres each statement its own, as
        in a transaction, but without the round trips for its begin and end."""
        with self._reading.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def insert(connection: Connection, table: Table) -> Any:
    """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return insert_of(connection.dialect.name, table)


def insert_of(dialect: str, table: Table) -> Any:
    """The same by the name of the database's dialect."""
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


def _ask_idle_connections(engine: Engine) -> None:
    """Connections that lay idle are tried before they are used: their server may have been started anew. One
    round trip is saved for those in use (what SQLAlchemy's `pool_pre_ping` would cost)."""

    @event.listens_for(engine, "checkin")
    def left(connection: Any, record: Any) -> None:
        record.info["left"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def taken(connection: Any, record: Any, proxy: Any) -> None:
        left = record.info.get("left")
        if left is None or time.monotonic() - left < TRUSTED_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error  # the pool takes another


def _engine(url: str, backend: str) -> Engine:
    if backend == "postgresql":
        engine = create_engine(url, pool_size=8, max_overflow=8, pool_recycle=1800)
        _ask_idle_connections(engine)
        return engine
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
