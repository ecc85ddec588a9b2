"""The real worker app with the handlers of tests/support/handlers.py: `celery -A tests.support.worker_app worker`."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any

import psutil
from celery.concurrency.prefork import TaskPool
from celery.worker import loops

from inbox import alert_rules
from inbox.job import Doorbell
from inbox.store import Store
from tasks import broker
from tasks.agents import handoff
from tasks.clients import stripe
from tasks.notifications import notify
from tests.support import document_faults
from tests.support.handlers import die_around, die_at, first_time, register_handlers
from workers import alerts, run
from workers.flower_events import FlowerEvents

register_handlers()
die_around(Store, "lease", "after the pop, before the lease", "after the lease")
die_around(run.Runner, "_effect", "before the effect", "after the SQL commit, before finish")
die_around(Store, "fail", "before the failure is kept", "after the failure is kept")
die_around(handoff, "post", "before the agent is called", "the agent has it, before the commit")
die_around(Store, "finish", "before finish", "after finish")
die_around(Store, "finish_and_lease", "before finish", "after finish")
die_around(Store, "save_alerts", "before the alarm is written", "after the alarm is written")
die_around(Store, "release", "before release", "after release")
die_around(Store, "renew", "before renew", "after renew")
die_around(FlowerEvents, "record", "after the next lease, before its handler", "")
die_around(stripe, "pay_invoice", "", "charged, before the commit")
die_around(notify, "send_message", "", "mailed, before the commit")
document_faults.register()

if "HOLDFAST_TEST_QUICK_ALARMS" in os.environ:
    alerts.EVERY_MS, alert_rules.HOLD_MS = 1000, 3000

ring = broker.ring


def ring_or_die(bells: Iterable[Doorbell]) -> None:
    """The sweeper does, when it has something to ring for."""
    found = list(bells)
    if found and threading.current_thread().name == "sweeper":
        die_at("after the sweep, before it rings")
    ring(found)


broker.ring = ring_or_die

if "HOLDFAST_TEST_STOP_IN_STEP" in os.environ:
    processes = TaskPool.num_processes.fget

    def stop_in_step(pool: Any) -> Any:
        """What the event loop asks before it takes a message; once a worker is ready, SIGTERM comes right then."""
        if signal.getsignal(signal.SIGTERM).__module__ == "workers.signals":
            os.kill(os.getpid(), signal.SIGTERM)
        return processes(pool)

    TaskPool.num_processes = property(stop_in_step)

if "HOLDFAST_TEST_QUEUE_GONE" in os.environ:
    drain = loops._quick_drain

    def lose_the_queue(connection: Any, timeout: float = 0.1) -> None:
        """As a worker that was frozen there: it has begun to listen, then its queue goes, then it reads of that."""
        if first_time("queue-gone"):
            with broker.app.connection_for_write() as other:
                other.default_channel.queue_delete("payments")
            time.sleep(1)  # by then the broker has said so
        drain(connection, timeout)

    loops._quick_drain = lose_the_queue

from workers.app import app  # noqa: E402, F401  last, for it registers what stands in TASKS

if "HOLDFAST_TEST_MEMORY" in os.environ:  # so many bytes more than it has now
    most = psutil.Process().memory_info().vms + int(os.environ["HOLDFAST_TEST_MEMORY"])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
