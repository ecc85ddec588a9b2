"""Starts and stops the slots of a pool process, by Celery's signals."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from celery import Celery, signals

from tasks import broker
from tasks.handler import Handler
from tasks.routes import TASKS
from workers.channels import Channels, Wake
from workers.flower_events import FlowerEvents
from workers.run import Runner
from workers.slot_threads import SlotThreads
from workers.slots import Slots

slots: Slots | None = None  # of this process, if it is a pool process


def connect(app: Celery, handlers: Mapping[str, Handler], runner: Callable[[int], Runner], channels: Channels) -> None:
    """Have each process of Celery's pool run `handlers` in slots. `runner` makes the runner of a process."""

    @signals.worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def begin(sender: str, **_: Any) -> None:
        """`sender` is the name of the worker."""
        global slots  # noqa: PLW0603
        channels.enter_pool_process()
        slots = _make_slots(runner(os.getpid()), handlers, FlowerEvents(app, sender), _tasks(app), channels)
        slots.start()

    @signals.worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
    def end(**_: Any) -> None:
        if slots:
            slots.stop()


def _make_slots(
    shared: Runner,
    handlers: Mapping[str, Handler],
    events: FlowerEvents,
    tasks: Mapping[str, list[str]],
    channels: Channels,
) -> Slots:
    """`shared` is the runner of the main thread; the slots share its connections to the database."""
    wake, store = Wake(), broker.open_batch_store(shared.settings, timeout_seconds=5)
    store.on_call = wake
    runner = replace(shared, store=store, ring=broker.BackgroundRinger().ring)
    if events.app.conf.worker_send_task_events:
        threading.Thread(target=events.send_each_second, daemon=True, name="flower-events").start()
    return Slots(runner, SlotThreads(runner, handlers, events, wake), wake, tasks, channels)


def _tasks(app: Celery) -> Mapping[str, list[str]]:
    """The tasks for slots, by each queue of this worker."""
    return {
        queue: [name for name, task in TASKS.items() if task.queue == queue and task.has_slot]
        for queue in app.amqp.queues.consume_from
    }
