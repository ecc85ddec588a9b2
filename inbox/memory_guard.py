"""Memory that is kept free in the store.

With a broker in the same server no worker can start when memory is full. So events are refused while there is still
room for the workers to drain what is owed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from inbox.errors import StoreUnavailable

NEARLY_FULL = 0.9
LOOK_SECONDS = 1.0


def nearly_full(used: int, most: int) -> bool:
    """Is what is left kept for the workers? Of bytes; `most` 0: no limit."""
    return most > 0 and used > most * NEARLY_FULL


class Room:
    """How much there is, looked at once a second. `memory` answers (bytes used, bytes allowed; 0: no limit)."""

    def __init__(self, memory: Callable[[], tuple[int, int]]) -> None:
        self._memory = memory
        self._seen, self._nearly_full = 0.0, False

    def leave_for_workers(self) -> None:
        """Raises StoreUnavailable where only the workers should write now.

        Only the first event waits for a look: where the server is slow, nobody has time for two answers of it.
        """
        if not self._seen:
            self._look()
        elif time.monotonic() - self._seen >= LOOK_SECONDS:
            self._seen = time.monotonic()
            with suppress(RuntimeError):  # no thread to be had: what was seen last stands
                threading.Thread(target=self._look_again, daemon=True).start()
        if self._nearly_full:
            raise StoreUnavailable("the store is nearly full")

    def _look(self) -> None:
        memory = self._memory()
        self._seen, self._nearly_full = time.monotonic(), nearly_full(*memory)

    def _look_again(self) -> None:
        with suppress(StoreUnavailable):  # what was seen last stands
            self._look()
