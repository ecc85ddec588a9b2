"""The version of the record's layout, kept in the record: which sets there are, and what a job's fields mean.

A process must not work on a record whose layout is newer than it understands, as after going back to an earlier version
of Holdfast: it would not find some of the jobs.
"""

from __future__ import annotations

from typing import Any

from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

# A change that the version before it does not notice needs a new number; 1 had one set `later` for all queues.
LAYOUT = 2


def mark(store: Store) -> None:
    """Mark the record with this layout, unless it has a newer one. The scripts handle what an older one contains."""
    with translate_errors():
        store.client.zadd(PREFIX + "layout", {"version": LAYOUT}, gt=True)  # the greater one stays, whoever comes last


def problem(store: Store) -> str:
    """What is wrong with the record's layout; empty if nothing. Raises StoreUnavailable."""
    with translate_errors():
        found: Any = store.client.zscore(PREFIX + "layout", "version")
    if (found or 0) <= LAYOUT:
        return ""
    return (
        f"the record at REDIS_URL has layout {found:g}, which a newer version of Holdfast has written; "
        f"this version understands {LAYOUT} and would not find some of its jobs"
    )
