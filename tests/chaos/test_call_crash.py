"""A crash or a lost reply between another service's success and our commit: handlers that charge and send mail."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from dev.simulators.http import Request
from dev.stack.postgres import Postgres
from inbox.event import Event
from inbox.job import NewJob
from tasks.models import Notification, PaymentRetry
from tests.chaos.conftest import World
from tests.support.lives import T0, invoice
from tests.support.lossy_proxy import LossyProxy
from tests.support.peers import Answer, Mailbox, Peer

SLOW_START: Any = {
    "LEASE_SECONDS": "12",
    "JOB_TIME_LIMIT_SECONDS": "11",
}  # stripe and apprise are imported by the first job
NOW = datetime.fromtimestamp(T0, UTC)


def record(world: World, job: NewJob, *rows: Any) -> str:
    """Record the job and insert the rows it refers to."""
    with Session(create_engine(world.database)) as db:
        db.add_all(rows)
        db.commit()
    about = {"id": "evt_1", "type": "invoice.payment_failed", "created": T0, "data": {"object": failed("open")}}
    world.store.record(Event("stripe", "evt_1", "invoice.payment_failed", json.dumps(about).encode()), [job])
    return job.id


def failed(status: str) -> dict[str, Any]:
    return invoice("payment_failed", 1, 0, status=status, subscription=None, next_payment_attempt=None).object


def test_a_charge_repeated_after_a_crash_has_the_same_idempotency_key(world: World) -> None:
    """Stripe reports the invoice as open throughout, as it may do for a moment after the payment."""
    point = "after the charge, before the commit"

    def reply(request: Request) -> Answer:
        if request.path.startswith("/v1/events"):  # from the reconcile at each start
            return Answer(body=b'{"object": "list", "data": [], "has_more": false}')
        return Answer(body=json.dumps(failed("paid" if request.method == "POST" else "open")).encode())

    job = NewJob("stripe:evt_1:retry", "tasks.payments.retry_payment", "payments", {"invoice": "in_1", "number": 1})
    with Peer(reply) as peer:
        stripe: Any = {"STRIPE_API_BASE": peer.url, "STRIPE_API_KEY": "sk_test_of_the_tests", **SLOW_START}
        record(world, job, PaymentRetry(invoice="in_1", number=1, state="planned", due_at=NOW))
        world.stack.worker(HOLDFAST_TEST_DIE=point, queues="payments,notifications", **stripe)
        world.settle()
    keys = [request.headers["Idempotency-Key"] for request in peer.requests if request.path.endswith("/pay")]
    assert (world.died(point), keys) == (True, ["in_1:retry:1"] * 2)  # the key of the retry, whichever job runs it
    with Session(create_engine(world.database)) as db:
        assert db.scalars(select(PaymentRetry.state)).all() == ["paid"]


def test_a_mail_is_repeated_at_most_once_after_a_crash_with_the_same_id(world: World) -> None:
    point, key = "after the mail, before the commit", "stripe:evt_1:notify.no_address"
    job = NewJob(key, "tasks.notifications.send", "notifications", {"notification": key})
    told = {"message": "receipt", "event": "evt_1"}
    row = Notification(id=key, kind="no_address", audience="admin", params=told, state="owed", created_at=NOW)
    with Mailbox() as mailbox:
        record(world, job, row)
        url = f"{mailbox.url}&to=admin@example.com"
        world.stack.worker(HOLDFAST_TEST_DIE=point, queues="notifications", ADMIN_NOTIFY_URLS=url, **SLOW_START)
        world.settle()
    assert (world.died(point), [mail["X-Idempotency-Key"] for _, mail in mailbox.mails]) == (True, [key] * 2)


@pytest.mark.parametrize("world", ["redis-postgres"], indirect=True)
def test_the_next_attempt_finds_a_commit_whose_reply_was_lost(world: World, postgres: Postgres) -> None:
    line = LossyProxy(postgres.folder / ".s.PGSQL.5432", about=b"COMMIT")
    line.lose = 1
    job = world.record("plain")
    world.stack.worker(DATABASE_URL=f"postgresql+psycopg://postgres@127.0.0.1:{line.port}/test")
    world.settle()
    assert (line.lose, world.effects(job), world.effects("stripe:evt_1:follow")) == (0, 1, 1)
    assert world.outcomes(job) == ["succeeded"], "the first attempt does not count"
