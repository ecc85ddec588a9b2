"""SIGTERM: running jobs get some seconds to finish, and are then returned (docs/decisions/0003)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from celery.worker import state
from kombu.asynchronous import get_event_loop

from tasks.routes import TASKS
from workers.channels import Channels

LOOP_STEP_SECONDS = 3  # the maximum time for a step of Celery's event loop


def on_sigterm(first: Callable[[], None]) -> None:
    """Handle SIGTERM, which orchestrators send, as Celery handles SIGQUIT.

    On SIGTERM Celery waits for running tasks without a limit. On SIGQUIT it waits worker_soft_shutdown_timeout seconds
    and then stops what still runs, which returns the job (workers/run.py). Celery's own switch for this is the
    environment variable REMAP_SIGTERM=SIGQUIT, which a worker started by hand would lack. It also stops the pool inside
    the signal handler, so that the code which was just using the pool fails ("Unrecoverable error", exit code 1).
    Therefore the event loop stops the pool between two of its steps. If the loop does not run, as while the broker is
    down, a timer signal (SIGALRM) does it. `first` is called at once, in the signal handler.
    """
    softly = signal.getsignal(signal.SIGQUIT)
    if not callable(softly):
        return

    def stop(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if state.should_terminate is None:  # not twice
            softly(signal.SIGTERM, None)
            state.maybe_shutdown()  # raises: the interrupted code must not continue, because the pool is gone

    def terminated(*_: object) -> None:
        first()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM changes nothing; SIGQUIT still stops at once
        loop = get_event_loop()
        if loop is None:  # a pool of threads, or between two connections to the broker
            return stop()
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, LOOP_STEP_SECONDS)
        # In a thread: the code that the signal interrupted may hold the loop's lock.
        return threading.Thread(target=loop.call_soon, args=(stop,), daemon=True).start()

    signal.signal(signal.SIGTERM, terminated)


def wait_for_slots(controller: Any, channels: Channels) -> None:
    """Make Celery wait also for jobs in slots, of which it does not know; no longer than they run, unless it has tasks
    of its own.

    Replaces a method of celery, of the version in telemetry/tested_versions.py.
    """
    wait_for_celery = controller.wait_for_soft_shutdown

    def wait() -> None:
        channels.stop_leasing()
        if any(_has_process(request) for request in tuple(state.active_requests)):
            wait_for_celery()
        else:
            channels.wait_drained(controller.app.conf.worker_soft_shutdown_timeout)

    controller.wait_for_soft_shutdown = wait


def _has_process(request: Any) -> bool:
    """Whether it runs in a pool process's main thread; a doorbell for a slot is answered at once."""
    return request.name not in TASKS or not TASKS[request.name].has_slot
