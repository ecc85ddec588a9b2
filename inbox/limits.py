"""How often somebody has tried, counted where all processes see it."""

from __future__ import annotations

from typing import Any

from inbox.roundtrip import translated
from inbox.store import PREFIX, Store


def tries(store: Store, name: str, seconds: int) -> int:
    """Count a try under `name`: how many there were, this one included, within `seconds` of the first."""
    key = f"{PREFIX}tries:{name}"
    with translated(), store.client.pipeline() as both:
        both.incr(key)
        both.expire(key, seconds, nx=True)
        made: Any = both.execute()
    return int(made[0])
