"""`python -m web [--plain-asgi]`: check the settings, then serve with uvicorn."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess

from settings import Settings, SettingsError, load
from tasks import route_check
from tasks.broker import open_store
from tasks.derived_keys import derive_key
from tasks.notifications.rendering import check_templates
from tasks.private_files import keep_files_private
from telemetry import logs, tested_versions
from web import STORE_TIMEOUT_SECONDS, create_asgi_app
from web.ops import watchdog
from web.receiver import sources
from web.receiver.asgi import AsgiApp
from web.receiver.connections import MAX_CONNECTIONS

KEEP_ALIVE_SECONDS = 180  # longer than proxies keep a connection, so that they never use one that is being closed
SHUTDOWN_SECONDS = 5  # for the requests that are being served at a SIGTERM
HEALTHCHECK_SECONDS = 30  # a serving process that does not respond for so long is replaced


class Supervisor(Multiprocess):
    """uvicorn's, which pings each serving process twice a second and waits HEALTHCHECK_SECONDS for its response."""

    def keep_subprocess_alive(self) -> None:
        """Close our copy of the child's end of the pipe: while it is open, a child's death does not end the wait."""
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()


def application() -> AsgiApp:
    """Called in each serving process."""
    logs.configure()
    threading.Thread(target=_end_with_parent, daemon=True, name="parent-watch").start()
    settings = load()
    if settings.alert_urls:
        watchdog.start(settings, open_store(settings, timeout_seconds=STORE_TIMEOUT_SECONDS))
    for key in settings.api_keys:
        derive_key(key.secret, "")  # 0.2 s, once: the event loop must not wait for it
    app = create_asgi_app(settings)
    gc.collect()
    gc.freeze()  # otherwise each full collection scans all these modules for 90 ms, and clients wait
    return app


def _end_with_parent() -> None:
    """A serving process would outlive a killed supervisor and listen beside its successor, with outdated settings."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def main(target: str = "web.__main__:application") -> None:
    """Serve the application that the factory `target` returns, until a SIGTERM. A wrong setting ends the process with
    one line before it listens."""
    parser = argparse.ArgumentParser(prog="python -m web", description="The webhook receiver, the API and the console.")
    parser.add_argument("--plain-asgi", action="store_true", help="use only uvicorn's public interface; slower")
    plain_asgi = parser.parse_args().plain_asgi
    keep_files_private()
    try:
        settings = load()
        if not sources.configured_sources(settings):
            raise SettingsError("no source is configured; set STRIPE_WEBHOOK_SECRET, DOC_WEBHOOK_SECRET or SOURCES")
        route_check.check(settings)
        check_templates(settings)
    except (SettingsError, route_check.RouteError) as error:
        sys.exit(f"holdfast: {error}")
    logs.configure()
    tested = tested_versions.is_tested("uvicorn")
    tested_versions.warn(*(() if tested else ("webhooks are served by plain ASGI, which is slower",)))
    _raise_open_files_limit(2 * MAX_CONNECTIONS)
    if plain_asgi or not tested:
        _serve_plain(target, settings)
    else:
        _serve(target, settings)


def _serve(target: str, settings: Settings) -> None:
    supervisor = Supervisor(config(target, settings), [_bind(settings)])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit("holdfast: the receiver could not start; see above")


def _serve_plain(target: str, settings: Settings) -> None:
    """By uvicorn's public interface only, which every version has."""
    _bind(settings).close()
    uvicorn.run(target, factory=True, limit_concurrency=MAX_CONNECTIONS, **_options(settings))


def _bind(settings: Settings) -> socket.socket:
    """The socket for the serving processes. Exits with one line if the address is not available."""
    bound = socket.socket(socket.AF_INET6 if ":" in settings.bind else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.bind, settings.port))
    except OSError as error:
        sys.exit(f"holdfast: cannot listen on BIND={settings.bind} PORT={settings.port}: {error.strerror}")
    return bound


def _raise_open_files_limit(count: int) -> None:
    """To `count`, or as far as this user may. Each connection needs a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def config(target: str | AsgiApp, settings: Settings) -> uvicorn.Config:
    """For the fast path. `target` is an application, or the name of a factory."""
    from web.receiver.protocol import WebhookProtocol  # noqa: PLC0415  it may not import with another uvicorn

    return uvicorn.Config(target, factory=isinstance(target, str), http=WebhookProtocol, **_options(settings))


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "interface": "asgi3",
        "ws": "none",
        "loop": "uvloop",
        "host": settings.bind,
        "port": settings.port,
        "workers": settings.web_processes,
        "backlog": 1024,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": SHUTDOWN_SECONDS,
        "timeout_worker_healthcheck": HEALTHCHECK_SECONDS,
        "log_config": None,  # telemetry/logs.py has configured the logs
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
    }


if __name__ == "__main__":
    main()
