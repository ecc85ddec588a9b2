"""Signed Stripe events as complete HTTP requests of one length. Every event is new."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from cli import stripe_events

SECRET = "whsec_of_the_benchmark"
BYTES = 3700  # of a body, as of a typical invoice event
PLACEHOLDER = b"@" * 20  # replaced by the event's number
NUMBERS = itertools.count(1)  # unique across rounds, so that no event is sent twice


def template() -> bytes:
    """An invoice.payment_failed of BYTES bytes with PLACEHOLDER in each id, so that no two events share a customer."""
    now, number = int(time.time()), PLACEHOLDER.decode()
    invoice = stripe_events.failed_invoice(0, "ada@example.com", 1, now, stripe_events.NEW_VERSION)
    invoice |= {"id": f"in_{number}", "customer": f"cus_{number}", "description": ""}
    padding = "x" * (BYTES - len(_body(invoice, now)))
    return _body(invoice | {"description": padding}, now)


def _body(invoice: dict[str, object], now: int) -> bytes:
    body = stripe_events.event(0, "invoice.payment_failed", invoice, now)
    return body.replace(stripe_events.event_id(0).encode(), b"evt_" + PLACEHOLDER)


def bodies(count: int) -> list[bytes]:
    blank = template()
    return [blank.replace(PLACEHOLDER, b"%020d" % next(NUMBERS)) for _ in range(count)]


def write_requests(path: Path, count: int) -> int:
    """Write `count` signed requests; returns the length of each in bytes. They are valid as long as signatures are."""
    at = int(time.time())
    requests = [_request(body, at) for body in bodies(count)]
    path.write_bytes(b"".join(requests))
    (length,) = {len(request) for request in requests}
    return length


def _request(body: bytes, at: int) -> bytes:
    signature = stripe_events.signature(body, SECRET, at)
    head = (
        "POST /stripe-webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
