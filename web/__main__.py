"""`python -m web`: check the settings, then serve with granian."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time

from granian import Granian
from granian.constants import Interfaces

import logs
from settings import SettingsError, load
from tasks import route_check
from tasks.broker import open_store
from web import ANSWER_SECONDS, create_front, sources, watch
from web.front import Front


def application() -> Front:
    """Made in each serving process."""
    logs.configure()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True, name="parent-watch").start()
    settings = load()
    if settings.alert_urls:
        watch.start(settings, open_store(settings, timeout_seconds=ANSWER_SECONDS))
    front = create_front(settings)
    gc.collect()
    gc.freeze()  # or Python looks through all these modules again and again, 90 ms each time, and senders wait
    return front


def _end_with_parent(parent: int) -> None:
    """granian does not end its serving processes when it is killed: they would listen on, beside those of its
    successor, with the code and the secrets of yesterday."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(target: str = "web.__main__:application") -> None:
    """Serve `target` until told to stop; a wrong setting ends it before anything listens."""
    try:
        settings = load()
        if not sources.configured(settings):
            raise SettingsError("no source is configured; set STRIPE_WEBHOOK_SECRET, DOC_WEBHOOK_SECRET or SOURCES")
        route_check.check(settings)
    except (SettingsError, route_check.RouteError) as error:
        sys.exit(f"holdfast: {error}")
    logs.configure()
    Granian(
        target,
        factory=True,
        address=settings.bind,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=settings.web_processes,
        backpressure=1024,
        backlog=1024,
        respawn_failed_workers=True,
        log_access=False,
        log_dictconfig=logs.GRANIAN,
    ).serve()


if __name__ == "__main__":
    main()
