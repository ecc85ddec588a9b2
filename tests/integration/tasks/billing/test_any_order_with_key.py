"""With an API key the object is fetched: a subscription's events in any order, while the objects at Stripe change.

Each event arrives at some time after it happened, and what is fetched then is Stripe's state of that time: newer than
the event, and perhaps not yet the last one. After all events our state is Stripe's final state.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.event import listen

from dev.simulators.http import Request
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Entitlement, Invoice, PaymentFailure, Subscription
from tests.integration.tasks.billing.test_any_order import assert_sane, planned
from tests.support.business import Business
from tests.support.lives import T0, Happened, buy_access
from tests.support.peers import Answer, Peer, Stripe
from tests.support.searching import searching
from tests.support.subscription_lives import BOUGHT, LIVES

STATES = {"invoice.paid": "paid", "invoice.voided": "void", "invoice.marked_uncollectible": "uncollectible"}
STATES["invoice.payment_succeeded"] = "paid"
UNTOLD = "paid, and Stripe has not said active yet"  # with an API key the status is fetched with the invoice
FETCHED = ("invoice", "customer.subscription")
# The checkout is finished before: its order exists already.
SINCE = {name: life.events[1:] for name, life in LIVES.items() if name != UNTOLD and life.events[0] is BOUGHT}
NAMES = [name for name, events in SINCE.items() if all(event.type.startswith(FETCHED) for event in events)]
Arrival = tuple[int, int]  # which event of the life, and how many had happened by then


class PlayedStripe:
    """Stripe as it was after so many events of a life (`happened`), by the newest API version."""

    def __init__(self, life: Sequence[Happened]) -> None:
        self.life = sorted(life, key=lambda event: event.created)
        self.happened = 0

    def __call__(self, request: Request) -> Answer:
        kind, _, which = request.path.removeprefix("/v1/").partition("?")[0].partition("/")
        if kind == "invoice_payments":
            return Answer(200, body=b'{"object": "list", "data": []}')
        found: dict[str, Any] | None = None
        for event in self.life[: self.happened]:
            if event.object["id"] == which:
                found = {**event.object, "status": self._status(event, found)}
        if found is None:
            return Answer(404, body=b'{"error": {"type": "invalid_request_error", "code": "resource_missing"}}')
        return Answer(200, body=json.dumps(_newest_shape(found)).encode())

    def _status(self, event: Happened, before: dict[str, Any] | None) -> str:
        if event.object["object"] == "subscription":
            return str(event.object["status"])
        return STATES.get(event.type) or (before["status"] if before else "open")


def _newest_shape(found: dict[str, Any]) -> dict[str, Any]:
    old = found.pop("subscription", None)
    details = {"type": "subscription_details", "subscription_details": {"subscription": old}}
    return found | {"parent": details} if old else found


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer(PlayedStripe([])) as peer:
        yield peer


@st.composite
def arrivals(draw: st.DrawFn, length: int) -> list[Arrival]:
    """A life's events in any order, some twice, none before it happened, while more and more has happened."""
    twice = draw(st.lists(st.integers(0, length - 1), max_size=4))
    order, happened, found = draw(st.permutations([*range(length), *twice])), 0, []
    for number in order:
        happened = draw(st.integers(max(happened, number + 1), length))
        found.append((number, happened))
    return found


def in_order(length: int) -> list[Arrival]:
    return [(number, number + 1) for number in range(length)]


def ends(migrated: Path, peer: Peer, life: Sequence[Happened], order: Sequence[Arrival]) -> dict[str, Any]:
    """The state after these arrivals, on a fresh database."""
    peer.reply = played = PlayedStripe(life)
    with TemporaryDirectory() as folder:
        shutil.copy(migrated, Path(folder) / "test.db")
        engine = make_engine(f"sqlite:///{folder}/test.db")
        listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        try:
            settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
            business = Business(make_sessions(engine), Path(folder), settings)
            buy_access(business)
            for minutes, (number, played.happened) in enumerate(order):
                business.now = datetime.fromtimestamp(T0 + 100_000, UTC) + timedelta(minutes=minutes)
                played.life[number].to(business)
                assert_sane(business)
            return known(business)
        finally:
            engine.dispose()


def known(business: Business) -> dict[str, Any]:
    row = business.one(select(Subscription))
    return {
        "status": (row.stripe_status, row.status),
        "invoices": sorted((each.id, each.state) for each in business.all(select(Invoice))),
        "failures": sorted(business.all(select(PaymentFailure.event_id))),
        "access": business.one(select(Entitlement.revoked_at)) is None,
        "planned": planned(business),
    }


@pytest.mark.parametrize("name", NAMES)
def test_events_in_any_order_while_stripe_changes_end_with_the_state_at_stripe(
    name: str, migrated_sqlite: Path, peer: Peer
) -> None:
    life, events = LIVES[name], SINCE[name]
    length = len(events)
    wanted = ends(migrated_sqlite, peer, events, in_order(length))
    assert wanted["status"][1] == life.status
    assert wanted["access"] is bool(life.given(life.status))

    @searching(quick=3, deep=1000)
    @given(arrivals(length))
    @example([(number, length) for number in reversed(range(length))])
    def same(order: list[Arrival]) -> None:
        assert ends(migrated_sqlite, peer, events, order) == wanted

    same()
