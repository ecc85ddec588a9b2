"""API keys: comparison, scopes, and limits on wrong keys, on the requests of a key, and on its mails and replays."""

from __future__ import annotations

import threading
from collections.abc import Collection
from hmac import compare_digest

from inbox import limits
from inbox.errors import StoreUnavailable
from inbox.store import Store
from settings import ApiKey
from web.errors import HttpError

MAX_FAILURES, TRIES_SECONDS = 10, 60
MAIL_SECONDS = 3600
MAX_REPLAYS, REPLAYS_SECONDS = 10_000, 24 * 3600


def find_key(keys: Collection[ApiKey], given: bytes) -> ApiKey | None:
    """The key among `keys` whose secret equals `given`, or None. Compared in constant time."""
    right = [key for key in keys if compare_digest(key.secret.encode(), given)]
    return right[0] if right else None


def require_scope(key: ApiKey, scope: str) -> None:
    """Raises HttpError, 403, if the key lacks the scope."""
    if scope not in key.scopes:
        raise HttpError(f"this needs a key with the scope {scope}; {key.name} has {', '.join(sorted(key.scopes))}", 403)


def too_many_failures(store: Store, address: str) -> bool:
    """Count a wrong key from this address; True if there were more than MAX_FAILURES within a minute.

    Behind a proxy all clients share one address, so call this only for wrong keys. The length of the keys is what makes
    guessing useless. False if the store cannot count now.
    """
    try:
        return limits.count_attempt(store, f"wrong-key:{address}", TRIES_SECONDS) > MAX_FAILURES
    except StoreUnavailable:
        return False


def count_mail(store: Store, name: str, per_hour: int) -> None:
    """Count a mail that this key requests, in all processes together. Raises HttpError, 429, if there were too many."""
    if limits.count_attempt(store, f"mail:{name}", MAIL_SECONDS) > per_hour:
        raise HttpError(f"{name} may request {per_hour} mails an hour (API_MAILS_PER_HOUR)", 429, MAIL_SECONDS)


def count_replay(store: Store, name: str) -> None:
    """Count a replay of one job by this key, in all processes together. Raises HttpError, 429, if there were too many:
    each is an entry in the audit log, which the store keeps for RETENTION_DAYS."""
    if limits.count_attempt(store, f"replay:{name}", REPLAYS_SECONDS) > MAX_REPLAYS:
        raise HttpError(f"{name} may replay {MAX_REPLAYS} single jobs a day; a bulk replay has no limit", 429, 3600)


class RateLimit:
    """At most `per_minute` requests of each key within a minute, in this process. May be used by several threads."""

    def __init__(self, per_minute: int) -> None:
        self._seconds = 60 / per_minute  # between two requests of a steady stream
        self._next: dict[str, float] = {}  # when the stream would send its next request, by name of the key
        self._lock = threading.Lock()

    def count(self, name: str, now: float) -> None:
        """Count a request at `now` (seconds, monotonic). Raises HttpError, 429, if there were too many."""
        with self._lock:
            at = max(self._next.get(name, now), now)
            wait = at - now - (60 - self._seconds)
            if wait <= 0:
                self._next[name] = at + self._seconds
        if wait > 0:
            raise HttpError(f"too many requests by {name} (API_RATE_PER_MINUTE)", 429, int(wait) + 1)
