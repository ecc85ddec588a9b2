"""One of API_KEYS: is it one, and what stands for it wherever people look."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from hmac import compare_digest

from inbox import limits
from inbox.errors import StoreUnavailable
from inbox.store import Store

MOST_TRIES, TRIES_SECONDS = 10, 60


def find_key(keys: Collection[str], given: bytes) -> str | None:
    """The key that was given, if it is one; each is compared whole, so that no time tells how much was right."""
    right = [key for key in keys if compare_digest(key.encode(), given)]
    return right[0] if right else None


def too_many_failures(store: Store, address: str) -> bool:
    """Count a wrong key of this address; True where it has had too many of them within a minute. Behind a proxy that
    is everybody together, so a right one is never asked this: what keeps guessers out is that keys are long.

    A store that is full cannot count, and says no.
    """
    try:
        return limits.count_attempt(store, f"wrong-key:{address}", TRIES_SECONDS) > MOST_TRIES
    except StoreUnavailable:
        return False


def key_name(key: str) -> str:
    """The name of whoever bears it, for the audit trail; it tells nothing of the key."""
    return f"api key {digest(key)}"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]
