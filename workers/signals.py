"""Celery's signals: when the sweep runs, what SIGTERM means, and how a worker shows that it lives."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from celery import signals
from celery.worker import state
from kombu.asynchronous import get_event_loop

from settings import Settings
from tasks import broker
from telemetry import tracing
from workers.alerts import AlertScheduler
from workers.sweep import Sweeper

log = structlog.get_logger()

ENDS_JOBS = {"celery.concurrency.prefork"}  # the one pool with time limits: docs/decisions/0007
SECONDS_FOR_A_STEP = 3  # of Celery's event loop


def connect(settings: Settings) -> None:
    """Have this process do all three when it is a worker; what else loads the app, as Flower does, sends no signals."""

    # Not weak: nobody else keeps these functions.
    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def start_sweep(**_: Any) -> None:
        """The sweep runs in the worker's main process, beside whatever the pool does."""
        reconciles = bool(settings.stripe_api_key)
        if not reconciles:
            log.info("reconcile is off: STRIPE_API_KEY is not set")
        store = broker.open_store(settings, timeout_seconds=5)
        alerts = AlertScheduler(store, settings) if settings.alert_urls else None
        Sweeper(store, reconciles=reconciles, alerts=alerts).start()

    @signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def insist_on_the_time_limit(options: Mapping[str, Any], **_: Any) -> None:
        if wrong := _outlives_lease(options, settings):
            raise SystemExit(f"holdfast: {wrong}, or a slow job would run twice at once")

    @signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def leave_out_the_banner(instance: Any, **_: Any) -> None:
        """It is forty lines of drawing among lines of JSON."""
        instance.quiet = True

    @signals.worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
    def send_the_last_spans(**_: Any) -> None:
        """A process of the pool ends without running what stands in atexit."""
        tracing.stop()

    signals.worker_ready.connect(_stop_softly_on_sigterm)

    if settings.heartbeat_file:

        @signals.heartbeat_sent.connect(weak=False)  # type: ignore[untyped-decorator]
        def touch_heartbeat_file(**_: Any) -> None:
            """Every 2 seconds while the worker's loop turns and has its broker: a health check that costs nothing."""
            Path(settings.heartbeat_file).touch()


def _outlives_lease(options: Mapping[str, Any], settings: Settings) -> str:
    """What of the worker's command line lets a job live longer than its lease; empty if nothing does."""
    pool, limit = options.get("pool"), options.get("time_limit")
    if pool is not None and pool.__module__ not in ENDS_JOBS:
        return f"--pool is {pool.__module__.rpartition('.')[2]}; it takes prefork, which ends jobs at their time limit"
    if limit is not None and not 0 < limit < settings.lease_seconds:
        return f"--time-limit is {limit:g}; it takes less than LEASE_SECONDS ({settings.lease_seconds})"
    return ""


def _stop_softly_on_sigterm(**_: Any) -> None:
    """SIGTERM is what orchestrators send, and Celery's answer to it waits for running tasks without end.

    Its answer to SIGQUIT is the right one: wait worker_soft_shutdown_timeout seconds, then end what still runs; the
    job is given back then (see workers/run.py). Celery's own switch for this is the environment variable
    REMAP_SIGTERM=SIGQUIT, which a worker started by hand would lack; and it ends the pool inside the signal handler,
    so that whoever was just asking the pool fails ("Unrecoverable error", exit code 1). Hence the event loop
    is asked to do it between two steps. Where it does not turn, as while the broker is away, an alarm does it.
    """
    softly = signal.getsignal(signal.SIGQUIT)
    if not callable(softly):
        return

    def stop(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if state.should_terminate is None:  # not twice
            softly(signal.SIGTERM, None)
            state.maybe_shutdown()  # raises: whoever was at work may not go on, for the pool is gone

    def terminated(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one changes nothing; SIGQUIT still hurries it
        loop = get_event_loop()
        if loop is None:  # a pool of threads, or between two connections to the broker
            return stop()
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_FOR_A_STEP)
        # Not from here: the loop's lock may be held by the very code that the signal interrupted.
        return threading.Thread(target=loop.call_soon, args=(stop,), daemon=True).start()

    signal.signal(signal.SIGTERM, terminated)
