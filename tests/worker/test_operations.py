"""Migrations, metrics, the embedded broker, the supervisor, and the commands of operators."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import inspect

from pipeline.cli import invoke
from render.errors import InputError
from worker import bells, queue
from worker.database import Database
from worker.health import examine
from worker.identity import is_dead, worker_name
from worker.jobs import Jobs, Submission, open_jobs
from worker.metrics import exposition
from worker.migrate import current, migrate, newest
from worker.queue import Outcome
from worker.schema import metadata
from worker.settings import Settings, load_settings
from worker.supervisor import Program, Supervisor
from worker.tasks import Bell


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_migrations_make_the_tables_of_the_schema(jobs: Jobs):
    with jobs.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, metadata)
        # Neither database tells the columns of an index on an expression.
        assert [one for one in found if "ix_stage_ready" not in str(one)] == []
        assert current(connection) == newest()
        if connection.dialect.name == "sqlite":
            sql = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'ix_stage_ready'")
            assert "priority DESC" in str(sql.scalar_one())
        else:
            names = [index["name"] for index in inspect(connection).get_indexes("stage")]
            assert "ix_stage_ready" in names
    migrate(jobs.database)  # again, and nothing happens


def test_a_database_of_a_newer_version_is_refused(jobs: Jobs):
    with jobs.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InputError, match="newer version"):
        migrate(jobs.database)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://x/y", "not supported"),
        ("sqlite://", "needs a file"),
        ("nonsense", "no database that is known"),
        ("postgresql+psycopg://x@127.0.0.1:1/y", "cannot be reached"),
    ],
)
def test_databases_that_will_not_do(url: str, says: str):
    with pytest.raises(InputError, match=says):
        migrate(Database(url))


def test_settings_name_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAQUETTE_PORT", "99999999")
    with pytest.raises(InputError, match="MAQUETTE_PORT"):
        load_settings()


def test_metrics_count_what_happened(jobs: Jobs):
    submission = Submission("probe", {"queues": ["gpu"]})
    jobs.submit(submission, owner="me")
    jobs.submit(submission, owner="me")
    held = queue.claim(jobs.database, "gpu", "w", 1, 60)
    assert held is not None
    queue.commit(jobs.database, held, Outcome(), lambda sha256: True)
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposition(jobs.database).decode())
        for sample in family.samples
    }
    assert samples["maquette_jobs_total", "probe"] == 2
    assert samples["maquette_job_ends_total", "probe", "succeeded"] == 1
    assert samples["maquette_stage_ends_total", "done", "stage0"] == 1
    assert samples["maquette_stages", "gpu", "ready"] == 1
    assert samples["maquette_queue_age_seconds", "gpu"] >= 0


def test_bells_in_a_folder(settings: Settings):
    bell = Bell(settings)
    assert bell.waiting("gpu") == 0
    assert bell.ring("gpu", 3)
    assert bell.ring("cpu")
    assert (bell.waiting("gpu"), bell.waiting("cpu")) == (3, 1)
    assert bell.ring("cpu", 2 * bells.ENOUGH)  # no more than wake everybody
    assert bell.waiting("cpu") == bells.ENOUGH
    shutil.rmtree(settings.bells)
    assert bell.waiting("gpu") == 0
    assert bell.ring("gpu")
    assert bell.waiting("gpu") == 1


def test_a_broker_that_is_away_costs_a_moment(settings: Settings):
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    started = time.monotonic()
    assert not Bell(away).ring("gpu")
    assert Bell(away).waiting("gpu") is None
    assert time.monotonic() - started < 15


def test_the_name_of_a_worker_says_whether_it_is_dead():
    name = worker_name()
    assert not is_dead(name, os.getpid())
    command = "from worker.identity import worker_name; print(worker_name())"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    dead = other.stdout.strip()
    assert is_dead(dead, int(dead.split("/")[2]))
    elsewhere = "/".join(["host", "other-machine", *dead.split("/")[2:]])
    assert not is_dead(elsewhere, int(dead.split("/")[2]))
    assert not is_dead("nonsense", 1)


def test_the_supervisor_starts_again_what_ends_and_ends_all(tmp_path: Path):
    (tmp_path / "brief.py").write_text(
        "import os, sys, time, pathlib\n"
        "pathlib.Path(sys.argv[1]).open('a').write(f'{os.getpid()} ')\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    brief, lasting = tmp_path / "brief.log", tmp_path / "lasting.log"
    programs = [
        Program("brief", "brief", (str(brief), "0")),
        Program("lasting", "brief", (str(lasting), "600")),
    ]
    supervisor = Supervisor(programs, {"PYTHONPATH": str(tmp_path)}, 5)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if brief.exists() and len(brief.read_text().split()) >= 3 and lasting.exists():
            break
        time.sleep(0.05)
    supervisor.stopping.set()
    thread.join()
    assert len(brief.read_text().split()) >= 3
    (pid,) = lasting.read_text().split()
    assert not Path(f"/proc/{pid}").exists()


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """The service that the commands find."""
    monkeypatch.setenv("MAQUETTE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MAQUETTE_KINDS", '["tests.worker.probe:PROBE"]')
    monkeypatch.setenv("MAQUETTE_MIN_FREE_BYTES", "0")
    return open_jobs(load_settings())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    import worker.cli  # noqa: F401  registers the commands

    code = invoke(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_maquette_jobs(at_home: Jobs, capsys: pytest.CaptureFixture[str]):
    job_id = at_home.submit(Submission("probe", {"queues": ["gpu"]}), owner="me").job_id
    code, text = run(capsys, "jobs", "list")
    assert code == 0
    assert job_id in text
    assert "queued" in text
    assert run(capsys, "jobs", "cancel", job_id[:20]) == (0, f"{job_id}  canceled\n")
    code, text = run(capsys, "jobs", "show", job_id)
    assert "canceled" in text
    assert "stage0" in text
    assert run(capsys, "jobs", "retry", job_id) == (0, f"{job_id}  queued\n")
    code, text = run(capsys, "jobs", "retry", job_id)
    assert (code, text.count("\n")) == (2, 1)
    assert run(capsys, "jobs", "show", "nothing")[0] == 2
    assert run(capsys, "jobs", "list", "--state", "lost")[0] == 2


def test_maquette_doctor(at_home: Jobs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    code, text = run(capsys, "doctor")
    assert code == 0, text
    for what in ("weights", "device", "disk", "store", "database", "queue", "broker"):
        assert f"ok    {what}" in text
    monkeypatch.setenv("MAQUETTE_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("MAQUETTE_DATABASE_URL", "sqlite:////proc/nowhere/x.db")
    findings = {finding.what: finding.state for finding in examine(load_settings())}
    assert (findings["broker"], findings["database"]) == ("wrong", "wrong")
    assert run(capsys, "doctor", "--quiet")[0] == 1


def test_worker_and_serve_say_what_is_wrong(
    at_home: Jobs, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    code, text = run(capsys, "worker", "--queue", "tpu")
    assert (code, "--queue" in text) == (2, True)
    (tmp_path / "file").write_text("")
    code, text = run(capsys, "serve", "--data", str(tmp_path / "file" / "data"))
    assert (code, text.count("\n"), "--data" in text) == (2, 1, True)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
