"""The real worker app with the handlers of tests/support/handlers.py: `celery -A tests.support.worker_app worker`."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import psutil
from celery.concurrency.prefork import TaskPool
from celery.worker import loops

from inbox import alert_rules
from inbox.job import Doorbell
from inbox.store import Store
from tasks import broker
from tests.support import document_faults
from tests.support.crash_points import WORKER
from tests.support.handlers import die_around_each, die_at, first_time, register_handlers
from workers import alerts, consumer_watch, registration

register_handlers()
die_around_each(WORKER)
document_faults.register()

if "HOLDFAST_TEST_QUICK_ALERTS" in os.environ:
    alerts.EVERY_MS, alert_rules.HOLD_MS = 1000, 3000

if seconds := os.environ.get("HOLDFAST_TEST_ACKNOWLEDGE_SECONDS"):
    consumer_watch.ACKNOWLEDGE_SECONDS = float(seconds)

if seconds := os.environ.get("HOLDFAST_TEST_CHECK_SECONDS"):
    broker.CHECK_SECONDS = float(seconds)

if seconds := os.environ.get("HOLDFAST_TEST_ANNOUNCE_SECONDS"):
    registration.EVERY_SECONDS = float(seconds)

push: Any = Store.push


def push_or_die(store: Store, bells: Sequence[Doorbell], **where: bool) -> Any:
    """Die in the sweeper's thread, once it has found jobs to ring for."""
    if bells and threading.current_thread().name == "sweeper":
        die_at("after the sweep, before it rings")
    return push(store, bells, **where)


Store.push = push_or_die  # type: ignore[method-assign, assignment]

if "HOLDFAST_TEST_STOP_IN_STEP" in os.environ:
    processes = TaskPool.num_processes.fget

    def stop_in_step(pool: Any) -> Any:
        """The event loop reads this before it takes a message. Send SIGTERM then, once the worker is ready."""
        if signal.getsignal(signal.SIGTERM).__module__ == "workers.soft_stop":
            os.kill(os.getpid(), signal.SIGTERM)
        return processes(pool)

    TaskPool.num_processes = property(stop_in_step)

if "HOLDFAST_TEST_QUEUE_GONE" in os.environ:
    drain = loops._quick_drain

    def lose_the_queue(connection: Any, timeout: float = 0.1) -> None:
        """As in a worker that was frozen here: its queue is deleted after it has subscribed and before it reads on."""
        if first_time("queue-gone"):
            with broker.app.connection_for_write() as other:
                other.default_channel.queue_delete("payments")
            time.sleep(1)  # until the broker has sent the cancellation
        drain(connection, timeout)

    loops._quick_drain = lose_the_queue

from workers.app import app  # noqa: E402, F401  last, because it registers the tasks in TASKS

if "HOLDFAST_TEST_MEMORY" in os.environ:  # bytes that the process may use in addition to those it uses now
    limit = psutil.Process().memory_info().vms + int(os.environ["HOLDFAST_TEST_MEMORY"])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
