"""OpenTelemetry spans, sent over OTLP/HTTP. They contain ids, hosts and states: no payload, no path, no query.

A job may be retried days later by another worker, so no message can carry the trace context. Instead, the ids of the
trace and of its root span are derived from the event, so that every process can compute them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextvars import ContextVar
from urllib.parse import urlsplit

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation import get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SEND_SECONDS = 2.0  # for one batch; a process that stops may have three to send
BATCH = 2048
W3C = TraceContextTextMapPropagator()  # https://www.w3.org/TR/trace-context/

_root: ContextVar[SpanContext | None] = ContextVar("root", default=None)


class Span:
    """A span that is the current one within its block and ends with it."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = context.attach(set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Only the type of an error is recorded, because its message may contain anything."""
        if kind is not None:
            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(Status(StatusCode.ERROR))
        context.detach(self._token)
        self._span.end()

    def ended(self, outcome: str, reason: str = "") -> None:
        self._span.set_attribute("outcome", outcome)
        if reason:
            self._span.set_attribute("reason", reason)

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= 400:
            self._span.set_status(Status(StatusCode.ERROR))

    @property
    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        W3C.inject(carrier, set_span_in_context(self._span))
        return carrier


class Traces:
    """The spans of one process. A thread sends them, so an unavailable collector costs spans and nothing else."""

    def __init__(self, url: str, part: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": f"holdfast-{part}"}),
            id_generator=_Ids(),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(url, timeout=SEND_SECONDS)
        processor = BatchSpanProcessor(exporter, max_queue_size=2 * BATCH, max_export_batch_size=BATCH)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("holdfast")

    def stop(self) -> None:
        self._provider.shutdown()

    def received(self, source: str, event_id: str, seconds: float, *, new: bool, traceparent: str) -> None:
        """The span of a new event is the root of its trace; that of a duplicate is a child of the root."""
        now, root = time.time_ns(), _root_of(source, event_id)
        remote = get_current_span(W3C.extract({"traceparent": traceparent})).get_span_context()
        token = _root.set(root if new else None)
        span = self._tracer.start_span(
            "receive",
            context.Context() if new else _child_of(root),
            SpanKind.SERVER,
            {"source": source, "event_id": event_id, "outcome": "recorded" if new else "duplicate"},
            [Link(remote)] if remote.is_valid else None,
            now - int(seconds * 1e9),
        )
        _root.reset(token)
        span.end(now)

    def attempt(self, ids: Mapping[str, str | int], task: str) -> Span:
        root = _root_of(str(ids["source"]), str(ids["event_id"]))
        attributes = {**ids, "task": task}
        return Span(self._tracer.start_span(f"attempt {task}", _child_of(root), SpanKind.CONSUMER, attributes))

    def call(self, name: str, url: str) -> Span:
        """Not recorded outside an attempt, as in a health check: it belongs to no trace."""
        if not get_current_span().get_span_context().is_valid:
            return Span(NonRecordingSpan(SpanContext(0, 0, is_remote=False)))
        parts = urlsplit(url)
        address = {"url.scheme": parts.scheme, "server.address": parts.hostname, "server.port": parts.port}
        known = {key: value for key, value in address.items() if value}
        return Span(self._tracer.start_span(name, None, SpanKind.CLIENT, known))


class _Ids(RandomIdGenerator):
    """Random ids, except for a root span."""

    def generate_trace_id(self) -> int:
        root = _root.get()
        return root.trace_id if root else super().generate_trace_id()

    def generate_span_id(self) -> int:
        root = _root.get()
        return root.span_id if root else super().generate_span_id()


def _root_of(source: str, event_id: str) -> SpanContext:
    digest = hashlib.sha256(f"{source}:{event_id}".encode()).digest()
    trace, span = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _child_of(root: SpanContext) -> context.Context:
    return set_span_in_context(NonRecordingSpan(root), context.Context())
