"""Which queues have a worker, and which worker has a name: each worker announces itself every few seconds.

An announcement that is lost is followed by the next one, so no script is needed. Times are milliseconds since 1970, by
the store's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

NAME_SECONDS = 3600  # for how long the name of a worker that has ended is remembered
GONE_MS = 60_000  # a queue whose workers have not announced themselves for that long has none


def announce(store: Store, name: str, worker: str, consumed: Iterable[str], queues: Iterable[str]) -> str:
    """Report that `worker` runs under this name and consumes some of the `queues`. The others have GONE_MS from the
    first report on to get a worker.

    Returns the worker that announced itself last under the name: this one itself, unless another has the same name or
    had it before; empty if there was none. Raises StoreUnavailable.
    """
    now = store.now_ms()
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        pipe.set(f"{PREFIX}name:{name}", worker, ex=NAME_SECONDS, get=True)
        for queue in queues:
            pipe.hsetnx(PREFIX + "consumed", queue, now)
        for queue in consumed:
            pipe.hset(PREFIX + "consumed", queue, now)
        previous: bytes | None = pipe.execute()[0]
    return (previous or b"").decode()


def announce_version(store: Store, tasks: Iterable[str], queues: Iterable[str]) -> None:
    """Report which tasks and queues the version of a running worker knows, whatever it consumes: a job that no version
    knows becomes a dead letter in time (scripts/sweep.lua). Raises StoreUnavailable."""
    names = [*(f"task {name}" for name in tasks), *(f"queue {name}" for name in queues)]
    now = store.now_ms()
    with translate_errors():
        store.client.hset(PREFIX + "known", mapping=dict.fromkeys(names, now))


def queues_without_worker(store: Store, queues: Sequence[str]) -> list[str]:
    """Those of the queues that no worker has consumed for GONE_MS. Raises StoreUnavailable."""
    with translate_errors():
        found: Any = store.client.hgetall(PREFIX + "consumed")
    consumed, now = {queue.decode(): int(at) for queue, at in found.items()}, store.now_ms()
    return [queue for queue in queues if abs(now - consumed.get(queue, now)) > GONE_MS]
