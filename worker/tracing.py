"""OpenTelemetry traces of a request through its stages, as an option (the extra `otel`).

A request's `traceparent` (W3C Trace Context) is stored with its job whether traces are made here or not, so
that whoever makes them can go on with it. With `MAQUETTE_OTLP_ENDPOINT` set, requests and attempts at stages
are spans: those of a job have one trace, however many workers and attempts it took.

    tracing = tracing_of(settings, "worker")
    with tracing.span("stage views", parent=claim.traceparent, facts={"maquette.job": claim.job_id}) as span:
        span.fact("maquette.outcome", "done")

What is not installed or not wanted costs nothing: `Untraced` has the same methods.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Protocol

from render.errors import InputError
from worker.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

Fact = str | int | float | bool
Kind = Literal["internal", "server", "consumer"]
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

request_traceparent: ContextVar[str | None] = ContextVar("request_traceparent", default=None)
"""Of the request that is being answered: what its job is given."""


def valid_traceparent(text: str | None) -> str | None:
    """The first 55 characters of a valid header (W3C Trace Context, section 3.2); None for any other."""
    match = _TRACEPARENT.fullmatch(text.strip()) if text and len(text) <= 256 else None
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    if set(match[2]) == {"0"} or set(match[3]) == {"0"}:
        return None
    return f"00-{match[2]}-{match[3]}-{match[4]}"


def trace_id(traceparent: str | None) -> str | None:
    """The trace, for logs."""
    return None if traceparent is None else traceparent.split("-")[1]


class Span(Protocol):
    """One piece of work under way."""

    @property
    def traceparent(self) -> str | None:
        """For what follows from it."""
        ...

    def fact(self, name: str, value: Fact) -> None:
        """Something to know about it."""
        ...

    def failed(self, message: str) -> None:
        """It went wrong; the message is the one that users get."""
        ...


class Tracing(Protocol):
    """A process's way to make spans."""

    def span(
        self,
        name: str,
        *,
        parent: str | None,
        kind: Kind = "internal",
        facts: Mapping[str, Fact] | None = None,
    ) -> AbstractContextManager[Span]:
        """A span while it is entered, under a `traceparent` or, without, in a trace of its own."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


class _NoSpan:
    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def fact(self, name: str, value: Fact) -> None:
        pass

    def failed(self, message: str) -> None:
        pass


class Untraced:
    """Makes no spans; a parent is handed on."""

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None,
        kind: Kind = "internal",
        facts: Mapping[str, Fact] | None = None,
    ) -> Iterator[Span]:
        yield _NoSpan(parent)

    def close(self) -> None:
        pass


class _OtelSpan:
    def __init__(self, span: object) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        context = self._span.get_span_context()  # type: ignore[attr-defined]
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def fact(self, name: str, value: Fact) -> None:
        self._span.set_attribute(name, value)  # type: ignore[attr-defined]

    def failed(self, message: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, message))  # type: ignore[attr-defined]


class OtelTracing:
    """Spans by OpenTelemetry's SDK. Nothing global is set: other tracing in the process is left alone."""

    def __init__(
        self, process: str, exporter: SpanExporter, *, share: float = 1.0, at_once: bool = False
    ) -> None:
        """`share` of the traces that begin here are kept; those that came with a parent do as it says.
        `at_once` exports each span as it ends, and else a thread does every second."""
        from importlib.metadata import version

        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

        resource = Resource.create(
            {"service.name": f"maquette-{process}", "service.version": version("maquette")}
        )
        self._provider = TracerProvider(resource=resource, sampler=ParentBasedTraceIdRatio(share))
        batches = (
            SimpleSpanProcessor(exporter)
            if at_once
            else BatchSpanProcessor(exporter, schedule_delay_millis=1000)
        )
        self._provider.add_span_processor(batches)
        self._tracer = self._provider.get_tracer("maquette")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None,
        kind: Kind = "internal",
        facts: Mapping[str, Fact] | None = None,
    ) -> Iterator[Span]:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        given = {} if parent is None else {"traceparent": parent}
        under = TraceContextTextMapPropagator().extract(given, Context())
        spans = self._tracer.start_as_current_span(
            name, context=under, kind=SpanKind[kind.upper()], attributes=facts, record_exception=False
        )
        with spans as made:
            yield _OtelSpan(made)

    def close(self) -> None:
        self._provider.shutdown()


def tracing_of(settings: Settings, process: str) -> Tracing:
    """What the settings ask for. A thread sends the spans: in a process that forks, call it after that."""
    if not settings.otlp_endpoint:
        return Untraced()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise InputError(
            "MAQUETTE_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'maquette[otel]'."
        ) from None
    url = settings.otlp_endpoint.rstrip("/")
    if not re.match(r"https?://[^/]", url):
        raise InputError(
            f"MAQUETTE_OTLP_ENDPOINT must be like http://collector:4318, not {settings.otlp_endpoint[:60]!r}."
        )
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=5)
    return OtelTracing(process, exporter, share=settings.trace_share)
