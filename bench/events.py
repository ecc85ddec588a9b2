"""Signed Stripe events as ready-made HTTP requests: a file of records of one length, each event new."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from cli import stripe_events

SECRET = "whsec_of_the_benchmark"
BYTES = 3700  # of a body, as of a typical invoice event
MARK = b"@" * 20  # stands for the event's number
NUMBERS = itertools.count(1)  # over all rounds: no event is ever sent twice


def template() -> bytes:
    """An invoice.payment_failed of BYTES bytes, with MARK in each id, so that no two events share a customer."""
    now = int(time.time())
    mark = MARK.decode()
    invoice = stripe_events.failed_invoice(0, "ada@example.com", 1, now, stripe_events.NEW_VERSION)
    invoice |= {"id": f"in_{mark}", "customer": f"cus_{mark}", "description": ""}
    room = BYTES - len(_named(invoice, now))
    return _named(invoice | {"description": "x" * room}, now)


def _named(invoice: dict[str, object], now: int) -> bytes:
    body = stripe_events.event(0, "invoice.payment_failed", invoice, now)
    return body.replace(stripe_events.event_id(0).encode(), b"evt_" + MARK)


def bodies(count: int) -> list[bytes]:
    """`count` events, each with a number that no other ever had."""
    blank = template()
    return [blank.replace(MARK, b"%020d" % next(NUMBERS)) for _ in range(count)]


def write_requests(path: Path, count: int) -> int:
    """Write `count` signed requests; how many bytes each of them has. They are good for as long as signatures are."""
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
