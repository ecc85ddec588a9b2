"""`python -m web [--plain-asgi]`: check the settings, then supervise the serving processes, with uvicorn.

The supervisor itself does not import the application (web/serving.py), which takes 70 MB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess

from settings import Settings, SettingsError, load
from tasks.private_files import keep_files_private
from telemetry import logs, tested_versions
from web.receiver.connections import MAX_CONNECTIONS

if TYPE_CHECKING:
    from web.receiver.asgi import AsgiApp

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


def main(target: str = "web.serving:application") -> None:
    """Serve the application that the factory `target` returns, until a SIGTERM. A wrong setting ends the process with
    one line before it listens."""
    parser = argparse.ArgumentParser(prog="python -m web", description="The webhook receiver, the API and the console.")
    parser.add_argument("--plain-asgi", action="store_true", help="use only uvicorn's public interface; slower")
    plain_asgi = parser.parse_args().plain_asgi
    keep_files_private()
    try:
        settings = load()
    except SettingsError as error:
        sys.exit(f"holdfast: {error}")
    _check(settings)
    logs.configure()
    tested = tested_versions.is_tested("uvicorn")
    tested_versions.warn(*(() if tested else ("webhooks are served by plain ASGI, which is slower",)))
    _raise_open_files_limit(2 * MAX_CONNECTIONS)
    if plain_asgi or not tested:
        _serve_plain(target, settings)
    else:
        _serve(target, settings)


def _check(settings: Settings) -> None:
    """Exits as the check does. It needs the whole application, which the supervisor would keep in memory for ever:
    therefore it has a process of its own."""
    check = multiprocessing.get_context("fork").Process(target=_check_in_child, args=(settings,))
    check.start()
    check.join()
    if check.exitcode:
        sys.exit(1)


def _check_in_child(settings: Settings) -> None:
    from web import serving  # noqa: PLC0415  see _check

    serving.check(settings)


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
    protocol: Any = "web.receiver.protocol:WebhookProtocol"
    return uvicorn.Config(target, factory=isinstance(target, str), http=protocol, **_options(settings))


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
