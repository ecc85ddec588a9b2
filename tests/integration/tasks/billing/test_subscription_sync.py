"""Subscriptions are imported once, and those that differ from Stripe's are looked at again, through all failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from inbox import find, queries
from inbox.errors import TransientError
from inbox.find import Filter
from inbox.store import Store
from tasks.billing import subscription_sync
from tasks.handler import FollowUp
from tasks.models import AppMessage, Invoice, Notification, Subscription, SubscriptionSync
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.peers import Answer, Peer, stripe_and_record

DIFFERS = "subscription.differs"


def subscription(number: int, status: str = "active", product: str = "club", **more: Any) -> dict[str, Any]:
    price = {"id": f"price_{product}", "object": "price", "product": product, "type": "recurring"}
    items = [
        {
            "id": f"si_{number}",
            "object": "subscription_item",
            "price": price,
            "quantity": 1,
            "current_period_end": 1_780_000_000,
        }
    ]
    about: dict[str, Any] = {
        "id": f"sub_{number:04}",
        "object": "subscription",
        "customer": f"cus_{number}",
        "status": status,
    }
    about |= {"metadata": {"user": "7"}, "trial_end": None, "cancel_at": None, "cancel_at_period_end": False}
    return {**about, "livemode": False, "items": {"object": "list", "data": items, "has_more": False}, **more}


def paid_invoice(number: int) -> dict[str, Any]:
    money = {"amount_due": 120000, "total": 120000, "amount_remaining": 0, "currency": "eur", "created": 1_760_000_000}
    parent = {"type": "subscription_details", "subscription_details": {"subscription": f"sub_{number:04}"}}
    about = {
        "id": f"in_{number}",
        "object": "invoice",
        "customer": f"cus_{number}",
        "customer_email": "ada@example.com",
    }
    return {**about, **money, "parent": parent, "status": "paid", "billing_reason": "subscription_cycle"}


@dataclass
class World:
    """A Stripe with subscriptions, newest first, and our record and database."""

    business: Business
    store: Store
    stripe: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: list[Answer] = field(default_factory=list)  # its next responses, instead of the right ones
    requests: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        self.requests.append(parts.path)
        if self.trouble:
            return self.trouble.pop(0)
        if parts.path == "/v1/subscriptions":
            return Answer(200, body=json.dumps(self._list(parse_qs(parts.query))).encode())
        found = self.stripe.get(parts.path.removeprefix("/v1/subscriptions/"))
        if found is None:
            return Answer(404, body=b'{"error": {"type": "invalid_request_error", "code": "resource_missing"}}')
        return Answer(200, body=json.dumps(found).encode())

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """https://docs.stripe.com/api/subscriptions/list: without a status, those that are not canceled."""
        rows = [one for _, one in sorted(self.stripe.items(), reverse=True) if one["status"] != "canceled"]
        if after := query.get("starting_after"):
            rows = [one for one in rows if one["id"] < after[0]]
        limit = int(query["limit"][0])
        return {"object": "list", "data": rows[:limit], "has_more": len(rows) > limit}

    def has(self, *found: dict[str, Any]) -> None:
        self.stripe |= {one["id"]: one for one in found}

    def job(self, event_id: str, body: Any, follow_up: FollowUp | None = None) -> list[FollowUp]:
        effect, args = (follow_up.effect, follow_up.args) if follow_up else ("subscription_sync.sync_page", {})
        return self.business.run(
            subscription_sync.sync_page, body, source="holdfast", event_id=event_id, effect=effect, args=args
        )

    def run(self, *, pages: int = 1000, **body: Any) -> list[FollowUp]:
        """A new request, and its jobs up to this number of pages; returns the job of the next page."""
        self.business.now += timedelta(hours=1)
        event_id = f"subscriptions:{self.business.now:%Y-%m-%dT%H:%M:%S}"
        jobs = self.job(event_id, body)
        while jobs and pages > 1:
            jobs, pages = self.job(event_id, body, jobs[0]), pages - 1
        return jobs

    def differing(self) -> list[str]:
        """The subscriptions that are to be looked at again, once for each time."""
        return sorted(event.partition(":")[0] for event in self._events())

    def work(self) -> None:
        """Run the jobs of all subscriptions that differ."""
        for event in self._events():
            body = json.loads(queries.find_body(self.store, "holdfast", event) or b"{}")
            self.business.run(subscription_sync.handle_difference, body, source="holdfast", event_id=event)

    def _events(self) -> list[str]:
        """All pages of the search: each is limited in time."""
        found = find.search(self.store, "events", Filter("holdfast"), 10_000)
        names = [event["id"] for event in found.rows]
        while found.cursor:
            found = find.search(self.store, "events", Filter("holdfast"), 10_000, found.cursor)
            names += [event["id"] for event in found.rows]
        return names

    def known(self) -> dict[str, str | None]:
        return {row.id: row.stripe_status for row in self.business.all(select(Subscription))}

    def row(self) -> SubscriptionSync:
        row: SubscriptionSync = self.business.one(select(SubscriptionSync))
        return row


