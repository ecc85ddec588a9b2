"""Rightly signed, yet absurd: what a sender's bug, or a customer who writes into its fields, can make of a payload.

Every field of a good payload is replaced by every absurd value. Each delivery is refused in words, or its jobs end as
done or dead for a reason that names the field; nothing is tried fifteen times, and the next good event goes through.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import Client

from dev.stack.servers import Valkey
from inbox import find, queries
from inbox.find import Filter
from inbox.job import Doorbell
from inbox.store import Store
from settings import Settings, load
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Document, Entitlement
from tasks.routes import TASKS
from tests.conftest import fresh_database
from tests.support.asgi_client import asgi_client
from tests.support.business import NOW
from tests.support.running import run
from tests.support.signed_deliveries import API_KEY, DOC_SECRET, STRIPE_SECRET, signed_by_documents, signed_by_stripe
from workers.run import AttemptFailed, Runner

NOISE = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))  # no database packs it
ABSURD = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "negative": "-1",
    "over 32 bits": str(2**31),
    "over 63 bits": str(2**63),
    "under 63 bits": str(-(2**63)),
    "huge": "9" * 5000,
    "fraction": "0.5",
    "tiny": "-1e-300",
    "big float": "1e308",
    "empty": '""',
    "long": json.dumps(NOISE),
    "NUL": '"a\\u0000b"',
    "lone surrogate": '"\\ud800"',
    "surrogates the wrong way round": '"\\udc00\\ud800"',
    "right to left": '"\\u202e\\u2066gro.elpmaxe@ada"',
    "line breaks": '"a\\r\\nBcc: eve@example.com"',
    "template": '"$amount ${link} {email} %s"',
    "URL of nothing": '"https://"',
    "URL with a long label": json.dumps(f"https://{'a' * 300}.example/"),
    "URL with a bad port": '"https://example.com:99999/"',
    "URL with a broken address": '"https://[::1/"',
    "URL of a file": '"file:///etc/passwd"',
    "URL with control characters": '"https://docs.example/\\r\\nX: y"',
    "list": "[]",
    "nested list": '[["a"], null, {"id": 1}]',
    "object": "{}",
    "object with odd id": '{"id": {"id": 7}}',
    "object with long id": json.dumps({"id": NOISE}),
    "deep": "[" * 800 + "]" * 800,
}
NO_JSON = {
    "no float": "1e999",
    "too deep": "[" * 100_000 + "]" * 100_000,
    "not a number": "NaN",
    "control character": '"\x01"',
}
TASK = "task_1"
PLACEHOLDER = "@@absurd@@"

INVOICE = {
    "customer": "cus_1",
    "customer_email": "ada@example.com",
    "customer_phone": "+49 30 1234567",
    "subscription": "sub_1",
    "parent": {"subscription_details": {"subscription": "sub_1"}},
    "amount_due": 1050,
    "currency": "usd",
    "attempt_count": 1,
    "hosted_invoice_url": "https://pay.example/in_1",
}
SESSION = {
    "payment_status": "paid",
    "customer": "cus_1",
    "client_reference_id": "user_1",
    "subscription": "sub_1",
    "amount_total": 1050,
    "currency": "usd",
    "customer_details": {"email": "ada@example.com", "phone": "+49 30 1234567"},
    "customer_email": None,
    "metadata": {"product": None},
    "line_items": {"data": [{"price": {"product": "prod_1"}}]},
}
GOOD: dict[str, Any] = {
    "invoice": {"type": "invoice.payment_failed", "created": 1, "data": {"object": {"id": "in_1", **INVOICE}}},
    "subscription": {
        "type": "customer.subscription.trial_will_end",
        "created": 1,
        "data": {"object": {"id": "sub_1", "customer": "cus_1", "status": "trialing", "trial_end": 2}},
    },
    "session": {"type": "checkout.session.completed", "data": {"object": {"id": "cs_1", **SESSION}}},
    "completed": {"task_id": TASK, "status": "completed", "result_url": "https://127.0.0.1/r"},
    "failed": {"task_id": TASK, "status": "failed", "error_message": "no such page"},
    "progress": {"task_id": TASK, "status": "processing", "progress": 40},
    "document": {
        "document_id": "doc_1",
        "options": {"format": "PDF", "ocr": True, "more": {"x": 1}},
        "notify": {"email": "ada@example.com", "agents": ["https://agent.example/"]},
    },
}
# Not the payload's fault: another try may find the world as it should be.
WAITS_FOR_THE_WORLD = re.compile(r"the task is not known yet|\S+ did not answer \(\w+\)|the document service did not")
TOMORROW = "tasks.document_starts.deadline"
UNKNOWN_ERROR = re.compile(r" at (\S+:\d+|an unknown place)$")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field, at any depth."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, inner in items:
        yield (*path, name)
        yield from places(inner, (*path, name))


def spoilt(good: Any, path: tuple[Any, ...], absurd: str) -> str:
    """The good payload as JSON, with an absurd value at one place."""
    copy = json.loads(json.dumps(good))
    parent = copy
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = PLACEHOLDER
    return json.dumps(copy).replace(f'"{PLACEHOLDER}"', absurd)


class House:
    """The receiver, and a worker for all queues that does at once whatever it is told of."""

    def __init__(self, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
        self.client: Client = asgi_client(settings)
        self.store = store
        self.todo: list[Doorbell] = []
        self.runner = Runner(store, sessions, settings, self.todo.extend, "worker-1")

    def deliver(self, kind: str, body: str, number: int) -> bool:
        """Have it received as a new event; says whether it is recorded now, rather than refused in words."""
        self._document_is_open()
        accepted = queries.stats(self.store)["accepted"]
        if kind == "document":
            path, raw, headers = "/api/v1/documents", body.encode(), {"Authorization": f"Bearer {API_KEY}"}
        elif kind in ("invoice", "subscription", "session"):
            path = "/stripe-webhook"
            raw, headers = signed_by_stripe(f'{{"id": "evt_{number}", {body[1:]}')
        else:
            path = "/doc-status-webhook"
            raw, headers = signed_by_documents(body, f"msg_{number}")
        response = self.client.post(path, data=raw, headers=headers)
        taken = queries.stats(self.store)["accepted"] - accepted
        assert (response.status_code, taken) in ((200, 1), (202, 1), (400, 0)), response.get_json()
        assert NOISE not in response.text
        return bool(taken)

    def work(self) -> list[dict[str, Any]]:
        """Do everything that is owed now, follow-ups too; returns the jobs as they are then."""
        self.todo += [Doorbell(job["id"], job["task"], job["queue"]) for job in self.newest_jobs()]
        while self.todo:
            bell = self.todo.pop(0)
            module, _, function = TASKS[bell.task].handler.partition(":")
            with contextlib.suppress(AttemptFailed):
                run(self.runner, getattr(importlib.import_module(module), function), bell.job_id, "", 60)
        return self.newest_jobs()

    def newest_jobs(self) -> list[dict[str, Any]]:
        """Of the event that came last."""
        (newest,) = find.search(self.store, "events", Filter(), 1).rows
        event = queries.find_event(self.store, newest["source"], newest["id"])
        return list(event["jobs"]) if event else []

    def _document_is_open(self) -> None:
        """The one that the callbacks are about."""
        with self.runner.sessions() as db:
            row = db.get(Document, "doc_1") or Document(id="doc_1", document_id="d", notify_agents=[], created_at=NOW)
            row.status, row.progress, row.task_id, row.updated_at = "processing", 0, TASK, NOW
            db.add(row)
            db.commit()


@pytest.fixture
def house(valkey: Valkey, real_store: Store, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    database = fresh_database(request, "postgres")  # it minds more than SQLite does
    environ = {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": database,
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
        "DOC_WEBHOOK_SECRET": DOC_SECRET,
        "HANDOFF_SECRET": DOC_SECRET,
        "API_KEYS": API_KEY,
        "DOC_SERVICE_URL": "http://127.0.0.1:9",
        "PUBLIC_URL": "https://holdfast.example",
        "DOCUMENT_STORE": str(tmp_path / "documents"),
    }
    engine = make_engine(database)
    yield House(load(environ), real_store, make_sessions(engine))
    engine.dispose()


def cases(kind: str) -> Iterator[tuple[str, str]]:
    """What is wrong, and the payload as JSON."""
    good = GOOD[kind]
    for path in places(good):
        for name, absurd in ABSURD.items():
            yield f"{path} is {name}", spoilt(good, path, absurd)
    *_, last = places(good)
    for name, absurd in NO_JSON.items():
        yield f"{last} is {name}", spoilt(good, last, absurd)
        yield f"a field nobody reads is {name}", spoilt({**good, "extra": None}, ("extra",), absurd)
    yield "every field twice", json.dumps(good)[:-1] + ", " + json.dumps(good)[1:]


@pytest.mark.parametrize("kind", GOOD)
def test_an_absurd_value_in_any_field_is_refused_or_done_or_dead_for_a_reason(house: House, kind: str) -> None:
    house.store.client.config_set("appendfsync", "no")  # 1000 events are quicker so
    strange = []
    for n, (what, body) in enumerate(cases(kind)):
        if not house.deliver(kind, body, n):
            continue
        for job in house.work():
            reason = job["reason"] or ""
            waits = job["task"] == TOMORROW or WAITS_FOR_THE_WORLD.match(reason)
            ended = waits or job["state"] in ("succeeded", "dead")
            if not ended or UNKNOWN_ERROR.search(reason) or NOISE in reason:
                strange.append((what, job["task"], job["state"], reason[:200]))
    house.store.client.config_set("appendfsync", "always")
    assert strange == []
    assert house.deliver(kind, json.dumps(GOOD[kind]), -1)
    assert house.work()[0]["state"] == "succeeded"


@pytest.mark.parametrize(
    "text", ['"a\\u0000b"', '"cut emoji \\ud83d"', '"\\udc00\\ud800"'], ids=["NUL", "half", "swapped"]
)
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("invoice", ("data", "object", "customer_email")),
        ("invoice", ("data", "object", "hosted_invoice_url")),
        ("invoice", ("data", "object", "number")),
        ("invoice", ("data", "object", "customer_name")),
        ("session", ("data", "object", "line_items", "data", 0, "description")),
        ("session", ("data", "object", "metadata", "product")),
        ("session", ("data", "object", "customer_details", "name")),
        ("failed", ("error_message",)),
        ("completed", ("note",)),
        ("progress", ("progress",)),
    ],
)
def test_a_text_that_cannot_be_stored_costs_no_event_if_no_effect_needs_it(
    house: House, kind: str, path: tuple[Any, ...], text: str
) -> None:
    assert house.deliver(kind, spoilt(GOOD[kind], path, text), 1)
    assert house.work()[0]["state"] == "succeeded"


@pytest.mark.parametrize("value", [json.dumps("x" * 300), '{"id": "prod_1"}', "7"])
def test_a_product_in_the_metadata_that_is_no_id_is_ignored_and_the_line_items_count(house: House, value: str) -> None:
    assert house.deliver("session", spoilt(GOOD["session"], ("data", "object", "metadata", "product"), value), 1)
    assert house.work()[0]["state"] == "succeeded"
    with house.runner.sessions() as db:
        assert db.scalars(select(Entitlement.product)).all() == ["prod_1"]


@pytest.mark.parametrize("value", ['{"code": "no page"}', "[]", "7", "true"])
@pytest.mark.parametrize("kind", ["failed", "completed"])
def test_a_malformed_error_message_loses_no_result_of_a_document(house: House, kind: str, value: str) -> None:
    assert house.deliver(kind, spoilt(GOOD[kind], ("error_message",), value), 1)
    assert house.work()[0]["state"] == "succeeded"


@pytest.mark.parametrize("value", ['"50 %"', "{}", "-1e300", "true"])
def test_a_malformed_progress_loses_no_result_of_a_document(house: House, value: str) -> None:
    assert house.deliver("completed", spoilt(GOOD["completed"], ("progress",), value), 1)
    assert house.work()[0]["state"] == "succeeded"
