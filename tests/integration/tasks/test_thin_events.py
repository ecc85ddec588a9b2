"""The thin twin of a Stripe event has the effect of the snapshot, and both together have it once."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select
from stripe.events import UnknownEventNotification

from inbox import queries
from inbox.errors import PermanentError, TransientError
from inbox.store import Store
from tasks import routes, stripe_types, thin_events
from tasks.ingest import build_delivery, identify_stripe_event
from tasks.models import PaymentFailure
from tests.support.business import Business
from tests.support.peers import Answer, Peer, stripe_and_record

FAILED = "invoice.payment_failed"
SUMMARY = "entitlements.active_entitlement_summary.updated"  # names no object and no customer
ROUTED = [kind for source, kind in routes.ROUTES if source == "stripe" and kind != SUMMARY]
INVOICE = {
    "id": "in_1",
    "object": "invoice",
    "customer": "cus_1",
    "customer_email": "ada@example.com",
    "amount_due": 1999,
    "currency": "eur",
    "attempt_count": 1,
    "status": "open",
    "created": 1_772_000_000,
    "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}},
}
PREVIEW = {**{name: INVOICE[name] for name in INVOICE if name != "id"}, "next_payment_attempt": 1_773_000_000}
OBJECTS: dict[str, Any] = {
    "/v1/invoices/create_preview": PREVIEW,
    "/v2/core/events/evt_thin_1": {
        "id": "evt_thin_1",
        "object": "v2.core.event",
        "type": "v1.invoice.upcoming",
        "created": "2026-02-25T06:13:30.000Z",
        "data": {"customer": "cus_1", "subscription": "sub_1"},
    },
    "/v1/invoices/in_1": INVOICE,
    "/v1/subscriptions/sub_1": {"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "past_due"},
    "/v1/invoice_payments": {"object": "list", "data": [], "has_more": False},
}
SNAPSHOT = {"id": "evt_1", "object": "event", "type": FAILED, "created": 1_772_000_010, "data": {"object": INVOICE}}
THIN = {
    "id": "evt_thin_1",
    "object": "v2.core.event",
    "type": f"v1.{FAILED}",
    "created": "2026-02-25T06:13:30.000Z",
    "livemode": False,
    "context": None,
    "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
    "snapshot_event": "evt_1",
}


@dataclass
class Deliveries:
    """Events that are recorded as the receiver does it, and their jobs run; also those of events recorded by a job."""

    business: Business
    store: Store

    def __call__(self, event: dict[str, Any]) -> None:
        body = json.dumps(event).encode()
        self.store.record_all([build_delivery("stripe", identify_stripe_event(body.decode()), body)])
        for name in (event["id"], event.get("snapshot_event") or f"{event['id']}.snapshot"):
            self._work(name)

    def jobs(self, name: str) -> list[str]:
        found = queries.find_event(self.store, "stripe", name)
        return [job["task"] for job in found["jobs"]] if found else []

    def body(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(queries.find_body(self.store, "stripe", name) or b"{}")
        return found

    def failures(self) -> int:
        return len(self.business.all(select(PaymentFailure)))

    def _work(self, name: str) -> None:
        for task in self.jobs(name):
            module, _, function = routes.TASKS[task].handler.partition(":")
            handler: Callable[..., Any] = getattr(importlib.import_module(module), function)
            self.business.run(handler, self.body(name), event_id=name, effect=routes.effect_of(task))


@pytest.fixture
def deliver(business: Business, real_store: Store) -> Iterator[Deliveries]:
    with Peer(lambda request: Answer(200, body=json.dumps(OBJECTS[request.path.partition("?")[0]]).encode())) as peer:
        business.settings |= stripe_and_record(peer, real_store)
        yield Deliveries(business, real_store)


@pytest.mark.parametrize("kind", ROUTED)
def test_every_routed_type_has_a_thin_twin_that_is_routed_too(kind: str) -> None:
    assert not isinstance(stripe_types._thin(f"v1.{kind}"), UnknownEventNotification)
    (job,) = routes.jobs_for("stripe", "evt_1", f"v1.{kind}")
    assert (job.id, job.task) == ("stripe:evt_1:thin_events.record_twin", routes.THIN_EVENT)


def test_only_the_twin_of_an_upcoming_invoice_names_no_object() -> None:
    named = {kind for kind in ROUTED if hasattr(stripe_types._thin(f"v1.{kind}"), "fetch_related_object")}
    assert set(ROUTED) - named == {"invoice.upcoming"}


@pytest.mark.parametrize(
    ("source", "kind"), [("stripe", "v1.balance.available"), ("github", f"v1.{FAILED}"), ("stripe", f"v1.{SUMMARY}")]
)
def test_other_types_are_no_twins(source: str, kind: str) -> None:
    assert routes.jobs_for(source, "evt_1", kind) == ()


def test_a_thin_event_has_the_effect_of_its_snapshot(deliver: Deliveries) -> None:
    deliver(THIN)
    failure = deliver.business.one(select(PaymentFailure))
    assert (failure.invoice, failure.amount_due, failure.created) == ("in_1", 1999, SNAPSHOT["created"])
    twin = deliver.body("evt_1")
    assert {name: twin[name] for name in SNAPSHOT} == SNAPSHOT
    assert queries.stats(deliver.store)["accepted"] == 1


@pytest.mark.parametrize("events", [(THIN, SNAPSHOT), (SNAPSHOT, THIN), (SNAPSHOT, THIN, THIN), (THIN, THIN, SNAPSHOT)])
@pytest.mark.parametrize("twin", ["evt_1", None])
def test_thin_event_and_snapshot_in_any_order_have_one_effect(
    deliver: Deliveries, events: tuple[dict[str, Any], ...], twin: str | None
) -> None:
    for event in events:
        deliver({**event, "snapshot_event": twin} if event is THIN else event)
    if twin:
        assert (deliver.failures(), deliver.jobs("evt_1")) == (1, ["tasks.payments.payment_failed"])
    assert {failure.attempt_count for failure in deliver.business.all(select(PaymentFailure))} == {1}


def test_a_thin_event_of_a_connected_account_is_fetched_and_handled_for_that_account(deliver: Deliveries) -> None:
    deliver.business.settings["STRIPE_CONNECTED_ACCOUNTS"] = "acct_1"
    body = json.dumps({**THIN, "context": "org_1/acct_1"}).encode()
    event = build_delivery("stripe", identify_stripe_event(body.decode(), accounts=["acct_1"]), body)
    deliver.store.record_all([event])
    deliver._work("evt_thin_1")
    deliver._work("evt_1")
    assert deliver.business.one(select(PaymentFailure.account)) == "acct_1"


def test_without_a_key_a_thin_event_waits_for_its_snapshot(deliver: Deliveries) -> None:
    del deliver.business.settings["STRIPE_API_KEY"]
    with pytest.raises(TransientError, match="set STRIPE_API_KEY"):
        deliver(THIN)
    deliver(SNAPSHOT)
    deliver(THIN)
    assert deliver.failures() == 1


def test_a_thin_event_of_an_upcoming_invoice_has_it_previewed(deliver: Deliveries) -> None:
    upcoming = {name: value for name, value in THIN.items() if name != "related_object"} | {
        "type": "v1.invoice.upcoming"
    }
    deliver(upcoming)
    assert deliver.jobs("evt_1") == [routes.INVOICE_UPCOMING]
    found = deliver.body("evt_1")
    assert (found["type"], found["data"]["object"]) == ("invoice.upcoming", PREVIEW)


@pytest.mark.parametrize("broken", [{"created": "yesterday"}, {"related_object": None}, {"snapshot_event": "evt 1"}])
def test_a_thin_event_that_cannot_be_fetched_is_a_dead_letter_that_says_why(
    deliver: Deliveries, broken: dict[str, Any]
) -> None:
    with pytest.raises(PermanentError, match=r"created|related object|id must be"):
        deliver.business.run(thin_events.record_twin, {**THIN, **broken}, event_id="evt_thin_1")
