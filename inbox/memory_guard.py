"""Keeps memory free in the store for the workers.

If the broker is in the same server, no worker can start when memory is full. So new events are rejected while there is
still room for the workers to finish the jobs that exist.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from inbox.errors import StoreUnavailable

NEARLY_FULL = 0.9
CHECK_SECONDS = 1.0


def is_nearly_full(used: int, limit: int) -> bool:
    """True if the rest is reserved for the workers. Both in bytes; `limit` 0: no limit."""
    return limit > 0 and used > limit * NEARLY_FULL


class MemoryGuard:
    """Checks the store's memory once a second. `memory` returns (bytes used, bytes allowed; 0: no limit)."""

    def __init__(self, memory: Callable[[], tuple[int, int]]) -> None:
        self._memory = memory
        self._checked, self._nearly_full = 0.0, False

    def check(self) -> None:
        """Raises StoreUnavailable if only the workers should write now.

        Only the first call waits for the store. Later checks run in a thread, because a caller has no time for a second
        reply of a slow server.
        """
        if not self._checked:
            self._refresh()
        elif time.monotonic() - self._checked >= CHECK_SECONDS:
            self._checked = time.monotonic()
            with suppress(RuntimeError):  # no thread can be started: the last result stays valid
                threading.Thread(target=self._refresh_quietly, daemon=True).start()
        if self._nearly_full:
            raise StoreUnavailable("the store is nearly full")

    def _refresh(self) -> None:
        memory = self._memory()
        self._checked, self._nearly_full = time.monotonic(), is_nearly_full(*memory)

    def _refresh_quietly(self) -> None:
        with suppress(StoreUnavailable):  # the last result stays valid
            self._refresh()
