"""The front, as an ASGI application: everything by Flask, in threads, but what protocol.py takes before it.

Under an ASGI server with other connections, webhooks go to Flask too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from a2wsgi import WSGIMiddleware
from a2wsgi.asgi_typing import HTTPScope, Receive, ReceiveEvent, Scope, Send
from a2wsgi.wsgi_typing import Environ
from flask import Flask

from settings import Settings
from telemetry import tracing
from web.body import BUDGET_BYTES, BodyBudget, receive_body
from web.errors import HttpError, error_response
from web.receiver.delivery import Receiver

THREADS = 32


class AsgiApp:
    """`receiver` is for the connections."""

    def __init__(self, settings: Settings, receiver: Receiver, pages: Flask) -> None:
        self.receiver = receiver
        self._pages = _in_threads(pages, settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as https://asgi.readthedocs.io/en/latest/specs/www.html describes it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await self._pages(scope, receive, send)


def _in_threads(pages: Flask, limit_bytes: int) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """a2wsgi, but a request gets a thread only with its whole body: one that comes slowly holds none."""

    def terminated(environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True  # type: ignore[typeddict-unknown-key]  # chunked bodies have an end too
        return pages(cast(dict[str, Any], environ), start_response)

    threads, room = WSGIMiddleware(terminated, workers=THREADS), BodyBudget(BUDGET_BYTES)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await threads(scope, receive, send)
            return
        with room.reservation() as reserve:
            try:
                raw = await receive_body(receive, _announced(scope), limit_bytes, reserve)
            except HttpError as refused:
                await _refuse(send, refused)
                return

            async def whole() -> ReceiveEvent:
                return {"type": "http.request", "body": raw, "more_body": False}

            await threads(scope, whole, send)

    return asgi


def _announced(scope: HTTPScope) -> int:
    """The length of the body; 0 where it is not said."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


async def _refuse(send: Send, refused: HttpError) -> None:
    status, body, headers = error_response(refused)
    pairs = {"content-type": "application/json", **headers}
    head = [(name.lower().encode(), value.encode()) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    """https://asgi.readthedocs.io/en/latest/specs/lifespan.html"""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    tracing.stop()
    await send({"type": "lifespan.shutdown.complete"})
