"""A sender of a steady rate, which wrk has not: each request counts from when it was due, not from when it was sent."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import cast

import uvloop


def send(port: int, requests: Sequence[bytes], rate: float, connections: int) -> list[float]:
    """`rate` of them a second, whatever the answers do; for each, the milliseconds from its time to its answer.

    Raises RuntimeError for anything but 200s.
    """
    return uvloop.run(_Sender(rate, len(requests)).send(port, requests, connections))


class _Sender:
    """Requests that are due go to whichever connection is free."""

    def __init__(self, rate: float, count: int) -> None:
        self._rate, self._count = rate, count
        self._due: deque[tuple[float, bytes]] = deque()
        self._free: deque[_Connection] = deque()
        self._waits: list[float] = []

    async def send(self, port: int, requests: Sequence[bytes], connections: int) -> list[float]:
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = loop.create_future()
        opened = [
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port) for _ in range(connections)
        ]
        begin = time.monotonic() + 0.1
        for number, request in enumerate(requests):
            at = begin + number / self._rate
            if (early := at - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._due.append((at, request))
            self._hand_out()
        await self._over
        for transport, _ in opened:
            transport.close()
        return self._waits

    def free(self, connection: _Connection) -> None:
        self._free.append(connection)
        self._hand_out()

    def answered(self, due: float) -> None:
        self._waits.append((time.monotonic() - due) * 1000)
        if len(self._waits) == self._count:
            self._over.set_result(None)

    def broken(self, words: str) -> None:
        if not self._over.done():
            self._over.set_exception(RuntimeError(words))

    def _hand_out(self) -> None:
        while self._due and self._free:
            self._free.popleft().ask(*self._due.popleft())


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, sender: _Sender) -> None:
        self._sender, self._answer, self._at = sender, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own is not derived from it
        self._sender.free(self)

    def ask(self, at: float, request: bytes) -> None:
        self._at, self._answer = at, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        if head.split(b" ", 2)[1] == b"200":
            self._sender.answered(self._at)
            self._sender.free(self)
        else:
            self._sender.broken(f"answered {head[:30]!r}: {body[:200]!r}")

    def connection_lost(self, _error: Exception | None) -> None:
        self._sender.broken("a connection broke")


def _length(head: bytes) -> int:
    return int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
