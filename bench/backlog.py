"""Full queues for the drain: of Holdfast's record, and the very same messages for a bare Celery worker.

Each answers with the worker's command and how to ask how many are left.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from bench.contenders import Holdfast
from bench.events import bodies
from inbox.job import NewJob
from inbox.store import PREFIX, Store
from tasks import broker
from tasks.ingest import arrival, peek_stripe

BATCH = 100
Full = tuple[list[str | Path], Callable[[], int]]


def holdfast(ours: Holdfast, jobs: int) -> Full:
    """Events recorded as the receiver does, by the store itself."""
    store = Store(ours.client, message=broker.message)
    arrivals = (arrival("stripe", peek_stripe(body.decode()), body) for body in bodies(jobs))
    while batch := list(islice(arrivals, BATCH)):
        store.record_all(batch)
    return ours.worker(), lambda: left(ours)


def bare(ours: Holdfast, jobs: int) -> Full:
    return _bare(ours, jobs, "bench.bare_app")


def bare_sql(ours: Holdfast, jobs: int) -> Full:
    return _bare(ours, jobs, "bench.bare_sql_app")


def _bare(ours: Holdfast, jobs: int, app: str) -> Full:
    for number in range(jobs):
        name = f"stripe:evt_{number:025}:payments.payment_failed"
        ours.client.lpush("payments", broker.message(NewJob(name, "tasks.payments.payment_failed", "payments")))
    command = [app if word == "bench.worker_app" else word for word in ours.worker()]
    return command, lambda: int(ours.client.llen("payments"))


def left(ours: Holdfast) -> int:
    """Jobs of the record that are not done."""
    counts: Any = ours.client.hmget(PREFIX + "counts", "ready", "leased")
    return sum(int(count or 0) for count in counts)
