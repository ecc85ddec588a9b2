"""Console sessions that a person has ended before their cookie expires, known to all processes."""

from __future__ import annotations

import threading

from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

MAX_REMEMBERED = 1000


class EndedSessions:
    """The store has them all; the newest that this process has met are remembered. May be used by several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._remembered: dict[str, None] = {}  # as an ordered set
        self._lock = threading.Lock()

    def end(self, session: str, seconds: int) -> None:
        """End a session. `seconds` is how long its cookie would still be valid, at most. Raises StoreUnavailable."""
        with translate_errors():
            self._store.client.set(_key(session), b"", ex=seconds)
        self._remember(session)

    def has(self, session: str) -> bool:
        """Whether a person has ended the session. Raises StoreUnavailable."""
        if self.remembers(session):
            return True
        with translate_errors():
            ended = bool(self._store.client.exists(_key(session)))
        if ended:
            self._remember(session)
        return ended

    def remembers(self, session: str) -> bool:
        """Whether this process has met the session after its end; asks nobody."""
        return session in self._remembered

    def _remember(self, session: str) -> None:
        with self._lock:
            self._remembered[session] = None
            if len(self._remembered) > MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]


def _key(session: str) -> str:
    return f"{PREFIX}ended-session:{session}"
