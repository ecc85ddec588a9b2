"""What the connections of a process share: which one must go when there are too many, and which requests may wait."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

MAX_CONNECTIONS = 4096  # of one process
MAX_WAITING, MAX_WAITED_ON = 64, 128  # pipelined requests of one connection, and connections that have any
SWEEP_SECONDS, STALLED_SECONDS = 5, 30


class Connection(Protocol):
    """`stalled_since`: its client takes nothing of what was sent, or it is being closed; in seconds of the loop's
    clock. `pipeline`: requests that wait for earlier ones."""

    transport: asyncio.Transport
    stalled_since: float | None
    pipeline: deque[Any]


class Connections:
    """All of one process. Used from one event loop."""

    def __init__(self) -> None:
        self._all: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}  # no delivery was accepted on them; the oldest first
        self._waited_on: set[Connection] = set()
        self._sweeping = False

    def add(self, connection: Connection) -> None:
        """If there are too many, the oldest is closed on which no delivery was accepted."""
        self._all.add(connection)
        self._strangers[connection] = None
        if len(self._all) > MAX_CONNECTIONS:
            oldest = next(iter(self._strangers))
            self.remove(oldest)
            oldest.transport.abort()
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def trust(self, connection: Connection) -> None:
        """A delivery was accepted on it."""
        self._strangers.pop(connection, None)

    def remove(self, connection: Connection) -> None:
        for group in (self._all, self._waited_on):
            group.discard(connection)
        self._strangers.pop(connection, None)

    def may_wait(self, connection: Connection) -> bool:
        """Whether one more request may wait for earlier ones of its connection."""
        if len(self._waited_on) >= MAX_WAITED_ON:
            self._waited_on = {other for other in self._waited_on if other.pipeline}
        if connection not in self._waited_on and len(self._waited_on) >= MAX_WAITED_ON:
            return False
        self._waited_on.add(connection)
        return len(connection.pipeline) < MAX_WAITING

    def _sweep(self) -> None:
        """Abort those whose clients have taken nothing for STALLED_SECONDS: closing them would wait for the clients."""
        loop = asyncio.get_running_loop()
        for connection in list(self._all):
            if connection.stalled_since is None and connection.transport.is_closing():
                connection.stalled_since = loop.time()
            elif connection.stalled_since is not None and loop.time() - connection.stalled_since > STALLED_SECONDS:
                connection.transport.abort()
        self._sweeping = bool(self._all)
        if self._sweeping:
            loop.call_later(SWEEP_SECONDS, self._sweep)
