"""The simulated Stripe. docs/stripe-events.md lists what it cannot do.

It has what localstripe lacks: checkout sessions and their line items, an invoice's number and payment page, payments of
invoices, disputes, and the list of events that were not delivered. Everything else is passed on to localstripe, where
there is one, and comes back in the shape of new API versions. Without localstripe it knows the customers and invoices
of given events, each invoice paid at its first retry, at its second, or never.

One Idempotency-Key gets one response and one attempt to pay: https://docs.stripe.com/api/idempotent_requests.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from cli.stripe_events import StripeObject
from dev.harness.traffic import PAYS_AT, ShopEvent
from dev.simulators.http import LOSE_RESPONSE, Request, Response, Simulator, json_response
from dev.simulators.stripe_event_log import BadRequest, EventLog
from dev.simulators.stripe_objects import as_of_now, listed

Query = dict[str, list[str]]

PASSED_ON = ("Authorization", "Content-Type")
SHAPED = ("invoice", "charge", "subscription")


def _error(status: int, **error: str) -> Response:
    return json_response({"error": error}, status)


NOT_FOUND = _error(404, type="invalid_request_error", code="resource_missing", message="no such thing")
DECLINED = _error(402, type="card_error", code="card_declined", decline_code="insufficient_funds")
PAID_ALREADY = _error(400, type="invalid_request_error", code="invoice_already_paid")


@dataclass(slots=True)
class Invoice:
    """An invoice that we know from its event. Its card pays at the attempt of this number; 0 for never."""

    id: str
    pays_at: int
    thing: StripeObject
    keys: list[str] = field(default_factory=list)  # of the attempts to pay it, each once
    paid: bool = False

    def to_json(self) -> StripeObject:
        return self.thing | {"status": "paid" if self.paid else "open"}

    @property
    def subscription(self) -> str:
        return str(self.thing["parent"]["subscription_details"]["subscription"])

    def subscription_to_json(self) -> StripeObject:
        status = "active" if self.paid else "past_due"
        return {"id": self.subscription, "object": "subscription", "customer": self.thing["customer"], "status": status}

    def pay(self, key: str) -> Response:
        self.keys.append(key)
        if self.paid:
            return PAID_ALREADY
        if len(self.keys) != self.pays_at:
            return DECLINED
        self.paid = True
        return json_response(self.to_json())


class Stripe(Simulator):
    """`log` and `localstripe`, its address, may be set before the first request."""

    def __init__(self, events: Iterable[ShopEvent] = ()) -> None:
        super().__init__(self._reply)
        self.localstripe = ""
        self.log = EventLog()
        self.sessions: dict[str, StripeObject] = {}  # of checkouts, by customer
        self.line_items: dict[str, list[StripeObject]] = {}  # by session
        self.disputes: dict[str, StripeObject] = {}
        failed = [Invoice(one.subject, PAYS_AT[one.kind], one.thing) for one in events if one.kind in PAYS_AT]
        self._invoices = {invoice.id: invoice for invoice in failed}
        self._subscriptions = {invoice.subscription: invoice for invoice in failed}
        shared = Counter(one.customer for one in events)
        # A customer of several events has none: each event has an address of its own.
        self._emails = {one.customer: one.address if shared[one.customer] == 1 else None for one in events}
        self._responses: dict[str, Response] = {}  # by Idempotency-Key
        self._changing = threading.Lock()

    def fault_for(self, method: str) -> str:
        """Only responses to changes are lost: without its reads, no payment would ever be attempted."""
        return "" if method == "GET" and self.fault == LOSE_RESPONSE else self.fault

    def count_payments(self) -> dict[str, Counter[str]]:
        """By invoice: the attempts to pay, and the payments that came of them."""
        invoices = self._invoices.values()
        most = max((len(one.keys) for one in invoices), default=0)
        tries = {f"try {n} to collect": Counter(i.id for i in invoices if len(i.keys) >= n) for n in range(1, most + 1)}
        return {"payments": Counter(one.id for one in invoices if one.paid)} | tries

    def _reply(self, request: Request) -> Response:
        url = urlsplit(request.path)
        query, path = parse_qs(url.query), url.path.removeprefix("/v1/").split("/")
        try:
            if request.method == "GET" and (found := self._find(url.path, path, query, request)) is not None:
                return json_response(found)
        except BadRequest as error:
            return _error(400, type="invalid_request_error", message=str(error))
        key = request.headers.get("Idempotency-Key") or os.urandom(8).hex()
        with self._changing:
            if key not in self._responses:
                self._responses[key] = self._change(path, key, request)
            return self._responses[key]

    def _find(self, url: str, path: list[str], query: Query, request: Request) -> StripeObject | None:
        """An object that is not localstripe's, or a list that localstripe does not have."""
        found: StripeObject | None = None
        match path:
            case ["events"]:
                found = self.log.page(query)
            case ["disputes", dispute]:
                found = self.disputes.get(dispute)
            case ["invoices", invoice] if invoice in self._invoices:
                found = self._invoices[invoice].to_json()
            case ["subscriptions", subscription] if subscription in self._subscriptions:
                found = self._subscriptions[subscription].subscription_to_json()
            case ["customers", customer] if customer in self._emails:
                found = {"id": customer, "object": "customer", "email": self._emails[customer]}
            case ["checkout", "sessions"]:
                found = listed(url, self._sessions(query["subscription"][0], request))
            case ["checkout", "sessions", session, "line_items"] if session in self.line_items:
                found = listed(url, self.line_items[session])
            case ["invoice_payments"]:
                found = listed(url, self._payments(query, request) if self.localstripe else [])
        return found

    def _sessions(self, subscription: str, request: Request) -> list[StripeObject]:
        """The checkout that created a subscription, which is known before the subscription is."""
        customer = self._fetch(f"subscriptions/{subscription}", request).get("customer")
        return [self.sessions[customer]] if customer in self.sessions else []

    def _payments(self, query: Query, request: Request) -> list[StripeObject]:
        """Of an invoice or of a payment intent. https://docs.stripe.com/api/invoice-payment/object"""
        if intent := query.get("payment[payment_intent]"):
            invoice = self._fetch(f"payment_intents/{intent[0]}", request).get("invoice")
        else:
            invoice = query["invoice"][0]
        if not invoice:
            return []
        found = self._fetch(f"invoices/{invoice}", request)
        payment = {"type": "payment_intent", "payment_intent": found["payment_intent"]}
        shown = as_of_now(found) if "expand[0]" in query else invoice
        made = {"id": f"inpay_{invoice}", "object": "invoice_payment", "created": found["created"]}
        return [made | {"invoice": shown, "payment": payment}] if found["payment_intent"] else []

    def _fetch(self, path: str, request: Request) -> StripeObject:
        """An object as localstripe has it."""
        return dict(json.loads(self._call("GET", f"/v1/{path}", request).content))

    def _call(self, method: str, path: str, request: Request, body: bytes = b"") -> requests.Response:
        kept = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        return requests.request(method, self.localstripe + path, data=body, headers=kept, timeout=10)

    def _change(self, path: list[str], key: str, request: Request) -> Response:
        """The first response to this key: of ours, or of localstripe."""
        if path[2:] == ["pay"] and path[1] in self._invoices:
            return self._invoices[path[1]].pay(key)
        if not self.localstripe:
            return NOT_FOUND
        answer = self._call(request.method, request.path, request, request.body)
        thing: Any = answer.json()
        return json_response(as_of_now(thing) if thing.get("object") in SHAPED else thing, answer.status_code)
