"""The ASGI application: webhooks and health in the event loop, everything else by Flask in threads.

Under `python -m web`, protocol.py usually handles webhooks before they become ASGI messages; the same code runs then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from a2wsgi.asgi_typing import HTTPScope, Receive, Scope, Send

from telemetry import tracing
from web.body import TIMEOUT_MESSAGE, allowed_seconds, receive_chunk
from web.errors import HttpError
from web.flask_host import FlaskHost
from web.receiver.connections import Connections
from web.receiver.delivery import Delivery
from web.receiver.receiver import Receiver
from web.receiver.sources import Source
from web.responses import Response, send_response

Page = Callable[[HTTPScope, Send], Awaitable[None]]


class AsgiApp:
    """An application for any ASGI server (https://asgi.readthedocs.io/en/latest/specs/www.html).

    `in_loop` has the pages, by path, that need no thread. What is public is so for protocol.py.
    """

    def __init__(self, receiver: Receiver, pages: FlaskHost, in_loop: Mapping[str, Page]) -> None:
        self.receiver, self.pages, self._in_loop = receiver, pages, in_loop
        self.connections = Connections()
        self.default_headers: tuple[Sequence[tuple[bytes, bytes]], bytes] = (), b""  # and the same as lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        source = self.receiver.sources_by_path.get(scope["path"].encode()) if scope["method"] == "POST" else None
        if source is not None:
            await receive_webhook(self.receiver, source, scope, receive, send)
        elif page := self._in_loop.get(scope["path"]):
            await page(scope, send)
        else:
            await self.pages(scope, receive, send)

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
            await send_response(send, await connection.response)
    finally:
        if not delivery.response_complete and not delivery.disconnected:  # the server cancelled this task
            delivery.connection_lost()


async def _read_body(delivery: Delivery, receive: Receive) -> None:
    """Feed the delivery until it is complete, rejected or disconnected."""
    more, began = True, asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(allowed_seconds(0)) as timeout:
            while more and not delivery.rejected:
                chunk, more = await receive_chunk(receive)
                delivery.add_chunk(chunk)
                delivery.await_rest()
                timeout.reschedule(began + allowed_seconds(delivery.size))
    except TimeoutError:
        delivery.reject(HttpError(TIMEOUT_MESSAGE, 408))
    except HttpError:  # the connection was lost
        delivery.connection_lost()
    else:
        delivery.end_body()
