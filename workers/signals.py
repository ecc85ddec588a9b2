"""Celery's signals: when the sweep runs, what SIGTERM means, and how a worker shows that it lives."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from celery import signals

from settings import Settings
from tasks import broker
from workers.sweep import Sweeper


def connect(settings: Settings) -> None:
    """Have this process do all three when it is a worker; what else loads the app, as Flower does, sends no signals."""

    # Not weak: nobody else keeps these functions.
    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def start_sweep(**_: Any) -> None:
        """The sweep runs in the worker's main process, beside whatever the pool does."""
        Sweeper(broker.open_store(settings, timeout_seconds=5)).start()

    signals.worker_ready.connect(_stop_softly_on_sigterm)

    if settings.heartbeat_file:

        @signals.heartbeat_sent.connect(weak=False)  # type: ignore[untyped-decorator]
        def touch_heartbeat_file(**_: Any) -> None:
            """Every 2 seconds while the worker's loop turns and has its broker: a health check that costs nothing."""
            Path(settings.heartbeat_file).touch()


def _stop_softly_on_sigterm(**_: Any) -> None:
    """SIGTERM is what orchestrators send, and Celery's answer to it waits for running tasks without end.

    Its answer to SIGQUIT is the right one: wait worker_soft_shutdown_timeout seconds, then end what still runs; the
    job is given back then (see workers/run.py). Celery's own switch for this is the environment variable
    REMAP_SIGTERM=SIGQUIT, which a worker started by hand would lack.
    """
    softly = signal.getsignal(signal.SIGQUIT)

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one changes nothing; SIGQUIT still hurries it
        if callable(softly):
            softly(number, frame)

    signal.signal(signal.SIGTERM, stop)
