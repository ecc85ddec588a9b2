"""One of API_KEYS: is it one, and what stands for it wherever people look."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from hmac import compare_digest


def matching(keys: Collection[str], given: bytes) -> str | None:
    """The key that was given, if it is one; each is compared whole, so that no time tells how much was right."""
    right = [key for key in keys if compare_digest(key.encode(), given)]
    return right[0] if right else None


def who(key: str) -> str:
    """The name of whoever bears it, for the audit trail; it tells nothing of the key."""
    return f"api key {digest(key)}"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]
