"""Tells the record which queues this worker consumes, and the log if another worker has the same name."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import structlog

from inbox import worker_registry
from inbox.errors import StoreUnavailable
from inbox.store import Store
from tasks.routes import QUEUES, TASKS

log = structlog.get_logger()

EVERY_SECONDS = 5.0


class Registration:
    """One per worker. `consumer` is Celery's; `worker` is a name that no other worker has or had."""

    def __init__(self, store: Store, worker: str, consumer: Any) -> None:
        self._store, self._worker = store, worker
        self._name, self._consumed = str(consumer.hostname), consumer.app.amqp.queues.consume_from
        self._announced_at = 0.0
        self._warned = False

    def announce_if_due(self) -> None:
        """Announce this worker if EVERY_SECONDS have passed. Does nothing if the store is not available or full."""
        if not self._announced_at or time.monotonic() - self._announced_at >= EVERY_SECONDS:
            with suppress(StoreUnavailable):
                self._announce()

    def _announce(self) -> None:
        last = worker_registry.announce(self._store, self._name, self._worker, list(self._consumed), QUEUES)
        worker_registry.announce_version(self._store, TASKS, QUEUES)
        # Before our first announcement, it may have been a worker that has ended since.
        if self._announced_at and last not in ("", self._worker) and not self._warned:
            self._warned = True
            log.error("two workers have the same name: start one of them with another name (-n)", name=self._name)
        self._announced_at = time.monotonic()
