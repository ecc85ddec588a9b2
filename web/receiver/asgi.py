"""The ASGI application: webhooks by the receiver in the event loop, everything else by Flask in threads.

Under `python -m web`, protocol.py usually handles webhooks before they become ASGI messages; the same code runs then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from a2wsgi import WSGIMiddleware
from a2wsgi.asgi_typing import HTTPScope, Receive, ReceiveEvent, Scope, Send
from a2wsgi.wsgi_typing import Environ
from flask import Flask

from settings import Settings
from telemetry import tracing
from web.body import BODY_TIMEOUT_SECONDS, BUDGET_BYTES, TIMEOUT_MESSAGE, BodyBudget, receive_body, receive_chunk
from web.errors import HttpError, error_response
from web.receiver.delivery import Delivery
from web.receiver.receiver import Receiver, Response, json_response
from web.receiver.sources import Source

THREADS = 32
MAX_CONNECTIONS = 4096  # of one process; further ones are closed or get 503, and their clients try again


class AsgiApp:
    """An application for any ASGI server (https://asgi.readthedocs.io/en/latest/specs/www.html).

    `receiver` is public for protocol.py.
    """

    def __init__(self, settings: Settings, receiver: Receiver, flask_app: Flask) -> None:
        self.receiver = receiver
        self._flask = _flask_in_threads(flask_app, settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "POST":
            source = self.receiver.sources_by_path.get(scope["path"].encode())
            if source is not None:
                await receive_webhook(self.receiver, source, scope, receive, send)
                return
        await self._flask(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """https://asgi.readthedocs.io/en/latest/specs/lifespan.html"""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.receiver.counters.flush()
        tracing.stop()
        await send({"type": "lifespan.shutdown.complete"})


class _AsgiConnection:
    """Keeps the response of a delivery until it can be sent."""

    def __init__(self) -> None:
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def reply(self, _: Delivery, response: Response) -> None:
        self.response.set_result(response)


async def receive_webhook(receiver: Receiver, source: Source, scope: HTTPScope, receive: Receive, send: Send) -> None:
    """One webhook request as ASGI messages."""
    connection = _AsgiConnection()
    headers = list(scope["headers"])
    delivery = Delivery(receiver, source, connection, headers, scope["query_string"], keep_alive=False)
    delivery.start()
    try:
        await _read_body(delivery, receive)
        if not delivery.disconnected:
            await _send_response(send, await connection.response)
    finally:
        if not delivery.response_complete and not delivery.disconnected:  # the server cancelled this task
            delivery.connection_lost()


async def _read_body(delivery: Delivery, receive: Receive) -> None:
    """Feed the delivery until it is complete, rejected or disconnected."""
    more = True
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            while more and not delivery.rejected:
                chunk, more = await receive_chunk(receive)
                delivery.add_chunk(chunk)
    except TimeoutError:
        delivery.reject(HttpError(TIMEOUT_MESSAGE, 408))
    except HttpError:  # the connection was lost
        delivery.connection_lost()
    else:
        delivery.end_body()


def _flask_in_threads(app: Flask, limit_bytes: int) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Flask by a2wsgi. A request gets a thread only after its whole body arrived, so a slow body occupies none."""

    def wsgi_app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True  # type: ignore[typeddict-unknown-key]  # also for chunked bodies
        return app(cast(dict[str, Any], environ), start_response)

    threads, budget = WSGIMiddleware(wsgi_app, workers=THREADS), BodyBudget(BUDGET_BYTES)

    async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await threads(scope, receive, send)
            return
        with budget.reservation() as reserve:
            try:
                raw = await receive_body(receive, _content_length(scope), limit_bytes, reserve)
            except HttpError as error:
                await _send_response(send, json_response(*error_response(error)))
                return

            async def receive_all() -> ReceiveEvent:
                return {"type": "http.request", "body": raw, "more_body": False}

            await threads(scope, receive_all, send)

    return asgi_app


def _content_length(scope: HTTPScope) -> int:
    """0 if the request does not declare one."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


async def _send_response(send: Send, response: Response) -> None:
    await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
    await send({"type": "http.response.body", "body": response.body})
