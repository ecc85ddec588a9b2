"""What localstripe lacks of Stripe, in front of it: everything else is passed on, in the shape of new API versions.

Checkout sessions and their line items, an invoice's number and page to pay at, payments of invoices, disputes, the list
of events that were not delivered, and one answer for one Idempotency-Key. It also plays the user's application, which
hears of access. docs/stripe-events.md lists what localstripe cannot play.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from cli.stripe_events import StripeObject
from dev.simulators.stripe_event_log import BadRequest, EventLog
from dev.simulators.stripe_objects import as_of_now, listed

Answer = tuple[int, bytes]
PASSED_ON = ("Authorization", "Content-Type")
SHAPED = ("invoice", "charge", "subscription")


class StripeFront(ThreadingHTTPServer):
    """Listens on loopback until it is closed. `log` and `localstripe` are set before the first request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.localstripe = ""
        self.log = EventLog()
        self.sessions: dict[str, StripeObject] = {}  # of checkouts, by customer
        self.line_items: dict[str, list[StripeObject]] = {}  # by session
        self.disputes: dict[str, StripeObject] = {}
        self.told: list[StripeObject] = []  # what the application heard
        self._answers: dict[str, Answer] = {}  # by Idempotency-Key
        self._paying = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        url = urlsplit(path)
        query = parse_qs(url.query)
        match method, url.path.strip("/").split("/"):
            case "POST", ["application"]:
                self.told.append(json.loads(body))
                return 200, b"{}"
            case "GET", ["v1", "events"]:
                return self._events(query)
            case "GET", ["v1", "disputes", dispute] if dispute in self.disputes:
                return _json(self.disputes[dispute])
            case "GET", ["v1", *what] if (found := self._list(what, query, headers)) is not None:
                return _json(listed(url.path, found))
        key = headers.get("Idempotency-Key", "")
        with self._paying:
            if key not in self._answers:
                self._answers[key] = self._pass_on(method, path, headers, body)
            return self._answers[key] if key else self._answers.pop(key)

    def _list(self, what: list[str], query: dict[str, list[str]], headers: dict[str, str]) -> list[StripeObject] | None:
        """What localstripe has no list of; None for everything else."""
        match what:
            case ["checkout", "sessions"]:
                return self._sessions(query["subscription"][0], headers)
            case ["checkout", "sessions", session, "line_items"]:
                return self.line_items.get(session)
            case ["invoice_payments"]:
                return self._payments(query, headers)
        return None

    def _events(self, query: dict[str, list[str]]) -> Answer:
        try:
            return _json(self.log.page(query))
        except BadRequest as error:
            return 400, json.dumps({"error": {"type": "invalid_request_error", "message": str(error)}}).encode()

    def _sessions(self, subscription: str, headers: dict[str, str]) -> list[StripeObject]:
        """The checkout that began a subscription, which is known before the subscription is."""
        customer = self._ask(f"subscriptions/{subscription}", headers).get("customer")
        return [self.sessions[customer]] if customer in self.sessions else []

    def _payments(self, query: dict[str, list[str]], headers: dict[str, str]) -> list[StripeObject]:
        """Of an invoice or of a payment intent. https://docs.stripe.com/api/invoice-payment/object"""
        paid_for = query["invoice"][0] if "invoice" in query else self._invoice_of(query, headers)
        if paid_for is None:
            return []
        found = self._ask(f"invoices/{paid_for}", headers)
        payment = {"type": "payment_intent", "payment_intent": found["payment_intent"]}
        invoice = _shown(found) if "expand[0]" in query else paid_for
        made = {"id": f"inpay_{paid_for}", "object": "invoice_payment", "created": found["created"]}
        return [made | {"invoice": invoice, "payment": payment}] if found["payment_intent"] else []

    def _invoice_of(self, query: dict[str, list[str]], headers: dict[str, str]) -> str | None:
        found = self._ask(f"payment_intents/{query['payment[payment_intent]'][0]}", headers).get("invoice")
        return str(found) if found else None

    def _ask(self, what: str, headers: dict[str, str]) -> StripeObject:
        """As localstripe has it."""
        return dict(json.loads(self._call("GET", f"/v1/{what}", headers, b"")[1]))

    def _call(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        kept = {name: headers[name] for name in PASSED_ON if name in headers}
        answer = requests.request(method, self.localstripe + path, data=body, headers=kept, timeout=10)
        return answer.status_code, answer.content

    def _pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        status, answer = self._call(method, path, headers, body)
        thing = json.loads(answer)
        return (status, json.dumps(_shown(thing)).encode()) if thing.get("object") in SHAPED else (status, answer)


def _shown(thing: StripeObject) -> StripeObject:
    """In its new shape; an invoice with the number that its customer knows it by, and the page to pay it at."""
    if thing["object"] != "invoice":
        return as_of_now(thing)
    page = f"https://invoice.stripe.com/i/acct_1Demo/{thing['id']}"
    return as_of_now(thing) | {"number": f"DEMO-{thing['id'][-4:].upper()}", "hosted_invoice_url": page}


def _json(thing: StripeObject) -> Answer:
    return 200, json.dumps(thing).encode()


class _Handler(BaseHTTPRequestHandler):
    server: StripeFront

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = self.server.answer(self.command, self.path, dict(self.headers.items()), body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = _serve

    def log_message(self, *_: Any) -> None:
        """Quiet."""
