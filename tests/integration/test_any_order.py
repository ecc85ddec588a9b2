"""Order of arrival does not matter: a subscription's events, shuffled and doubled, end in the same rows.

What was done on the way (mails, planned retries, grace times) depends on what was known then; what must hold of it in
any order is held here too. So is what they end in once the grace times are over.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
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
from tasks.payments import end_grace
from tests.business import NOW, Business
from tests.lives import T0, Happened, dispute, invoice, refund, subscription
from tests.searching import searching

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
SENT: dict[str, Any] = {"collection_method": "send_invoice", "next_payment_attempt": None}
GIVEN_UP_AND_RENEWED = (
    subscription("created", 1, 0, "active"),
    invoice("payment_failed", 2, 10, next_payment_attempt=None),
    subscription("updated", 3, 11, "past_due"),
    invoice("paid", 4, 40, id="in_2", created=T0 + 39, next_payment_attempt=None),
    subscription("updated", 5, 41, "active"),
)


@dataclass(frozen=True, slots=True)
class Life:
    """What happened, the status that it ends in, and that after every grace time that is planned then."""

    events: tuple[Happened, ...]
    status: str
    in_the_end: str = ""  # the same, unless it is told
    access: bool = True  # as far as the status gives it


LIVES: dict[str, Life] = {
    "cancelled at last": Life(CANCELLED, "canceled"),
    "paid after two failures": Life(CANCELLED[:10], "active"),
    "paid, and Stripe has not said active yet": Life(CANCELLED[:9], "active"),
    "past due, its grace running": Life(CANCELLED[:7], "past_due", "suspended"),
    "another invoice failed since": Life(CANCELLED[:11], "past_due", "suspended"),
    "only its invoices known": Life(tuple(e for e in CANCELLED[:8] if e.type.startswith("invoice")), "active"),
    "unpaid by Stripe's own word": Life(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10),
            subscription("updated", 3, 20, "unpaid"),
        ),
        "past_due",
        "suspended",
    ),
    "written off": Life(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10, next_payment_attempt=None),
            invoice("marked_uncollectible", 3, 20),
            subscription("paused", 4, 21, "paused"),
            subscription("resumed", 5, 30, "active"),
        ),
        "past_due",
        "suspended",
    ),
    "written off, and renewed since": Life(
        (*GIVEN_UP_AND_RENEWED, invoice("marked_uncollectible", 6, 20)),
        "active",
    ),
    "written off, and paid after all": Life(
        (
            *GIVEN_UP_AND_RENEWED[:3],
            invoice("marked_uncollectible", 6, 20),
            invoice("paid", 7, 30),
            subscription("updated", 8, 31, "active"),
        ),
        "active",
    ),
    "written off, and nobody had failed to pay": Life(
        (subscription("created", 1, 0, "active"), invoice("marked_uncollectible", 2, 20)),
        "active",
    ),
    "refunded, and renewed since": Life(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 2, 1, next_payment_attempt=None),
            refund(3, 20, made=1, invoice="in_1"),
            invoice("payment_failed", 4, 30, id="in_2", created=T0 + 29),
            invoice("paid", 5, 40, id="in_2", created=T0 + 29, next_payment_attempt=None),
        ),
        "active",
    ),
    "a dispute lost, and renewed since": Life(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 2, 1, next_payment_attempt=None),
            refund(3, 15, made=1, invoice="in_1", amount_refunded=5, refunded=False),
            dispute("created", 4, 20, "needs_response"),
            dispute("closed", 5, 30, "lost"),
            invoice("paid", 6, 40, id="in_2", created=T0 + 39, next_payment_attempt=None),
        ),
        "active",
    ),
    "never paid, and a newer invoice paid": Life(GIVEN_UP_AND_RENEWED, "active"),
    "the newest never paid, and an older one paid late": Life(
        (
            *GIVEN_UP_AND_RENEWED[:4],
            invoice("payment_failed", 6, 60, id="in_3", created=T0 + 59, next_payment_attempt=None),
            invoice("paid", 7, 70, next_payment_attempt=None),
        ),
        "past_due",
        "suspended",
    ),
    "never paid, and a newer invoice of nothing": Life(
        (*GIVEN_UP_AND_RENEWED[:3], invoice("paid", 4, 40, id="in_2", created=T0 + 39, amount_due=0, total=0)),
        "past_due",
        "suspended",
    ),
    "a sign-up that was never paid": Life(
        (
            invoice("payment_failed", 1, 10, billing_reason="subscription_create"),
            subscription("created", 2, 10, "incomplete"),
            invoice("payment_action_required", 3, 20, billing_reason="subscription_create"),
            subscription("updated", 4, 90_000, "incomplete_expired"),
            invoice("voided", 5, 90_000, billing_reason="subscription_create"),
        ),
        "incomplete_expired",
    ),
    "a sign-up of which only the invoice is known": Life(
        (invoice("payment_failed", 1, 10, billing_reason="subscription_create", next_payment_attempt=None),),
        "incomplete",
    ),
    "sent to be paid by hand, and not yet due": Life(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10, **SENT, due_date=None),
        ),
        "past_due",
    ),
    "sent to be paid by hand, and never paid": Life(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10, **SENT, due_date=T0 + 30 * 86400),
        ),
        "past_due",
        "suspended",
    ),
    "refunded, and a difference paid since": Life(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 2, 1, next_payment_attempt=None),
            refund(3, 20, made=1, invoice="in_1"),
            invoice("paid", 4, 40, id="in_2", created=T0 + 39, billing_reason="subscription_update"),
        ),
        "active",
        access=False,
    ),
    "void": Life(
        (invoice("payment_failed", 1, 10, next_payment_attempt=None), invoice("voided", 2, 10)),
        "active",
    ),
}


def buy_access(business: Business) -> None:
    with business.sessions() as db:
        ids = {"customer": "cus_1", "subscription": "sub_1", "invoice": "in_1"}
        db.add(Order(session_id="cs_1", state="fulfilled", amount_total=1, currency="eur", created_at=NOW, **ids))
        db.flush()
        db.add(Entitlement(session_id="cs_1", product="club", subscription="sub_1", granted_at=NOW))
        db.commit()


def play(business: Business, events: Sequence[Happened]) -> None:
    buy_access(business)
    for event in events:
        event.to(business)
        assert_sane(business)


def facts(business: Business) -> dict[str, list[dict[str, Any]]]:
    """Every row but its times; of a time, whether there is one. How often access changed depends on the way."""
    found = {}
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
    return found


def planned(business: Business, *tables: type[PaymentGrace] | type[PaymentRetry]) -> set[str]:
    """Invoices for which something is planned."""
    return {
        row.invoice
        for table in tables or (PaymentGrace, PaymentRetry)
        for row in business.all(select(table))
        if row.done_at is None
    }


def assert_sane(business: Business) -> None:
    """What must hold after each event, whatever came before."""
    now = {row.id: row.state for row in business.all(select(Invoice))}
    assert {now[invoice] for invoice in planned(business, PaymentRetry)} <= {"open"}
    assert {now[invoice] for invoice in planned(business, PaymentGrace)} <= {"open", "uncollectible"}
    told = [(row.about, row.kind) for row in business.all(select(Notification)) if row.about.startswith("in_")]
    thanked = [about for about, kind in told if kind == "payment_recovered"]
    assert len(thanked) == len(set(thanked))
    assert set(thanked) <= {about for about, kind in told if kind != "payment_recovered"}


def end_graces(business: Business) -> None:
    """Time goes by: every grace time that is planned ends."""
    for number, grace in enumerate(business.all(select(PaymentGrace).filter_by(state="planned"))):
        args = {"invoice": grace.invoice, "number": grace.number}
        business.run(end_grace, {"id": "evt_1"}, effect=f"end of grace {number}", args=args)
        assert_sane(business)


def ends(migrated: Path, url: str | None, events: Sequence[Happened]) -> tuple[Any, ...]:
    """The rows after these events on a fresh database, for which invoices something is planned, the rows in the end."""
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
            then = facts(business), planned(business)
            end_graces(business)
            return *then, facts(business)
        finally:
            engine.dispose()


@st.composite
def arrivals(draw: st.DrawFn, life: Sequence[Happened]) -> list[Happened]:
    """A life's events in any order, some of them twice."""
    twice = draw(st.lists(st.sampled_from(life), max_size=4))
    return draw(st.permutations([*life, *twice]))


@pytest.mark.parametrize("name", LIVES)
def test_any_order_of_arrival_with_duplicates_ends_in_the_same_rows(name: str, migrated_sqlite: Path) -> None:
    life = LIVES[name]
    wanted = ends(migrated_sqlite, None, life.events)
    for rows, status in ((wanted[0], life.status), (wanted[2], life.in_the_end or life.status)):
        assert rows["Subscription"][0]["status"] == status
        access = life.access and status in ("active", "past_due")
        assert rows["Entitlement"][0]["revoked_at"] is (None if access else True)

    @searching(quick=12, deep=2000)
    @given(arrivals(life.events))
    @example(list(reversed(life.events)))
    def same(events: list[Happened]) -> None:
        assert ends(migrated_sqlite, None, events) == wanted

    same()


@pytest.mark.parametrize("name", LIVES)
def test_backwards_and_twice_it_ends_the_same_on_postgres(name: str, migrated_sqlite: Path, postgres: Any) -> None:
    life = LIVES[name].events
    backwards = [*reversed(life), *life]
    assert ends(migrated_sqlite, postgres.fresh(), backwards) == ends(migrated_sqlite, None, life)
