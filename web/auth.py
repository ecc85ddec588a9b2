"""API keys: comparison, a limit on wrong ones, and the names that stand for them in the audit log."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from hmac import compare_digest

from inbox import limits
from inbox.errors import StoreUnavailable
from inbox.store import Store

MAX_FAILURES, TRIES_SECONDS = 10, 60


def find_key(keys: Collection[str], given: bytes) -> str | None:
    """The key among `keys` that equals `given`, or None. Compared in constant time."""
    right = [key for key in keys if compare_digest(key.encode(), given)]
    return right[0] if right else None


def too_many_failures(store: Store, address: str) -> bool:
    """Count a wrong key from this address; True if there were more than MAX_FAILURES within a minute.

    Behind a proxy all clients share one address, so call this only for wrong keys. The length of the keys is what makes
    guessing useless. False if the store cannot count now.
    """
    try:
        return limits.count_attempt(store, f"wrong-key:{address}", TRIES_SECONDS) > MAX_FAILURES
    except StoreUnavailable:
        return False


def key_name(key: str) -> str:
    """The name of a key in the audit log, which does not reveal the key."""
    return f"api key {digest(key)}"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]
