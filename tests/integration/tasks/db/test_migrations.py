"""Migrations from an earlier schema, with its rows, on both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from dev.stack.postgres import Postgres
from tasks.db.engine import make_engine
from tasks.db.migrate import MIGRATIONS, _config, migrate
from tasks.models import Agent, Entitlement, Notification, Order, PaymentFailure, Subscription
from tests.support.databases import empty_postgres


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> str:
    """The URL of an empty database."""
    return empty_postgres(postgres) if request.param == "postgres" else f"sqlite:///{tmp_path / 'old.db'}"


def at_revision(url: str, revision: str) -> Engine:
    """The database with the schema of an earlier version."""
    engine, config = make_engine(url), _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def test_links_to_documents_leave_the_notifications_and_the_document_stays_known(empty: str) -> None:
    engine = at_revision(empty, "0001")
    rows = {
        "document_ready": {"document": "d", "link": "https://us.example/content/doc_1?until=9&signature=ab"},
        "receipt": {"link": "https://pay.example/i"},
    }
    with engine.begin() as db:
        for kind, params in rows.items():
            db.execute(
                text(
                    "INSERT INTO notifications (id, kind, audience, about, params, state, sent_by, created_at)"
                    " VALUES (:kind, :kind, 'customer', '', :params, 'owed', '[]', '2026-03-01 00:00:00')"
                ),
                {"kind": kind, "params": json.dumps(params)},
            )
    migrate(empty)
    with Session(engine) as db:
        found = {row.kind: row.params for row in db.scalars(select(Notification))}
    engine.dispose()
    assert found == {"document_ready": {"document": "d", "link_to": "doc_1"}, "receipt": rows["receipt"]}


OLD_INSERT = """INSERT INTO subscriptions (id, customer, seen_created, seen_event, status, updated_at)
    VALUES (:id, 'cus_1', 0, '', 'active', '2026-03-01 00:00:00')"""


def test_what_workers_of_the_earlier_schema_insert_is_of_our_own_account(empty: str) -> None:
    engine = at_revision(empty, "0002")
    for row in ("sub_before", "sub_after"):
        with engine.begin() as db:
            db.execute(text(OLD_INSERT), {"id": row})
        migrate(empty)
    with Session(engine) as db:
        assert set(db.scalars(select(Subscription.account))) == {""}
    engine.dispose()


def test_the_migrations_are_one_line_in_the_order_of_their_files() -> None:
    files = sorted(file.stem[:4] for file in (MIGRATIONS / "versions").glob("*.py"))
    script = ScriptDirectory.from_config(_config())
    assert [one.revision for one in reversed(list(script.walk_revisions()))] == files


def test_added_agents_keep_the_secrets_they_were_given_and_an_old_worker_can_add_urls(empty: str) -> None:
    engine = at_revision(empty, "0004")
    add = (
        "INSERT INTO agents (id, name, url, state, rate_per_minute, failures) VALUES (:id, :name, :id, 'active', 60, 0)"
    )
    with engine.begin() as db:
        db.execute(text(add), [{"id": "added", "name": "hub"}, {"id": "url", "name": None}])
    migrate(empty)
    with engine.begin() as db:
        db.execute(text(add), {"id": "later", "name": None})
    with Session(engine) as db:
        numbers = {agent.id: agent.secret_number for agent in db.scalars(select(Agent))}
    engine.dispose()
    assert numbers == {"added": 0, "url": 1, "later": 1}


def failed(event_id: str, created: int, attempt_count: int = 1) -> dict[str, object]:
    return {"id": event_id, "created": created, "count": attempt_count}


def test_of_failures_that_several_events_reported_the_newest_stays_and_an_old_worker_adds_no_second_one(
    empty: str,
) -> None:
    engine = at_revision(empty, "0006")
    add = (
        "INSERT INTO payment_failures (event_id, kind, invoice, customer, amount_due, currency, attempt_count,"
        " created, recorded_at) VALUES (:id, 'payment_failed', 'in_1', 'cus_1', 1, '', :count, :created, '2026-03-01')"
        " ON CONFLICT DO NOTHING"
    )
    with engine.begin() as db:
        db.execute(text(add), [failed("evt_b", 7), failed("evt_c", 7), failed("evt_a", 8), failed("evt_d", 9, 2)])
    migrate(empty)
    with engine.begin() as db:
        db.execute(text(add), failed("evt_e", 10))
    with Session(engine) as db:
        assert set(db.scalars(select(PaymentFailure.event_id))) == {"evt_a", "evt_d"}
    engine.dispose()


def order_row(key: str, bought: list[dict[str, object]], subscription: str | None = None) -> dict[str, object]:
    return {"id": key, "bought": json.dumps(bought), "subscription": subscription, "customer": f"cus_{key}"}


RENEWS: dict[str, object] = {"price": "price_1", "product": "basic", "quantity": 1, "renews": True}
ONCE: dict[str, object] = {"price": "price_2", "product": "book", "quantity": 1, "renews": False}
NAMED: dict[str, object] = {"price": None, "product": "club", "quantity": 1, "renews": False}


def test_access_of_orders_becomes_access_of_orders_and_subscriptions_and_nobody_loses_it(empty: str) -> None:
    engine = at_revision(empty, "0006")
    orders = [
        order_row("cs_once", [ONCE]),
        order_row("cs_plan", [RENEWS], "sub_plan"),
        order_row("cs_both", [RENEWS, ONCE], "sub_both"),
        order_row("cs_named", [NAMED], "sub_named"),
        order_row("cs_default", []),
        order_row("sub_direct", [], "sub_direct"),
    ]
    held = [
        ("cs_once", "book"),
        ("cs_plan", "basic"),
        ("cs_both", "basic"),
        ("cs_both", "book"),
        ("cs_named", "club"),
        ("cs_default", "default"),
        ("sub_direct", "pro"),
    ]
    with engine.begin() as db:
        for row in orders:
            db.execute(
                text(
                    "INSERT INTO orders (session_id, state, customer, subscription, amount_total, currency, bought,"
                    " access_changes, created_at) VALUES (:id, 'fulfilled', :customer, :subscription, 1, 'eur',"
                    " :bought, 1, '2026-03-01 00:00:00+00')"
                ),
                row,
            )
        by_id = {row["id"]: row for row in orders}
        for session, product in held:
            db.execute(
                text(
                    "INSERT INTO entitlements (session_id, product, customer, subscription, granted_at)"
                    " VALUES (:id, :product, :customer, :subscription, '2026-03-01 00:00:00+00')"
                ),
                {**by_id[session], "product": product},
            )
    migrate(empty)
    with Session(engine) as db:
        found = {(row.source, row.product, row.holder) for row in db.scalars(select(Entitlement))}
        names = set(db.scalars(select(Order.session_id)))
        bought = {row.session_id: (row.product, row.bought) for row in db.scalars(select(Order))}
    engine.dispose()
    assert found == {
        ("cs_once", "book", "cus_cs_once"),
        ("sub_plan", "basic", "cus_cs_plan"),
        *((source, name, "cus_cs_both") for source in ("cs_both", "sub_both") for name in ("basic", "book")),
        ("sub_named", "club", "cus_cs_named"),
        ("cs_default", "default", "cus_cs_default"),
        ("sub_direct", "pro", "cus_sub_direct"),
    }
    assert names == {"cs_once", "cs_plan", "cs_both", "cs_named", "cs_default"}
    assert bought["cs_named"] == ("club", [])
    assert bought["cs_default"][1][0]["product"] == "default"
