"""What Flower is told of jobs that were done without Celery in between: as Celery tells of its own, in one message."""

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
    """How a job ended: a word, or an error that may be shown."""

    word: str = ""
    error: str = ""


@dataclass
class FlowerEvents:
    """The events of some jobs, as `hostname` would send them; told to nobody where TASK_EVENTS is off."""

    app: Celery
    hostname: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @contextmanager
    def of(self, lease: Lease) -> Iterator[Outcome]:
        """Note when the job begins, and at the end of the block how it ended."""
        outcome, began = Outcome(), time.time()
        yield outcome
        if not self.app.conf.worker_send_task_events:
            return
        ours = {"uuid": lease.task_id, "retries": 0}
        about = {"name": lease.task, "args": repr([lease.job_id]), "kwargs": "{}", "root_id": lease.task_id}
        self.events.append(("task-received", {**ours, **about, "timestamp": began}))
        self.events.append(("task-started", {**ours, "timestamp": began}))
        self.events.append(_ended(outcome, {**ours, "timestamp": time.time(), "runtime": time.time() - began}))

    def send(self) -> None:
        """Best effort, as Celery's are."""
        if not self.events:
            return
        try:
            with self.app.producer_or_acquire() as producer:
                said = self.app.events.Dispatcher(
                    producer.connection,
                    self.hostname,
                    channel=producer.channel,
                    buffer_while_offline=False,
                    buffer_group={"task"},
                    buffer_limit=len(self.events) + 1,
                )
                for kind, fields in self.events:
                    said.send(kind, **fields)
                said.flush()
        except Exception as error:  # whatever the transport raises
            log.warning("Flower could not be told", error=type(error).__name__)


def _ended(outcome: Outcome, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if outcome.error:
        return "task-failed", fields | {"exception": f"AttemptFailed({outcome.error!r})"}
    return "task-succeeded", fields | {"result": repr(outcome.word)}
