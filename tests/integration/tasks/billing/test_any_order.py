"""Order of arrival does not matter: a subscription's events, shuffled and doubled, end in the same rows.

What was done on the way (mails, planned retries, grace times) depends on what was known then; what must hold of it in
any order is held here too. So is what they end in once the grace times are over.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.event import listen

from tasks.billing.payments import end_grace_period
from tasks.db.engine import make_engine, make_sessions
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
from tests.support.business import Business
from tests.support.databases import fresh_postgres
from tests.support.lives import Happened
from tests.support.searching import searching
from tests.support.subscription_lives import LIVES

FACTS: tuple[type[Base], ...] = (Subscription, Invoice, PaymentFailure, Charge, Dispute, Entitlement, Order)


def play(business: Business, events: Sequence[Happened]) -> None:
    for event in events:
        event.to(business)
        assert_sane(business)


def facts(business: Business) -> dict[str, list[dict[str, Any]]]:
    """All rows; of a time only whether it is set. Without how often access changed, which depends on the order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table in FACTS:
        rows = [{c.key: getattr(row, c.key) for c in row.__mapper__.columns} for row in business.all(select(table))]
        plain = [
            {
                name: value is not None if isinstance(value, datetime) else value
                for name, value in row.items()
                if name != "changes"
            }
            for row in rows
        ]
        found[table.__name__] = sorted(plain, key=str)
    found["Entitlement"] = without_history(found["Entitlement"])
    return found


def without_history(entitlements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entitlements in force. Revoked ones depend on the order: a plan that is over may never have been seen."""
    kept = [row for row in entitlements if row["revoked_at"] is None] or entitlements
    return [{name: value for name, value in row.items() if name != "id"} for row in kept]


def planned(business: Business, *tables: type[PaymentGrace] | type[PaymentRetry]) -> set[str]:
    """Invoices with a planned retry or grace period."""
    return {
        row.invoice
        for table in tables or (PaymentGrace, PaymentRetry)
        for row in business.all(select(table))
        if row.done_at is None
    }


def assert_sane(business: Business) -> None:
    """What must hold after each event, whichever came before."""
    now = {row.id: row.state for row in business.all(select(Invoice))}
    assert {now[invoice] for invoice in planned(business, PaymentRetry)} <= {"open"}
    assert {now[invoice] for invoice in planned(business, PaymentGrace)} <= {"open", "uncollectible"}
    told = [(row.about, row.kind) for row in business.all(select(Notification)) if row.about.startswith("in_")]
    thanked = [about for about, kind in told if kind == "payment_recovered"]
    assert len(thanked) == len(set(thanked))
    assert set(thanked) <= {about for about, kind in told if kind != "payment_recovered"}


def end_graces(business: Business) -> None:
    """End every planned grace period."""
    for number, grace in enumerate(business.all(select(PaymentGrace).filter_by(state="planned"))):
        args = {"invoice": grace.invoice, "number": grace.number}
        business.run(end_grace_period, {"id": "evt_1"}, effect=f"end of grace {number}", args=args)
        assert_sane(business)


def ends(migrated: Path, url: str | None, events: Sequence[Happened]) -> tuple[Any, ...]:
    """On a fresh database: the rows after these events, the invoices with plans, the rows after all grace periods."""
    with tempfile.TemporaryDirectory() as folder:
        if url is None:
            shutil.copy(migrated, Path(folder) / "test.db")
            url = f"sqlite:///{folder}/test.db"
        engine = make_engine(url)
        if engine.dialect.name == "sqlite":  # no power fails here, and fsync takes most of the time
            listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        try:
            business = Business(make_sessions(engine), Path(folder), {"ACCESS_AFTER_REFUND": "revoke"})
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
        in_force = [row["product"] for row in rows["Entitlement"] if row["revoked_at"] is None]
        assert tuple(in_force) == life.given(status)

    @searching(quick=12, deep=2000)
    @given(arrivals(life.events))
    @example(list(reversed(life.events)))
    def same(events: list[Happened]) -> None:
        assert ends(migrated_sqlite, None, events) == wanted

    same()


@pytest.mark.parametrize("name", LIVES)
def test_in_reverse_and_twice_it_ends_the_same_on_postgres(name: str, migrated_sqlite: Path, postgres: Any) -> None:
    life = LIVES[name].events
    backwards = [*reversed(life), *life]
    assert ends(migrated_sqlite, fresh_postgres(postgres), backwards) == ends(migrated_sqlite, None, life)
