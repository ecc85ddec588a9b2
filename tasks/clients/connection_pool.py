"""Connections that stay open between two calls, so that the next call to the same peer need not connect again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

LEAST_IDLE_CONNECTIONS = 128
MAX_IDLE_SECONDS = 30.0
MAX_AGE_SECONDS = 300.0  # then the name is resolved again
_most_idle = LEAST_IDLE_CONNECTIONS


def most_idle() -> int:
    """How many idle connections this process keeps."""
    return _most_idle


def keep_idle(users: int) -> None:
    """Keep as many idle connections as this many threads can use at once. Call it before the first connection."""
    global _most_idle  # noqa: PLW0603
    _most_idle = max(LEAST_IDLE_CONNECTIONS, users)


def is_young(born: float) -> bool:
    """Whether a connection that was opened at the time.monotonic() `born` may still be used."""
    return time.monotonic() - born < MAX_AGE_SECONDS


class Closable(Protocol):
    def is_usable(self) -> bool:
        """Whether the peer has neither closed the connection nor sent anything while it was idle."""

    def close(self) -> None:
        """Close it at once, without a word to the peer."""

    def end(self) -> None:
        """Close it as the protocol wants it, without waiting for the peer."""


C = TypeVar("C", bound=Closable)


class ConnectionPool(Generic[C]):
    """The idle connections of this process, each with a key: its peer, and the credentials that it was opened for.

    A connection is in use by one thread, or here. A forked process begins with none: two processes that write to one
    connection would mix their requests. If there are too many (`most_idle`, unless a size is given), the one that was
    used longest ago is closed.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._idle: list[tuple[Hashable, float, C]] = []  # key, idle since; in the order of that time
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def take(self, key: Hashable, idle_seconds: float = MAX_IDLE_SECONDS) -> C | None:
        """The connection with this key that was used last, if it has been idle no longer than this and is usable."""
        while found := self._pop(key):
            since, connection = found
            if time.monotonic() - since <= idle_seconds and connection.is_usable():
                return connection
            connection.close()
        return None

    def give(self, key: Hashable, connection: C) -> None:
        """Keep a connection for the next call."""
        now = time.monotonic()
        with self._lock:
            self._idle.append((key, now, connection))
            surplus = len(self._idle) - (self._size or most_idle())
            old = [one for n, one in enumerate(self._idle) if n < surplus or now - one[1] > MAX_IDLE_SECONDS]
            del self._idle[: len(old)]
        for *_, unused in old:
            unused.end()

    def _pop(self, key: Hashable) -> tuple[float, C] | None:
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == key:
                    _, since, connection = self._idle.pop(index)
                    return since, connection
        return None

    def _forget(self) -> None:
        """In a forked process: close our copies only. Another thread may have held the lock at the fork."""
        idle, self._idle, self._lock = self._idle, [], threading.Lock()
        for *_, connection in idle:
            connection.close()
