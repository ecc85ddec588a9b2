"""The receiver: verify -> record -> 200."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from flask import Blueprint, Response, request

from inbox.errors import BadPayload, StoreUnavailable
from inbox.store import Store
from settings import Settings
from tasks.arrivals import arrival
from tasks.broker import BackgroundRinger
from web.body import read_body
from web.errors import Refused
from web.sources import Source

OK = b'{"success": true}'


def blueprint(settings: Settings, sources: Mapping[str, Source], store: Store) -> Blueprint:
    """The webhook addresses."""
    pages = Blueprint("receive", __name__)
    ringer = BackgroundRinger()

    def receive(name: str) -> Response:
        # 1. Who sends? An unknown source is 404.
        source = sources.get(name)
        if source is None:
            raise Refused(f"no such source; configured: {', '.join(sorted(sources)) or 'none'}", 404)
        try:
            # 2. The raw bytes, not more of them than allowed; they are what was signed.
            body = _text(read_body(request, settings.max_body_bytes))
            # 3. Whoever cannot prove it is not listened to.
            secret = source.verify(request, body, time.time(), settings.signature_tolerance_seconds)
            # 4. Only its identity; the full parse is the worker's.
            peeked = source.peek(request, body)
        except (Refused, BadPayload) as refused:
            with suppress(StoreUnavailable):  # an uncounted refusal is still a refusal
                store.count_rejected(name, refused.reason)
            raise
        # 5. One atomic script. If Redis does not answer, neither do we say 200: the sender tries again.
        bells = store.record(*arrival(name, peeked, body.encode()), secret)
        # 6. It is on disk. New or seen before, the sender may forget it.
        ringer.ring(bells or ())
        return Response(OK, mimetype="application/json")

    pages.add_url_rule("/hooks/<name>", view_func=receive, methods=["POST"])
    pages.add_url_rule("/stripe-webhook", "stripe", receive, defaults={"name": "stripe"}, methods=["POST"])
    pages.add_url_rule("/doc-status-webhook", "documents", receive, defaults={"name": "documents"}, methods=["POST"])
    return pages


def _text(raw: bytes) -> str:
    """All schemes sign text, so bytes that are none cannot have been signed."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refused("the body is not UTF-8") from None
