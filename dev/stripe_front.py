"""What localstripe lacks of Stripe, in front of it: everything else is passed on.

Line items of checkout sessions, an invoice's number and page to pay at, payments of invoices (API versions since
`basil`), the list of events that were not delivered, and one answer for one Idempotency-Key. It also plays the user's
application, which hears of access.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from dev.stripe_events import Thing, listed
from dev.stripe_log import BadRequest, EventLog

Answer = tuple[int, bytes]
PASSED_ON = ("Authorization", "Content-Type")


class StripeFront(ThreadingHTTPServer):
    """Listens on loopback until it is closed. `log` and `localstripe` are set before the first request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.localstripe = ""
        self.log = EventLog()
        self.line_items: dict[str, list[Thing]] = {}  # by session
        self.told: list[Thing] = []  # what the application heard
        self._answers: dict[str, Answer] = {}  # by Idempotency-Key
        self._paying = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        url = urlsplit(path)
        match method, url.path.strip("/").split("/"):
            case "POST", ["application"]:
                self.told.append(json.loads(body))
                return 200, b"{}"
            case "GET", ["v1", "events"]:
                return self._events(parse_qs(url.query))
            case "GET", ["v1", "checkout", "sessions", session, "line_items"] if session in self.line_items:
                return _json(listed(url.path, self.line_items[session]))
            case "GET", ["v1", "invoice_payments"]:
                return _json(listed(url.path, self._payments(parse_qs(url.query), headers)))
        key = headers.get("Idempotency-Key", "")
        with self._paying:
            if key not in self._answers:
                self._answers[key] = self._pass_on(method, path, headers, body)
            return self._answers[key] if key else self._answers.pop(key)

    def _events(self, query: dict[str, list[str]]) -> Answer:
        try:
            return _json(self.log.page(query))
        except BadRequest as error:
            return 400, json.dumps({"error": {"type": "invalid_request_error", "message": str(error)}}).encode()

    def _payments(self, query: dict[str, list[str]], headers: dict[str, str]) -> list[Thing]:
        """https://docs.stripe.com/api/invoice-payment/object, of the payment intent that is asked for."""
        intent = query["payment[payment_intent]"][0]
        status, body = self._pass_on("GET", f"/v1/payment_intents/{intent}", headers, b"")
        paid_for = json.loads(body).get("invoice") if status == 200 else None
        if paid_for is None:
            return []
        invoice = json.loads(self._pass_on("GET", f"/v1/invoices/{paid_for}", headers, b"")[1])
        payment = {"type": "payment_intent", "payment_intent": intent}
        return [{"id": f"inpay_{intent}", "object": "invoice_payment", "invoice": invoice, "payment": payment}]

    def _pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        kept = {name: headers[name] for name in PASSED_ON if name in headers}
        answer = requests.request(method, self.localstripe + path, data=body, headers=kept, timeout=10)
        thing = answer.json()
        if thing.get("object") == "invoice":
            return _json(_numbered(thing))
        return answer.status_code, answer.content


def _numbered(invoice: Thing) -> Thing:
    """With the number that its customer knows it by, and the page to pay it at."""
    page = f"https://invoice.stripe.com/i/acct_1Demo/{invoice['id']}"
    return invoice | {"number": f"DEMO-{invoice['id'][-4:].upper()}", "hosted_invoice_url": page}


def _json(thing: Thing) -> Answer:
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
