"""A test client of the whole ASGI application, without a server: webhooks take the plain ASGI path."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any

from werkzeug.test import Client

from settings import Settings
from web.application import create_asgi_app
from web.receiver.asgi import AsgiApp


def asgi_client(settings: Settings) -> Client:
    """Of an application of its own, which writes its counts only with a response: later would be the next test."""
    app = create_asgi_app(settings)
    app.receiver.counters.flush_seconds = math.inf
    return Client(_Bridge(app))


class _Bridge:
    """The application as WSGI, in which werkzeug's client calls it."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        status, headers, body = asyncio.run_coroutine_threadsafe(_call(self._app, environ), _loop()).result(60)
        pairs = [(name.decode(), value.decode("latin-1")) for name, value in headers]
        start_response(f"{status} {HTTPStatus(status).phrase}", pairs)
        return [body]


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="asgi-client").start()
    return loop


async def _call(app: AsgiApp, environ: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": environ["wsgi.input"].read(), "more_body": False}]

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()  # the client stays
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(_scope(environ), receive, send)
    if sent[0]["status"] != HTTPStatus.SERVICE_UNAVAILABLE:
        await app.receiver.counters.flush()
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], list(sent[0]["headers"]), body


def _scope(environ: dict[str, Any]) -> Any:
    names = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
    names |= {name: name[5:].replace("_", "-").lower() for name in environ if name.startswith("HTTP_")}
    found = ((names[name], str(value)) for name, value in environ.items() if name in names and value != "")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": environ["REQUEST_METHOD"],
        "scheme": "http",
        "path": environ["PATH_INFO"],
        "raw_path": environ["PATH_INFO"].encode(),
        "root_path": "",
        "query_string": environ["QUERY_STRING"].encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in found],
        "client": ("127.0.0.1", 1),
        "server": (environ["SERVER_NAME"], int(environ["SERVER_PORT"])),
    }
