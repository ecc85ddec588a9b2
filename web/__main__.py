"""`python -m web`: check the settings, then serve with uvicorn."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors.multiprocess import Multiprocess

from settings import Settings, SettingsError, load
from tasks import route_check
from tasks.broker import open_store
from telemetry import logs
from web import ANSWER_SECONDS, create_asgi_app
from web.ops import watchdog
from web.receiver import sources
from web.receiver.asgi import AsgiApp
from web.receiver.protocol import MAX_CONNECTIONS, WebhookProtocol

KEEP_ALIVE_SECONDS = 180  # longer than proxies keep a connection: who uses it again must not find it closed
GRACE_SECONDS = 5  # for requests under way when we are told to stop
HUNG_SECONDS = 30  # without a sign of life, a serving process is replaced


class Supervisor(Multiprocess):
    """uvicorn's, which twice a second asks each serving process for a sign of life and waits HUNG_SECONDS for it."""

    def keep_subprocess_alive(self) -> None:
        """With that process's end of the pipe open here too, its death meanwhile would not end the wait."""
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()


def application() -> AsgiApp:
    """Made in each serving process."""
    logs.configure()
    threading.Thread(target=_end_with_parent, daemon=True, name="parent-watch").start()
    settings = load()
    if settings.alert_urls:
        watchdog.start(settings, open_store(settings, timeout_seconds=ANSWER_SECONDS))
    front = create_asgi_app(settings)
    gc.collect()
    gc.freeze()  # or Python looks through all these modules again and again, 90 ms each time, and senders wait
    return front


def _end_with_parent() -> None:
    """uvicorn's serving processes live on when the one that started them is killed: they would listen on, beside those
    of its successor, with the code and the secrets of yesterday."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def main(target: str = "web.__main__:application") -> None:
    """Serve `target` until told to stop; a wrong setting ends it before anything listens."""
    try:
        settings = load()
        if not sources.configured_sources(settings):
            raise SettingsError("no source is configured; set STRIPE_WEBHOOK_SECRET, DOC_WEBHOOK_SECRET or SOURCES")
        route_check.check(settings)
    except (SettingsError, route_check.RouteError) as error:
        sys.exit(f"holdfast: {error}")
    logs.configure()
    _have_files(2 * MAX_CONNECTIONS)  # each connection is one
    supervisor = Supervisor(config(target, settings), [_bound(settings.bind, settings.port)])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit("holdfast: the receiver could not start; see above")


def _bound(address: str, port: int) -> socket.socket:
    """It listens once a serving process does."""
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, port))
    except OSError as error:
        sys.exit(f"holdfast: cannot listen on BIND={address} PORT={port}: {error.strerror}")
    return bound


def _have_files(wanted: int) -> None:
    """Raise the limit of open files to what is wanted, or to what we may."""
    have, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    if have != resource.RLIM_INFINITY and have < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def config(target: str | AsgiApp, settings: Settings) -> Config:
    """uvicorn's. `target` is an application, or the name of one's factory."""
    return Config(
        target,
        factory=isinstance(target, str),
        interface="asgi3",
        http=WebhookProtocol,
        ws="none",
        loop="uvloop",
        host=settings.bind,
        port=settings.port,
        workers=settings.web_processes,
        backlog=1024,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=HUNG_SECONDS,
        log_config=None,  # ours stands
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
