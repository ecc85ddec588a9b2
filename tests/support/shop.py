"""A shop that runs Holdfast: its handlers, the jobs that wait, and the Stripe that it asks, on one virtual clock."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pkgutil import resolve_name
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import select

from dev.simulators.http import Request, Response, json_response
from tasks import routes
from tasks.ingest import build_delivery, identify_stripe_event
from tasks.models import Entitlement, Notification
from tests.support.business import Business
from tests.support.customer_access import Access
from tests.support.stripe_world import Object, StripeWorld, newest

ACCOUNTS = ("acct_1",)  # the connected accounts whose events are handled


@dataclass
class Shop:
    """`untrue` are the messages that were not true when they were sent, and charges while Stripe had a try planned."""

    business: Business
    world: StripeWorld
    card_works: bool = False  # whether a payment that we ask for succeeds
    untrue: list[str] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)
    waiting: list[tuple[int, int, str, str, Object, dict[str, Any]]] = field(default_factory=list)
    jobs: set[tuple[str, str]] = field(default_factory=set)  # event id and effect
    order: Iterator[int] = field(default_factory=count)

    def deliver(self, event: Object, event_id: str = "") -> None:
        """Stripe delivers an event, perhaps under a second id."""
        self.delivered.add(event["id"])
        body = json.dumps(event | {"id": event_id or event["id"]})
        identity = identify_stripe_event(body, accounts=ACCOUNTS)
        for job in build_delivery("stripe", identity, body.encode()).jobs:
            self._wait(0, job.task, routes.effect_of(job.task), json.loads(body), dict(job.args))
        self.run_due()

    def run_due(self) -> None:
        """Run every job that is due by now, and those that follow from it at once."""
        while self.waiting and self.waiting[0][0] <= self.world.now:
            _, _, task, effect, event, args = heapq.heappop(self.waiting)
            self._run(task, effect, event, args)

    def rest(self) -> None:
        """Let time pass until nothing waits any more."""
        for _ in range(200):
            if not self.waiting:
                return
            self.world.now = max(self.world.now, self.waiting[0][0])
            self.run_due()
        raise AssertionError(f"jobs without end: {self.waiting[:5]}")

    def access(self) -> Access:
        """The entitlements in force, by customer."""
        found: Access = {}
        for row in self.business.all(select(Entitlement).filter_by(revoked_at=None)):
            found.setdefault(str(row.customer), set()).add(row.product)
        return found

    def reply(self, request: Request) -> Response:
        """Stripe's API, and the service that takes the messages."""
        url = urlsplit(request.path)
        path, query = url.path.removeprefix("/v1/"), parse_qs(url.query)
        if path.startswith("/notify"):
            return Response(200)
        if path.endswith("/pay"):
            return self._pay(self.world.objects[path.split("/")[1]])
        listed = self._list(path, query)
        if listed is not None:
            return json_response({"object": "list", "data": listed, "has_more": False, "url": f"/v1/{path}"})
        found = self.world.objects.get(path.rpartition("/")[2])
        missing = {"error": {"type": "invalid_request_error", "code": "resource_missing"}}
        return json_response(newest(found)) if found else json_response(missing, 404)

    def _list(self, path: str, query: dict[str, list[str]]) -> list[Object] | None:
        wanted = {name: values[0] for name, values in query.items()}
        match path.split("/"):
            case ["checkout", "sessions"]:
                ids = {name: value for name, value in wanted.items() if name in ("subscription", "payment_intent")}
                return self.world.of_kind("checkout.session", **ids)
            case ["checkout", "sessions", session, "line_items"]:
                return list(self.world.objects[session]["line_items"]["data"])
            case ["subscription_items"]:
                return list(self.world.objects[wanted["subscription"]]["items"]["data"])
            case ["invoice_payments"]:
                return self._invoice_payments(wanted)
        return None

    def _invoice_payments(self, wanted: dict[str, str]) -> list[Object]:
        intent = wanted.get("payment[payment_intent]")
        paid = [one for one in self.world.of_kind("payment_intent") if one.get("invoice")]
        found = [
            self.world.invoice_payment(one)
            for one in paid
            if wanted.get("invoice", one["invoice"]) == one["invoice"] and intent in (None, one["id"])
        ]
        if "expand[0]" in wanted:
            found = [one | {"invoice": self.world.objects[one["invoice"]]} for one in found]
        return found

    def _pay(self, invoice: Object) -> Response:
        if invoice["next_payment_attempt"] is not None or not invoice["auto_advance"]:
            self.untrue.append(f"we charged {invoice['id']} while Stripe had a try planned")
        if invoice["status"] == "open" and self.card_works:
            self.world.pay(invoice)
            return json_response(invoice)
        error = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}
        return json_response({"error": error}, 402)

    def _wait(self, delay: int, task: str, effect: str, event: Object, args: dict[str, Any]) -> None:
        if (event["id"], effect) not in self.jobs:
            self.jobs.add((event["id"], effect))
            heapq.heappush(self.waiting, (self.world.now + delay, next(self.order), task, effect, event, args))

    def _run(self, task: str, effect: str, event: Object, args: dict[str, Any]) -> None:
        handler = resolve_name(routes.TASKS[task].handler)
        self.business.now = datetime.fromtimestamp(self.world.now, UTC)
        body = json.dumps(event).encode()
        for job in self.business.run(handler, body, event_id=event["id"], effect=effect, args=args):
            self._wait(job.delay_seconds, job.task, job.effect, event, dict(job.args))
        if task == routes.SEND_NOTIFICATION:
            self._check_message(str(args["notification"]))

    def _check_message(self, key: str) -> None:
        """With an API key each message must agree with Stripe; without, with all that Stripe has told us."""
        sent = self.business.one(select(Notification).filter_by(id=key))
        told = self.business.settings.get("STRIPE_API_KEY") or len(self.delivered) == len(self.world.events)
        if sent.audience == "customer" and sent.state == "sent" and told and not self._is_true(sent.kind, sent.about):
            self.untrue.append(f"{sent.kind} about {sent.about}: {self.world.objects.get(sent.about)}")

    def _is_true(self, kind: str, about: str) -> bool:
        found = self.world.objects.get(about, {})
        match kind:
            case "payment_failed" | "payment_action_required":
                return bool(found["status"] == "open" and self._subscription_of(found)["status"] != "canceled")
            case "subscription_suspended":
                return bool(self._subscription_of(found)["status"] in ("past_due", "unpaid"))
            case "trial_will_end":
                return bool(found["status"] == "trialing" and not found["cancel_at_period_end"])
        return bool(not kind.startswith("payment_recovered") or found["status"] == "paid")

    def _subscription_of(self, invoice: Object) -> Object:
        return self.world.objects[invoice["parent"]["subscription_details"]["subscription"]]
