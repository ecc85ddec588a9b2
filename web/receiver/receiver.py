"""The steps of every webhook, whichever way its request was read: verify, record, answer."""

from __future__ import annotations

import time
from collections.abc import Mapping

from inbox.errors import StoreUnavailable
from inbox.event import Event, NewEvent
from inbox.recorder import Recorder
from inbox.store import Store
from settings import Settings
from tasks.ingest import build_delivery
from telemetry import tracing
from web.body import BUDGET_BYTES, BodyBudget
from web.errors import HttpError, error_response
from web.receiver.counters import BufferedCounters
from web.receiver.group_commit import GroupCommit
from web.receiver.signatures import BodyCheck, Request
from web.receiver.sources import Source
from web.responses import Response, json_response

PATHS = {"/stripe-webhook": "stripe", "/doc-status-webhook": "documents"}
SOURCE_PREFIX = "/hooks/"


ACCEPTED = json_response(200, b'{"success": true}', {})


class Receiver:
    """What the deliveries of a process share. Used from one event loop."""

    def __init__(self, settings: Settings, sources: Mapping[str, Source], store: Store, recorder: Recorder) -> None:
        self.limit_bytes, self.body_budget = settings.max_body_bytes, BodyBudget(BUDGET_BYTES)
        self._tolerance_seconds = settings.signature_tolerance_seconds
        self.counters = BufferedCounters(store)
        self.record = GroupCommit(recorder).record  # in one round trip with whatever else arrives now
        by_name = {f"{SOURCE_PREFIX}{name}": source for name, source in sources.items()}
        fixed = {path: sources[name] for path, name in PATHS.items() if name in sources}
        self.sources_by_path = {path.encode(): source for path, source in (by_name | fixed).items()}

    def check_head(self, source: Source, request: Request) -> BodyCheck:
        """The check of the body that `verify` needs. Raises BadSignature if no body could make this delivery valid."""
        return source.scheme(request, source.secrets, time.time(), self._tolerance_seconds)

    def verify(self, source: Source, request: Request, check: BodyCheck, raw: bytes) -> NewEvent:
        """What to record of a delivery: only its identity is read, the worker parses the rest.

        Raises HttpError (BadSignature among them) and BadPayload.
        """
        try:
            body = raw.decode()
        except UnicodeDecodeError:  # every scheme signs text
            raise HttpError("the body is not UTF-8") from None
        secret = source.secret_ids[check(body)]
        return build_delivery(source.name, source.peek(request, body), raw, secret)

    def acknowledge(self, event: Event, request: Request, seconds: float, *, new: bool) -> Response:
        """The event is on disk, `seconds` after the head of its request arrived."""
        self.counters.count_ack(seconds)
        traceparent = request.headers.get("traceparent", "")
        tracing.record_delivery(event.source, event.id, seconds, new=new, traceparent=traceparent)
        return ACCEPTED

    def reject(self, source: Source, error: Exception) -> Response:
        """Count the rejection by its reason."""
        reason = "unavailable" if isinstance(error, StoreUnavailable) else getattr(error, "reason", "")
        if reason:
            self.counters.count_rejection(source.name, reason)
        return json_response(*error_response(error))

    def count_incomplete(self, source: Source) -> None:
        """The connection was lost before the body was complete, so there is no response."""
        self.counters.count_rejection(source.name, "body")
