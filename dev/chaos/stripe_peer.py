"""A Stripe that can be broken: invoices that are paid at the first try, at the second, or never; customers' addresses.

It keeps Stripe's promise (https://docs.stripe.com/api/idempotent_requests): one Idempotency-Key, one try to collect,
and the same answer whenever it is asked again.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dev.harness.traffic import PAYS_AT, Sent
from dev.simulators.faults import LOSE, serve_or_fail
from dev.simulators.stripe_objects import listed

Answer = tuple[int, dict[str, Any]]

NOT_FOUND = 404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "no such thing"}}
DECLINED = 402, {"error": {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}}
PAID_ALREADY = 400, {"error": {"type": "invalid_request_error", "code": "invoice_already_paid"}}


@dataclass(slots=True)
class Invoice:
    """One invoice, with what its event shows of it. Its card pays at the try of this number; 0 for never."""

    id: str
    pays_at: int
    thing: dict[str, Any]
    keys: list[str] = field(default_factory=list)  # of the tries to collect it, each once
    paid: bool = False

    def as_stripe_shows_it(self) -> dict[str, Any]:
        return self.thing | {"status": "paid" if self.paid else "open"}

    @property
    def subscription(self) -> str:
        return str(self.thing["parent"]["subscription_details"]["subscription"])

    def subscription_as_stripe_shows_it(self) -> dict[str, Any]:
        status = "active" if self.paid else "past_due"
        return {"id": self.subscription, "object": "subscription", "customer": self.thing["customer"], "status": status}

    def collect(self, key: str) -> Answer:
        self.keys.append(key)
        if self.paid:
            return PAID_ALREADY
        if len(self.keys) != self.pays_at:
            return DECLINED
        self.paid = True
        return 200, self.as_stripe_shows_it()


class StripePeer(ThreadingHTTPServer):
    """Knows the customers and invoices of these events; `way` says how it fails meanwhile, empty for not at all."""

    def __init__(self, events: Iterable[Sent]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.way = ""
        self._lock = threading.Lock()
        failed = [Invoice(one.subject, PAYS_AT[one.kind], one.thing) for one in events if one.kind in PAYS_AT]
        self._invoices = {invoice.id: invoice for invoice in failed}
        self._subscriptions = {invoice.subscription: invoice for invoice in failed}
        self._emails = {one.customer: one.address for one in events}
        self._answers: dict[str, Answer] = {}  # by Idempotency-Key
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def counted(self) -> dict[str, Counter[str]]:
        """What it was made to do, by invoice: the tries, and the payments that came of them."""
        invoices = self._invoices.values()
        most = max((len(one.keys) for one in invoices), default=0)
        tries = {f"try {n} to collect": Counter(i.id for i in invoices if len(i.keys) >= n) for n in range(1, most + 1)}
        return {"payments": Counter(one.id for one in invoices if one.paid)} | tries

    def answer(self, method: str, path: str, key: str) -> Answer:
        """Its whole API, as far as we call it."""
        match method, path.partition("?")[0].strip("/").split("/"):
            case "GET", ["v1", "invoices", invoice] if invoice in self._invoices:
                return 200, self._invoices[invoice].as_stripe_shows_it()
            case "POST", ["v1", "invoices", invoice, "pay"] if invoice in self._invoices:
                return self._pay(self._invoices[invoice], key or os.urandom(8).hex())
            case "GET", ["v1", "subscriptions", subscription] if subscription in self._subscriptions:
                return 200, self._subscriptions[subscription].subscription_as_stripe_shows_it()
            case "GET", ["v1", "invoice_payments" | "events" as things]:
                return 200, listed(f"/v1/{things}", [])
            case "GET", ["v1", "customers", customer] if customer in self._emails:
                return 200, {"id": customer, "object": "customer", "email": self._emails[customer]}
        return NOT_FOUND

    def _pay(self, invoice: Invoice, key: str) -> Answer:
        with self._lock:
            if key not in self._answers:
                self._answers[key] = invoice.collect(key)
            return self._answers[key]


class _Handler(BaseHTTPRequestHandler):
    server: StripePeer

    def do_GET(self) -> None:
        """An answer is lost only where it tells of a deed: a lost look would keep every payment from being tried."""
        serve_or_fail(self, "" if self.server.way == LOSE else self.server.way, self._serve)

    def do_POST(self) -> None:
        serve_or_fail(self, self.server.way, self._serve)

    def _serve(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = self.server.answer(self.command, self.path, self.headers.get("Idempotency-Key", ""))
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""