@pytest.fixture
def world(business: Business, real_store: Store) -> Iterator[World]:
    world = World(business, real_store)
    with Peer(world.answer) as peer:
        business.settings |= stripe_and_record(peer, real_store)
        yield world


@pytest.fixture
def imported(world: World) -> World:
    """Three subscriptions that were imported; the hourly runs look for all, from now on."""
    world.has(*(subscription(number) for number in (1, 2, 3)))
    world.run(imports=True)
    world.work()
    return world


def test_an_import_makes_every_subscription_known_and_mails_nobody(world: World) -> None:
    world.has(subscription(1), subscription(2, "paused"), subscription(3, "canceled"))
    assert world.run(imports=True) == []
    assert world.differing() == ["sub_0001", "sub_0002"]
    world.work()
    assert world.known() == {"sub_0001": "active", "sub_0002": "paused"}
    assert world.business.all(select(Notification)) == []
    row = world.row()
    assert (row.listed, row.differing, row.finished_at) == (2, 2, world.business.now)


def test_the_job_of_a_subscription_waits_for_others_of_its_customer(world: World) -> None:
    world.has(subscription(1))
    world.run(imports=True)
    (event,) = find.search(world.store, "events", Filter("holdfast"), 10).rows
    found = queries.find_event(world.store, "holdfast", event["id"])
    assert found
    (job,) = found["jobs"]
    assert (event["type"], job["task"]) == (DIFFERS, "tasks.subscription_sync.handle_difference")
    assert world.store.client.hget(f"{{holdfast}}:job:{job['id']}", "key") == b"stripe:cus_1"


def test_the_application_hears_of_the_access_of_every_imported_subscription(world: World) -> None:
    world.business.settings |= {"APP_WEBHOOK_URL": "https://app.example", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    world.has(subscription(1))
    world.run(imports=True)
    world.work()
    message = world.business.one(select(AppMessage))
    assert (message.type, message.data["livemode"], message.data["entitlements"]) == ("access.granted", False, ["club"])


def test_an_import_knows_the_address_and_the_paid_period_from_the_latest_invoice(world: World) -> None:
    world.business.settings |= {"APP_WEBHOOK_URL": "https://app.example", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    world.has(
        subscription(1, latest_invoice=paid_invoice(1)), subscription(2, latest_invoice={**paid_invoice(2), "lines": 7})
    )
    world.run(imports=True)
    world.work()
    messages = {one.customer: one for one in world.business.all(select(AppMessage))}
    assert {one.type for one in messages.values()} == {"access.granted"}  # no renewal: it may be a year old
    assert [messages[f"cus_{number}"].data["customer"]["email"] for number in (1, 2)] == ["ada@example.com", None]
    invoice = world.business.one(select(Invoice))
    assert (invoice.id, invoice.state, invoice.amount_due) == ("in_1", "paid", 120000)


@pytest.mark.parametrize("latest", ["in_1", None, {"id": "in_1", "status": "open"}])
def test_a_latest_invoice_that_is_not_paid_is_left_to_its_events(world: World, latest: Any) -> None:
    world.has(subscription(1, latest_invoice=latest))
    world.run(imports=True)
    world.work()
    assert (world.known(), world.business.all(select(Invoice))) == ({"sub_0001": "active"}, [])


def test_a_second_import_finds_nothing_to_do(imported: World) -> None:
    imported.run(imports=True)
    assert len(imported.differing()) == 3
    assert (imported.row().listed, imported.row().differing) == (3, 0)


def test_a_dry_run_counts_and_records_nothing(world: World) -> None:
    world.has(subscription(1), subscription(2))
    world.run(imports=True, dry_run=True)
    assert (world.row().listed, world.row().differing, world.differing(), world.known()) == (2, 2, [], {})
    world.run()
    assert world.differing() == []  # it was no import: those that we do not know stay unknown


def test_a_changed_status_that_no_event_told_is_corrected_within_the_hour(imported: World) -> None:
    imported.has(subscription(2, "past_due"))
    imported.run()
    imported.work()
    assert imported.known() == {"sub_0001": "active", "sub_0002": "past_due", "sub_0003": "active"}
    assert len(imported.differing()) == 4


def test_changed_items_that_no_event_told_are_corrected_within_the_hour(imported: World) -> None:
    imported.has(subscription(2, product="pro"))
    imported.run()
    imported.work()
    items = imported.business.one(select(Subscription.items).where(Subscription.id == "sub_0002"))
    assert [one["product"] for one in items] == ["pro"]


@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        ({"cancel_at": 1_790_000_000}, "cancel_at", 1_790_000_000),
        ({"cancel_at_period_end": True}, "cancel_at", 1_780_000_000),
        ({"metadata": {"product": "course"}}, "product", "course"),
    ],
)
def test_a_changed_plan_of_its_end_or_metadata_that_no_event_told_is_corrected(
    imported: World, change: dict[str, Any], name: str, value: Any
) -> None:
    imported.has(subscription(2, **change))
    imported.run()
    imported.work()
    assert imported.business.one(select(getattr(Subscription, name)).where(Subscription.id == "sub_0002")) == value
    imported.run()
    assert imported.row().differing == 0


