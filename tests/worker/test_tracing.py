"""Traces: a client's header, what is stored with the job, and the spans of a request and of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import select
from starlette.testclient import TestClient

from tests.worker.probe import PROBE
from worker.api.app import create_app
from worker.api.config import load_config
from worker.database import Database
from worker.jobs import Jobs, Submission
from worker.migrate import migrate
from worker.overdue import ready_delayed
from worker.runner import Runner
from worker.schema import job
from worker.settings import Settings, load_settings
from worker.store import store_at
from worker.tracing import OtelTracing, Untraced, tracing_of, valid_traceparent

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load_settings(
        data=tmp_path, kinds=("tests.worker.probe:PROBE",), device="cpu", min_free_bytes=0, retry_s=0.0
    )
    migrate(Database(made.database))
    return made


def traced() -> tuple[OtelTracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return OtelTracing("test", exporter, at_once=True), exporter


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (HEADER, HEADER),
        (f" {HEADER} ", HEADER),
        (f"01-{TRACE}-{PARENT}-01-later", HEADER),
        (f"00-{TRACE}-{PARENT}-01-later", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (HEADER.upper(), None),
        ("", None),
        (None, None),
        ("00" * 400, None),
    ],
)
def test_headers_are_checked(text: str | None, valid: str | None):
    assert valid_traceparent(text) == valid


def test_a_request_and_its_stages_are_one_trace(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    # The API plans generations; here they are probes, which a worker without a model can run.
    monkeypatch.setattr("worker.admission.kind_named", lambda *asked: _ProbeOfGenerate())
    monkeypatch.setattr("worker.runner.kind_named", lambda *asked: PROBE)
    tracing, exporter = traced()
    app = create_app(settings, load_config(), ring=lambda queue: None, tracing=tracing)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        answer = client.post("/v1/jobs", json={"prompt": "a crate"}, headers={"traceparent": HEADER})
        assert answer.status_code == 202
        client.get("/healthz")
        runner = Runner(settings, tracing=tracing)
        for name in ("gpu", "cpu", "cpu"):
            assert runner.run_next(name)[0] is not None
        request, *stages = exporter.get_finished_spans()
        runner.database.close()
    assert request.context is not None
    assert request.parent is not None
    assert (request.name, f"{request.context.trace_id:032x}") == ("POST", TRACE)
    assert f"{request.parent.span_id:016x}" == PARENT
    assert facts(request)["http.response.status_code"] == 202
    assert facts(request)["http.route"] == "/v1/jobs"
    assert [span.name for span in stages] == ["stage stage0", "stage stage1", "stage stage2"]
    for epoch, span in enumerate(stages):
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (
            request.context.trace_id,
            request.context.span_id,
        )
        assert facts(span)["maquette.job"] == answer.json()["id"]
        assert (facts(span)["maquette.outcome"], facts(span)["maquette.attempt"]) == ("done", 1)
        assert facts(span)["maquette.queue"] == ("gpu" if epoch == 0 else "cpu")


class _ProbeOfGenerate:
    """A probe's plan, whatever was asked for."""

    name = "generate"

    def plan(self, params: Any, inputs: Any, device: str) -> Any:
        return PROBE.plan({}, {}, device)


def test_every_attempt_is_a_span_and_says_how_it_ended(settings: Settings):
    jobs = Jobs(Database(settings.database), store_at(settings), settings)
    params = {"queues": ["cpu"], "fault": "bug", "fault_attempts": 1}
    jobs.submit(Submission("probe", params, traceparent=HEADER), owner="me")
    tracing, exporter = traced()
    runner = Runner(settings, tracing=tracing)
    assert runner.run_next("cpu")[0] is not None
    while runner.run_next("cpu")[0] is None:
        ready_delayed(jobs.database)
    failed, done = exporter.get_finished_spans()
    for database in (jobs.database, runner.database):
        database.close()
    assert [facts(span)["maquette.outcome"] for span in (failed, done)] == ["bug", "done"]
    assert [facts(span)["maquette.attempt"] for span in (failed, done)] == [1, 2]
    assert [span.status.is_ok for span in (failed, done)] == [False, True]
    # The users' message and no more: a stack holds paths and values.
    assert failed.status.description == "An internal error (ValueError)."
    assert failed.events == ()


def test_the_header_is_kept_for_others_when_nothing_is_traced_here(settings: Settings):
    app = create_app(settings, load_config(), ring=lambda queue: None)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        for header in (HEADER, "nonsense"):
            client.post("/v1/jobs", json={"prompt": header[:9]}, headers={"traceparent": header})
        with app.state.service.jobs.database.read() as connection:
            kept = connection.execute(select(job.c.traceparent).order_by(job.c.created)).scalars().all()
    assert kept == [HEADER, None]


def test_spans_are_only_made_where_they_are_asked_for():
    assert isinstance(tracing_of(load_settings(), "api"), Untraced)
    with Untraced().span("x", parent=HEADER) as span:
        assert span.traceparent == HEADER
    made = tracing_of(load_settings(otlp_endpoint="http://127.0.0.1:9", trace_share=0.0), "api")
    # Nobody listens there: nothing is kept of a trace of its own, so nothing is sent and nothing waited for.
    with made.span("x", parent=None) as span:
        assert span.traceparent is not None
        assert int(span.traceparent[-2:], 16) & 1 == 0
    made.close()
