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
    """Send this process's spans to an OTLP/HTTP endpoint as those of `part` of Holdfast; nothing where `url` is empty.

    After the fork: spans are sent by a thread, which a fork does not take along.
    """
    global _traces  # noqa: PLW0603
    if url:
        from telemetry.otlp import Traces  # noqa: PLC0415  half a second, for those who want it

        _traces = Traces(url, part)
        atexit.register(stop)


def stop() -> None:
    """Send what is left; where the collector does not answer, for a few seconds."""
    global _traces  # noqa: PLW0603
    if (ending := _traces) is not None:
        _traces = None
        ending.stop()


def record_delivery(source: str, event_id: str, seconds: float, *, new: bool, traceparent: str = "") -> None:
    """An event was acknowledged now, so long after its head had come. `traceparent` is its sender's own, if any."""
    if _traces is not None:
        _traces.received(source, event_id, seconds, new=new, traceparent=traceparent)


def attempt(ids: Mapping[str, str | int], task: str) -> Span | NoopSpan:
    """An attempt, as long as the block lasts."""
    return NOOP_SPAN if _traces is None else _traces.attempt(ids, task)


def call(what: str, url: str) -> Span | NoopSpan:
    """A call out within an attempt, as long as the block lasts: its method or the like, and of its URL scheme and host.

    `headers` of the span are for services of our user's own: they join the trace.
    """
    return NOOP_SPAN if _traces is None else _traces.call(what, url)
