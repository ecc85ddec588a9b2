"""Order of arrival does not matter: a subscription's events, shuffled and doubled, end in the same rows.

What was done on the way (mails, planned retries, grace times) depends on what was known then; what must hold of it in
any order is held here too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.event import listen

from tasks.database import make_engine, make_sessions
from tasks.models import (
    Base,
    Charge,
    Dispute,
    Entitlement,
    Invoice,
    Notification,
    Order,
    PaymentFailure,
    PaymentGrace,
    PaymentRetry,
    Subscription,
)
from tests.business import Business
from tests.lives import T0, Happened, checkout, dispute, invoice, item, refund, subscription

FACTS: tuple[type[Base], ...] = (Subscription, Invoice, PaymentFailure, Charge, Dispute, Entitlement, Order)

CANCELLED = (
    subscription("created", 1, 0, "trialing"),
    subscription("trial_will_end", 2, 5, "trialing"),
    subscription("updated", 3, 10, "active"),
    invoice("payment_failed", 4, 10),
    invoice("payment_action_required", 5, 10),
    subscription("updated", 6, 11, "past_due"),
    invoice("payment_failed", 7, 20, attempt_count=2, next_payment_attempt=None),
    invoice("paid", 8, 30, next_payment_attempt=None),
    invoice("payment_succeeded", 9, 30, next_payment_attempt=None),
    subscription("updated", 10, 30, "active"),
    invoice("payment_failed", 11, 40, id="in_2", next_payment_attempt=None),
    subscription("deleted", 12, 50, "canceled"),
)
BOUGHT = checkout("completed", 100, 1)
FROM_ITEMS = {"metadata": {}, "line_items": {"object": "list", "data": [item("item", "basic")], "has_more": False}}
MOVED = (
    subscription("created", 1, 0, "active", "basic"),
    subscription("updated", 2, 10, "active", "pro"),
    invoice("paid", 3, 20, next_payment_attempt=None),
    subscription("updated", 4, 30, "active", "max"),
)


class Life(NamedTuple):
    """What happened, the subscription's status at the end, and what is in force then."""

    events: tuple[Happened, ...]
    status: str
    gives: tuple[str, ...] = ("club",)


def bought_then(status: str, *events: Happened, gives: tuple[str, ...] = ("club",)) -> Life:
    """A paid checkout, and what came of it."""
    return Life((BOUGHT, *events), status, gives)


LIVES: dict[str, Life] = {
    "cancelled at last": bought_then("canceled", *CANCELLED, gives=()),
    "paid after two failures": bought_then("active", *CANCELLED[:10]),
    "paid, and Stripe has not said active yet": bought_then("active", *CANCELLED[:9]),
    "past due, its grace running": bought_then("past_due", *CANCELLED[:7]),
    "another invoice failed since": bought_then("past_due", *CANCELLED[:11]),
    "only its invoices known": bought_then("active", *(e for e in CANCELLED[:8] if e.type.startswith("invoice"))),
    "unpaid by Stripe's own word": bought_then(
        "past_due",
        subscription("created", 1, 0, "active"),
        invoice("payment_failed", 2, 10),
        subscription("updated", 3, 20, "unpaid"),
    ),
    "written off": bought_then(
        "active",
        subscription("created", 1, 0, "active"),
        invoice("payment_failed", 2, 10, next_payment_attempt=None),
        invoice("marked_uncollectible", 3, 20),
        subscription("paused", 4, 21, "paused"),
        subscription("resumed", 5, 30, "active"),
    ),
    "refunded": bought_then(
        "active",
        subscription("created", 1, 0, "active"),
        invoice("paid", 2, 1, next_payment_attempt=None),
        refund(3, 20, made=1, invoice="in_1"),
        gives=(),
    ),
    "refunded, and renewed since": bought_then(
        "active",
        subscription("created", 1, 0, "active"),
        invoice("paid", 2, 1, next_payment_attempt=None),
        refund(3, 20, made=1, invoice="in_1"),
        invoice("payment_failed", 4, 30, id="in_2", created=T0 + 29),
        invoice("paid", 5, 40, id="in_2", created=T0 + 29, next_payment_attempt=None),
    ),
    "a dispute lost, and renewed since": bought_then(
        "active",
        subscription("created", 1, 0, "active"),
        invoice("paid", 2, 1, next_payment_attempt=None),
        refund(3, 15, made=1, invoice="in_1", amount_refunded=5, refunded=False),
        dispute("created", 4, 20, "needs_response"),
        dispute("closed", 5, 30, "lost"),
        invoice("paid", 6, 40, id="in_2", created=T0 + 39, next_payment_attempt=None),
    ),
    "void": bought_then(
        "active", invoice("payment_failed", 1, 10, next_payment_attempt=None), invoice("voided", 2, 10)
    ),
    "paid for by a transfer that takes days": Life(
        (
            checkout("completed", 100, 1, payment_status="unpaid"),
            checkout("async_payment_succeeded", 101, 50),
            *CANCELLED[:10],
        ),
        "active",
    ),
    "a transfer that never came": Life(
        (
            checkout("completed", 100, 1, payment_status="unpaid"),
            checkout("async_payment_failed", 101, 50, payment_status="unpaid"),
            subscription("created", 1, 0, "incomplete"),
            subscription("updated", 2, 60, "incomplete_expired"),
        ),
        "incomplete_expired",
        gives=(),
    ),
    "moved from plan to plan": Life((checkout("completed", 100, 1, **FROM_ITEMS), *MOVED), "active", ("max",)),
    "moved, and nobody told what was bought": Life(
        (checkout("completed", 100, 1, metadata={}), *MOVED), "active", ("max",)
    ),
    "moved, and the shop itself named what it sold": bought_then("active", *MOVED),
}


