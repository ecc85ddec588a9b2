"""Rate limits that all processes share."""

from __future__ import annotations

from typing import Any

from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store


def count_attempt(store: Store, name: str, seconds: int) -> int:
    """Count an attempt under `name`. Returns the number of attempts, this one included, within `seconds` of the
    first."""
    key = f"{PREFIX}tries:{name}"
    with translate_errors(), store.client.pipeline() as pipe:
        pipe.incr(key)
        pipe.expire(key, seconds, nx=True)
        replies: Any = pipe.execute()
    return int(replies[0])
