"""Sends requests at a constant rate. Packaged generators either have no rate (wrk), do not correct for coordinated
omission (hey), or cannot send a different body each time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import cast

import uvloop


def send(port: int, requests: Sequence[bytes], rate: float, connections: int) -> list[float]:
    """Send `rate` requests per second; returns the milliseconds from each one's due time to its response.

    Raises RuntimeError for any answer but 200.
    """
    return uvloop.run(_Sender(len(requests)).send(port, requests, rate, connections))


class _Sender:
    """Gives each due request to a free connection."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._due: deque[tuple[float, bytes]] = deque()
        self._free: deque[_Connection] = deque()
        self._latencies: list[float] = []

    async def send(self, port: int, requests: Sequence[bytes], rate: float, connections: int) -> list[float]:
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = loop.create_future()
        opened = [
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port) for _ in range(connections)
        ]
        begin = time.monotonic() + 0.1
        for number, request in enumerate(requests):
            due = begin + number / rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._due.append((due, request))
            self._assign()
        await self._finished
        for transport, _ in opened:
            transport.close()
        return self._latencies

    def on_free(self, connection: _Connection) -> None:
        self._free.append(connection)
        self._assign()

    def on_success(self, due: float) -> None:
        self._latencies.append((time.monotonic() - due) * 1000)
        if len(self._latencies) == self._count:
            self._finished.set_result(None)

    def on_failure(self, reason: str) -> None:
        if not self._finished.done():
            self._finished.set_exception(RuntimeError(reason))

    def _assign(self) -> None:
        while self._due and self._free:
            self._free.popleft().request(*self._due.popleft())


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, sender: _Sender) -> None:
        self._sender, self._response, self._due = sender, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's class is not derived from it
        self._sender.on_free(self)

    def request(self, due: float, request: bytes) -> None:
        self._due, self._response = due, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._response += data
        head, end, body = self._response.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        if head.split(b" ", 2)[1] == b"200":
            self._sender.on_success(self._due)
            self._sender.on_free(self)
        else:
            self._sender.on_failure(f"the response was {head[:30]!r}: {body[:200]!r}")

    def connection_lost(self, _error: Exception | None) -> None:
        self._sender.on_failure("a connection broke")