def play(business: Business, events: Sequence[Happened]) -> None:
    for event in events:
        event.to(business)
        assert_sane(business)


def facts(business: Business) -> dict[str, list[dict[str, Any]]]:
    """Every row but its times; of a time, whether there is one. How often access changed depends on the way."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table in FACTS:
        rows = [{c.key: getattr(row, c.key) for c in row.__mapper__.columns} for row in business.all(select(table))]
        plain = [
            {
                name: value is not None if isinstance(value, datetime) else value
                for name, value in row.items()
                if name != "access_changes"
            }
            for row in rows
        ]
        found[table.__name__] = sorted(plain, key=str)
    found["Entitlement"] = without_history(found["Entitlement"])
    return found


def without_history(entitlements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is in force; beside it, what no longer is depends on the way: of a plan that is over one may not hear."""
    kept = [row for row in entitlements if row["revoked_at"] is None] or entitlements
    return [{name: value for name, value in row.items() if name != "id"} for row in kept]


def planned(business: Business) -> set[str]:
    """Invoices for which something is planned."""
    return {
        row.invoice
        for table in (PaymentGrace, PaymentRetry)
        for row in business.all(select(table))
        if row.done_at is None
    }


def assert_sane(business: Business) -> None:
    """What must hold after each event, whatever came before."""
    still_open = {row.id for row in business.all(select(Invoice).filter_by(state="open"))}
    assert planned(business) <= still_open
    told = [(row.about, row.kind) for row in business.all(select(Notification)) if row.about.startswith("in_")]
    thanked = [about for about, kind in told if kind == "payment_recovered"]
    assert len(thanked) == len(set(thanked))
    assert set(thanked) <= {about for about, kind in told if kind != "payment_recovered"}


def ends(migrated: Path, url: str | None, events: Sequence[Happened]) -> tuple[Any, ...]:
    """The rows, and for which invoices something is planned, after these events on a fresh database."""
    with tempfile.TemporaryDirectory() as folder:
        if url is None:
            shutil.copy(migrated, Path(folder) / "test.db")
            url = f"sqlite:///{folder}/test.db"
        engine = make_engine(url)
        if engine.dialect.name == "sqlite":  # no power is cut here, and fsyncs are most of the time it takes
            listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        try:
            business = Business(make_sessions(engine), Path(folder))
            play(business, events)
            return facts(business), planned(business)
        finally:
            engine.dispose()


@st.composite
def arrivals(draw: st.DrawFn, life: tuple[Happened, ...]) -> list[Happened]:
    """A life's events in any order, some of them twice."""
    twice = draw(st.lists(st.sampled_from(life), max_size=4))
    return draw(st.permutations([*life, *twice]))


@pytest.mark.parametrize("name", LIVES)
def test_any_order_of_arrival_with_duplicates_ends_in_the_same_rows(name: str, migrated_sqlite: Path) -> None:
    life, status, gives = LIVES[name]
    wanted = ends(migrated_sqlite, None, life)
    assert wanted[0]["Subscription"][0]["status"] == status
    assert tuple(row["product"] for row in wanted[0]["Entitlement"] if row["revoked_at"] is None) == gives

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(arrivals(life))
    @example(list(reversed(life)))
    def same(events: list[Happened]) -> None:
        assert ends(migrated_sqlite, None, events) == wanted

    same()


@pytest.mark.parametrize("name", LIVES)
def test_backwards_and_twice_it_ends_the_same_on_postgres(name: str, migrated_sqlite: Path, postgres: Any) -> None:
    life = LIVES[name].events
    backwards = [*reversed(life), *life]
    assert ends(migrated_sqlite, postgres.fresh(), backwards) == ends(migrated_sqlite, None, life)