def test_a_subscription_that_ended_is_fetched_as_the_list_lacks_it(imported: World) -> None:
    imported.has(subscription(2, "canceled"))
    del imported.stripe["sub_0003"]  # Stripe no longer knows it: of data in test mode, say
    imported.requests.clear()
    imported.run()
    assert imported.requests == ["/v1/subscriptions", "/v1/subscriptions/sub_0002", "/v1/subscriptions/sub_0003"]
    imported.work()
    assert imported.known() == {"sub_0001": "active", "sub_0002": "canceled", "sub_0003": "active"}
    imported.requests.clear()
    imported.run()
    assert "/v1/subscriptions/sub_0002" not in imported.requests


def test_only_an_import_adds_what_is_not_known_and_then_every_hour(world: World) -> None:
    world.has(subscription(1))
    world.run()
    assert (world.differing(), world.row().listed) == ([], 1)
    world.run(imports=True)
    assert world.differing() == ["sub_0001"]
    world.has(subscription(2))
    world.run()
    assert "sub_0002" in world.differing()


def test_an_incomplete_list_of_items_is_no_difference(imported: World) -> None:
    known = subscription(2)
    imported.has({**known, "items": {**known["items"], "data": [], "has_more": True}})
    imported.run()
    assert len(imported.differing()) == 3


def test_subscriptions_of_a_connected_account_are_left_alone(imported: World) -> None:
    with imported.business.sessions() as db:
        db.get_one(Subscription, "sub_0003").account = "acct_1"
        db.commit()
    del imported.stripe["sub_0003"]
    imported.requests.clear()
    imported.run()
    assert imported.requests == ["/v1/subscriptions"]


def test_a_malformed_subscription_holds_up_no_other(world: World) -> None:
    world.has(subscription(1), subscription(2, items={"data": "odd"}), subscription(3))
    world.run(imports=True)
    assert world.differing() == ["sub_0001", "sub_0003"]


def test_pages_are_paced_by_how_many_subscriptions_are_handled(world: World) -> None:
    world.has(*(subscription(number) for number in range(120)))
    (job,) = world.run(imports=True, pages=1)
    assert (job.delay_seconds, job.ordering_key) == (10, "subscriptions")
    world.work()
    (job,) = world.run(imports=True, pages=1)  # the first 100 are known now
    assert job.delay_seconds == 2


def test_an_import_that_was_broken_off_is_continued_by_the_next_request(world: World) -> None:
    world.has(*(subscription(number) for number in range(250)))
    world.run(imports=True, pages=1)
    stale = f"subscriptions:{world.business.now:%Y-%m-%dT%H:%M:%S}"
    assert world.row().listed == 100
    world.run()  # that of the hour: it continues the import, and does not begin a run of its own
    assert (world.row().listed, world.row().differing, world.row().imports) == (250, 250, True)
    assert len(set(world.differing())) == len(world.differing()) == 250
    assert world.job(stale, {}, FollowUp("subscription_sync.sync_page.2", "x", {"page": 2})) == []  # the old one stops


def test_an_import_does_not_wait_for_a_run_that_is_no_import(imported: World) -> None:
    imported.has(*(subscription(number) for number in range(150)))
    with imported.business.sessions() as db:
        db.get_one(SubscriptionSync, "stripe").imported_at = None
        db.commit()
    imported.run(pages=1)
    imported.run(imports=True)
    assert (imported.row().listed, imported.row().imports, len(set(imported.differing()))) == (150, True, 150)


def test_a_failure_is_recorded_and_the_page_is_repeated_without_doing_anything_twice(world: World) -> None:
    world.has(*(subscription(number) for number in range(150)))
    (job,) = world.run(imports=True, pages=1)
    event_id = f"subscriptions:{world.business.now:%Y-%m-%dT%H:%M:%S}"
    world.trouble.append(Answer(503, {"Retry-After": "7"}))
    with pytest.raises(TransientError):
        world.job(event_id, {"imports": True}, job)
    assert "503" in str(world.row().failure)
    with world.business.sessions() as db:  # the worker died after it had recorded the first page
        row = db.get_one(SubscriptionSync, "stripe")
        row.after, row.listed, row.differing = "", 0, 0
        db.commit()
    while jobs := world.job(event_id, {"imports": True}, job):
        (job,) = jobs
    assert (world.row().failure, world.row().listed) == (None, 150)
    assert len(set(world.differing())) == len(world.differing()) == 150


def test_without_a_key_nothing_happens(world: World) -> None:
    del world.business.settings["STRIPE_API_KEY"]
    assert world.run(imports=True) == []
    assert world.requests == []
