"""Tracing, if TRACES_URL is set: spans of the receiver, the workers and the outgoing calls for each event.

While it is off, OpenTelemetry is not imported and nothing is recorded. telemetry/otlp.py records the spans.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telemetry.otlp import Span, Traces

NOTHING: Mapping[str, str] = MappingProxyType({})


class NoopSpan:
    """The span while tracing is off: records nothing."""

    headers = NOTHING

    def __enter__(self) -> NoopSpan:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ended(self, outcome: str, reason: str = "") -> None:
        pass

    def answered(self, status: int) -> None:
        pass


NOOP_SPAN = NoopSpan()
_traces: Traces | None = None


def start(url: str, part: str) -> None:
    """Send the spans of this process, as service `holdfast-<part>`, to the OTLP/HTTP endpoint `url`; off if empty.

    Call it after a fork, because a thread sends the spans and threads do not survive a fork.
    """
    global _traces  # noqa: PLW0603
    if url:
        from telemetry.otlp import Traces  # noqa: PLC0415  importing it takes half a second

        _traces = Traces(url, part)
        atexit.register(stop)


def stop() -> None:
    """Send the remaining spans; if the collector does not respond, give up after a few seconds."""
    global _traces  # noqa: PLW0603
    if (traces := _traces) is not None:
        _traces = None
        traces.stop()


def record_delivery(source: str, event_id: str, seconds: float, *, new: bool, traceparent: str = "") -> None:
    """An event was acknowledged now, `seconds` after the head of its request. `traceparent`: that of the source."""
    if _traces is not None:
        _traces.received(source, event_id, seconds, new=new, traceparent=traceparent)


def attempt(ids: Mapping[str, str | int], task: str) -> Span | NoopSpan:
    """The span of an attempt, as a context manager."""
    return NOOP_SPAN if _traces is None else _traces.attempt(ids, task)


def call(name: str, url: str) -> Span | NoopSpan:
    """The span of an outgoing call, as a context manager: `name`, and the scheme and host of the URL.

    Send the span's `headers` only to services of the operator: with them a service joins the trace.
    """
    return NOOP_SPAN if _traces is None else _traces.call(name, url)
