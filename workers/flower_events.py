"""Flower events for jobs that ran without Celery (workers/backlog.py, workers/slots.py), many in one message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from celery import Celery

from inbox.job import Lease

log = structlog.get_logger()


@dataclass
class Outcome:
    """How a job ended: its result, or an error without personal data."""

    result: str = ""
    error: str = ""


@dataclass
class FlowerEvents:
    """Events of jobs, sent in the name of `hostname`; none are sent if TASK_EVENTS is off."""

    app: Celery
    hostname: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @contextmanager
    def record(self, lease: Lease) -> Iterator[Outcome]:
        """Record when the job starts and, after the block, how it ended."""
        outcome, began = Outcome(), time.time()
        yield outcome
        if not self.app.conf.worker_send_task_events:
            return
        common = {"uuid": lease.task_id, "retries": 0}
        received = {"name": lease.task, "args": repr([lease.job_id]), "kwargs": "{}", "root_id": lease.task_id}
        self.events.append(("task-received", {**common, **received, "timestamp": began}))
        self.events.append(("task-started", {**common, "timestamp": began}))
        self.events.append(_ended(outcome, {**common, "timestamp": time.time(), "runtime": time.time() - began}))

    def send(self) -> None:
        """Send all events so far. Errors are only logged, as Celery's own events are best effort."""
        events = self.events[:]
        if not events:
            return
        del self.events[: len(events)]
        try:
            with self.app.producer_or_acquire() as producer:
                dispatcher = self.app.events.Dispatcher(
                    producer.connection,
                    self.hostname,
                    channel=producer.channel,
                    buffer_while_offline=False,
                    buffer_group={"task"},
                    buffer_limit=len(events) + 1,
                )
                for kind, fields in events:
                    dispatcher.send(kind, **fields)
                dispatcher.flush()
        except Exception as error:  # whatever the transport raises
            log.warning("Flower events could not be sent", error=type(error).__name__)

    def send_each_second(self) -> None:
        """In a thread of its own, which stays."""
        while True:
            time.sleep(1)
            self.send()


def _ended(outcome: Outcome, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if outcome.error:
        return "task-failed", fields | {"exception": f"AttemptFailed({outcome.error!r})"}
    return "task-succeeded", fields | {"result": repr(outcome.result)}
