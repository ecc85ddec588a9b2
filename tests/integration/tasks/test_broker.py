"""The doorbell: our own message is the same as the one that Celery sends."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from celery import Celery
from structlog.testing import capture_logs

from dev.stack.servers import Valkey, free_port
from inbox.event import Event
from inbox.job import Doorbell, NewJob
from inbox.store import Store
from tasks import broker

JOB = NewJob("stripe:evt_1:payments.payment_failed", "tasks.payments.payment_failed", "payments")
# New for each message, or dependent on the machine.
OWN = {"id", "root_id", "correlation_id", "delivery_tag", "origin", "reply_to"}


def app_at(url: str) -> Celery:
    """A Celery app with the project's settings, on a broker of the test's."""
    app = Celery("holdfast")
    app.config_from_object("celeryconfig")
    app.conf.broker_url = url
    return app


@pytest.fixture
def celery(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setattr(broker, "app", app_at(valkey.url))
    return broker.app


def queued(store: Store, queue: str) -> list[Any]:
    return [json.loads(raw) for raw in store.client.lrange(queue, 0, -1)]


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message without its unique fields."""
    parts: dict[str, Any] = {**message, "body": json.loads(base64.b64decode(message["body"]))}
    for part in ("headers", "properties"):
        parts[part] = {key: value for key, value in message[part].items() if key not in OWN}
    return parts


def test_the_ready_made_message_is_what_celery_sends(celery: Celery, real_store: Store) -> None:
    celery.send_task(JOB.task, args=[JOB.id], queue=JOB.queue, ignore_result=True)
    (sent,) = queued(real_store, JOB.queue)
    ours = json.loads(broker.task_message(JOB))
    assert plain(ours) == plain(sent)
    for part in ("headers", "properties"):
        assert ours[part].keys() == sent[part].keys()
    assert ours["headers"]["id"] == ours["properties"]["correlation_id"] == ours["headers"]["root_id"]


def test_two_messages_of_one_job_have_tags_of_their_own() -> None:
    one, two = (json.loads(broker.task_message(JOB)) for _ in range(2))
    assert one["properties"]["delivery_tag"] != two["properties"]["delivery_tag"]
    assert one["headers"]["id"] != two["headers"]["id"]


def test_the_record_pushes_the_message_into_the_list_that_celery_reads(celery: Celery, real_store: Store) -> None:
    store = Store(real_store.client, message=broker.task_message)
    assert store.record(Event("stripe", "evt_1", "x", b"{}"), [JOB]) == []
    assert broker.doorbell_capacity(["payments", "documents"]) == {"payments": 99, "documents": 100}
    with celery.connection_or_acquire() as connection, connection.SimpleQueue("payments") as incoming:
        received = incoming.get(block=True, timeout=5)
        received.ack()
    assert received.payload[0] == [JOB.id]


def test_a_broker_that_is_away_costs_the_caller_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "app", app_at(f"redis://127.0.0.1:{free_port()}/0"))
    broker.ring([Doorbell(JOB.id, JOB.task, JOB.queue)])
    assert broker.doorbell_capacity(["payments"]) == {}


def test_without_doorbells_celery_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "app", None)
    with capture_logs() as said:
        broker.ring([])
    assert said == []
