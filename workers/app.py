"""The Celery app of the workers: `celery -A workers.app worker -Q payments`. Has every task of tasks/routes.py."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import secrets
import socket
from typing import Any

from kombu.transport import virtual

from inbox.errors import StoreUnavailable
from settings import SettingsError, load
from tasks import broker, route_check, stripe_types
from tasks.clients.connection_pool import keep_idle
from tasks.db.engine import make_engine, make_sessions
from tasks.handler import Handler
from tasks.notifications.rendering import check_templates
from tasks.routes import TASKS
from telemetry import logs, tested_versions, tracing
from workers import backlog, signals, slot_process
from workers.channels import Channels
from workers.consumer_watch import AcknowledgeStep, ConsumerCancelStep
from workers.flower_events import FlowerEvents
from workers.run import AttemptFailed, Runner

try:
    settings = load()
    route_check.check(settings)
    stripe_types.check()
    check_templates(settings)
except (SettingsError, route_check.RouteError) as error:
    raise SystemExit(f"holdfast: {error}") from None

logs.configure()
tested_versions.warn()
app = broker.app
HANDLERS: dict[str, Handler] = {}
WORKER = f"{socket.gethostname()}/{secrets.token_hex(4)}"  # another one after each start, even if host and pids repeat

# When a connection breaks, kombu tries to restore the message being received, over that same connection, and the worker
# dies (https://github.com/celery/kombu/issues/582). The message is only a doorbell: the sweep rings again.
virtual.QoS.restore_at_shutdown = False


@functools.cache
def runner(pid: int) -> Runner:
    """One per process, because connections must not be shared across a fork."""
    tracing.start(settings.traces_url, "worker")
    keep_idle(settings.worker_slots)
    return Runner(
        store=broker.open_store(settings, timeout_seconds=5),
        sessions=make_sessions(make_engine(settings.database_url, settings.worker_slots)),
        settings=settings,
        ring=broker.ring,
        holder=f"{WORKER}/{pid}",
    )


def _import_handler(name: str) -> Handler:
    path = TASKS[name].handler
    prefix = f"holdfast: tasks/routes.py gives {name} the handler {path}, which"
    module, _, function = path.partition(":")
    try:
        handler: Handler = getattr(importlib.import_module(module), function)
        inspect.signature(handler).bind("attempt", "db")
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"{prefix} does not exist ({error})") from None
    except TypeError:
        raise SystemExit(f"{prefix} must take (attempt, db)") from None
    return handler


def _register(name: str) -> None:
    HANDLERS[name], limit = _import_handler(name), TASKS[name].time_limit_seconds
    limits = {"time_limit": limit, "soft_time_limit": limit - 5} if limit else {}
    limit_seconds = limits.get("soft_time_limit", app.conf.task_soft_time_limit)

    def attempt(self: Any, job_id: str) -> str:
        if slots := slot_process.slots:
            if TASKS[name].has_slot:
                return slots.announce(job_id)
            with slots.main_thread_working():
                return work(self, job_id)
        return work(self, job_id)

    def work(self: Any, job_id: str) -> str:
        process_runner = runner(os.getpid())
        lease = process_runner.lease(job_id, self.request.id or "")
        if isinstance(lease, str):
            return lease
        events = FlowerEvents(app, self.request.hostname)
        try:
            return backlog.work(process_runner, HANDLERS, lease, limit_seconds, events)
        finally:
            events.send()

    # `throws`: expected failures, logged without a traceback. The reason is in the record; or the record was not
    # available before there was a lease, then the sweep rings again, and a traceback would contain its address.
    app.task(attempt, name=name, bind=True, throws=(AttemptFailed, StoreUnavailable), **limits)


channels = Channels() if settings.worker_slots > 1 else None
for _name in TASKS:
    _register(_name)

app.steps["consumer"].update((ConsumerCancelStep, AcknowledgeStep))
signals.connect(settings, WORKER, channels)
if channels:
    slot_process.connect(app, HANDLERS, runner, channels)
