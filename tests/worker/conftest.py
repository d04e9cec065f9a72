"""Databases of the service's tests: SQLite always, Postgres where it is asked for (marker `postgres`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.servers import Postgres, disk_of
from tests.worker.stack import QUICK, Stack, stack_at
from worker.database import Database
from worker.jobs import Jobs
from worker.migrate import migrate
from worker.settings import Settings, load_settings
from worker.store import store_at


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of this session's own."""
    with Postgres.started() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """Of an empty database: SQLite in the data folder, or Postgres."""
    return request.getfixturevalue("postgres").new_database() if request.param == "postgres" else ""


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Of an empty service."""
    given = {**QUICK, "data": tmp_path / "data", "kinds": ("tests.worker.probe:PROBE",), "device": "cpu"}
    return load_settings(**given, database_url=database_url)


@pytest.fixture
def jobs(settings: Settings) -> Iterator[Jobs]:
    """Its jobs; no worker runs."""
    database = Database(settings.database)
    migrate(database)
    yield Jobs(database, store_at(settings), settings)
    database.close()


@pytest.fixture
def stack(database_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A service with the embedded broker; start what you need."""
    with stack_at(tmp_path / "data", database_url=database_url) as made:
        yield made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    with disk_of(4, tmp_path / "disk") as folder:
        yield folder
