"""The receiver's server in a thread of the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from uvicorn import Server

from dev.stack.servers import wait_until
from settings import Settings
from web.__main__ import config
from web.application import create_asgi_app


@contextmanager
def running_receiver(settings: Settings) -> Iterator[Server]:
    """Serves as a serving process of `python -m web` does, on the port in the settings."""
    server = Server(config(create_asgi_app(settings), settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, seconds=20, what="the server to listen")
        yield server
    finally:
        server.should_exit = True
        thread.join()
