"""Every statement of a subscription's life finds its rows by an index, whatever else the tables hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from dev.stack.postgres import Postgres
from tasks.db.engine import make_engine, make_sessions
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.databases import fresh_postgres
from tests.support.lives import checkout, dispute, invoice, item, refund, subscription

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
ITEMS = {"metadata": {}, "line_items": {"object": "list", "data": [item("item", "club")], "has_more": False}}
LAST: dict[str, Any] = {"id": "in_2", "next_payment_attempt": None}
LIFE = (
    subscription("created", 1, 0, "active", "club"),
    checkout("completed", 2, 1, payment_intent="pi_1", **ITEMS),
    invoice("paid", 3, 2, billing_reason="subscription_create", next_payment_attempt=None),
    invoice("payment_failed", 4, 10, **LAST),
    subscription("updated", 5, 11, "past_due", "club"),
    invoice("marked_uncollectible", 6, 12, **LAST),
    invoice("paid", 7, 20, **LAST),
    subscription("updated", 8, 21, "active", "club"),
    refund(3, 30, 20, "in_2", amount_refunded=500, refunded=False),
    dispute("created", 10, 40, "needs_response"),
    subscription("deleted", 12, 50, "canceled", "club"),
)


@pytest.fixture
def engine(postgres: Postgres) -> Iterator[Engine]:
    """On Postgres, where a plan reads a whole table only if it must."""
    engine = make_engine(fresh_postgres(postgres))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("SET LOCAL enable_seqscan = off"))
    yield engine
    engine.dispose()


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for one in plan.get("Plans", ()):
        yield from steps(one)


def reads_all(step: dict[str, Any]) -> bool:
    """Whether a step reads a whole table, or a whole index in place of it."""
    kind = step["Node Type"]
    return kind == "Seq Scan" or (kind in ("Index Scan", "Index Only Scan") and "Index Cond" not in step)


@pytest.mark.parametrize("entitlements", ["fulfilment", "stripe"])
def test_no_event_of_a_subscription_reads_a_whole_table(engine: Engine, tmp_path: Path, entitlements: str) -> None:
    found: dict[str, list[str]] = {}

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            found[statement] = [
                step["Relation Name"] for step in steps(cursor.fetchone()[0][0]["Plan"]) if reads_all(step)
            ]

    event.listen(engine, "before_cursor_execute", explain)
    business = Business(make_sessions(engine), tmp_path, {"ENTITLEMENTS": entitlements, **APP})
    for happened in LIFE:
        happened.to(business)
    assert {statement: tables for statement, tables in found.items() if tables} == {}
