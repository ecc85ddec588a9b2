"""The receiver: verify -> record -> 200, as a Flask view.

`python -m web` takes the same steps in its event loop (delivery.py), where many events share one round trip and one
fsync; under any other WSGI server this view does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from flask import Blueprint, Response, request

from inbox.errors import BadPayload, StoreUnavailable
from inbox.event import NewEvent
from inbox.store import Store
from settings import Settings
from tasks.broker import BackgroundRinger
from tasks.ingest import build_delivery
from telemetry import tracing
from web.body import read_body
from web.errors import HttpError
from web.receiver.counters import rejection_counts
from web.receiver.rejection_log import RejectionLog
from web.receiver.signatures import Delivery
from web.receiver.sources import Source

OK = b'{"success": true}'
PATHS = {"/stripe-webhook": "stripe", "/doc-status-webhook": "documents"}
ANY_SOURCE = "/hooks/"


def blueprint(settings: Settings, sources: Mapping[str, Source], store: Store) -> Blueprint:
    """The webhook addresses."""
    pages = Blueprint("receive", __name__)
    ringer, refusals = BackgroundRinger(), RejectionLog()

    def receive(name: str) -> Response:
        began = time.monotonic()
        try:
            # 1. Who sends? An unknown source is 404.
            source = sender(sources, name)
            # 2. The raw bytes, not more of them than allowed; they are what was signed.
            raw = read_body(request, settings.max_body_bytes)
            # 3. Whoever cannot prove it is not listened to; of the others only the identity is read.
            arrived = take(source, request, raw, time.time(), settings.signature_tolerance_seconds)
        except (HttpError, BadPayload) as refused:
            if name in sources:
                refusals.log(name, refused.reason, began)
                with suppress(StoreUnavailable):  # an uncounted refusal is still a refusal
                    store.count(rejection_counts(name, refused.reason))
            raise
        # 4. One atomic script. If Redis does not answer, neither do we say 200: the sender tries again.
        try:
            bells = store.record(*arrived)
        except StoreUnavailable:
            refusals.log(name, "unavailable", began)
            raise
        # 5. It is on disk. New or seen before, the sender may forget it.
        ringer.ring(bells or ())
        seconds, theirs = time.monotonic() - began, request.headers.get("traceparent", "")
        tracing.record_delivery(name, arrived.event.id, seconds, new=bells is not None, traceparent=theirs)
        return Response(OK, mimetype="application/json")

    pages.add_url_rule(f"{ANY_SOURCE}<name>", view_func=receive, methods=["POST"])
    for path, name in PATHS.items():
        pages.add_url_rule(path, name, receive, defaults={"name": name}, methods=["POST"])
    return pages


def sender(sources: Mapping[str, Source], name: str) -> Source:
    """The source of that name. Raises Refused, 404."""
    source = sources.get(name)
    if source is None:
        raise HttpError(f"no such source; configured: {', '.join(sorted(sources)) or 'none'}", 404)
    return source


def take(source: Source, delivery: Delivery, raw: bytes, now: float, tolerance_seconds: int) -> NewEvent:
    """What to record of a delivery; the full parse is the worker's. Raises Refused, BadPayload."""
    body = _text(raw)
    secret = source.verify(delivery, body, now, tolerance_seconds)
    return build_delivery(source.name, source.peek(delivery, body), raw, secret)


def _text(raw: bytes) -> str:
    """All schemes sign text, so bytes that are none cannot have been signed."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise HttpError("the body is not UTF-8") from None
