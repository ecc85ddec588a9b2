"""The alarms as the record keeps them: what they go by, how they stand, and who writes that down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any, NamedTuple

from inbox import queries, statistics
from inbox.alert_rules import HOUR_MS, Figures, Standing
from inbox.errors import StoreUnavailable
from inbox.event import Arrival
from inbox.job import Doorbell
from inbox.roundtrip import translated
from inbox.store import PREFIX, Store

DISK_LOOK_MS = 600_000  # a host that has told nothing for so long is gone


class Seen(NamedTuple):
    """How they stood when somebody last looked (ms), under a number that counts those looks."""

    version: int
    looked: int
    standing: dict[str, Standing]


def seen(store: Store) -> Seen:
    with translated():
        raw: Any = store.client.hmget(PREFIX + "alarms", "version", "looked", "state")
    version, looked, state = raw
    standing = {name: Standing(*fields) for name, fields in json.loads(state or b"{}").items()}
    return Seen(int(version or 0), int(looked or 0), standing)


def write(store: Store, before: Seen, standing: Mapping[str, Standing], tells: Arrival | None) -> list[Doorbell] | str:
    """From now on they stand like this, and the event that tells of it is owed: both or neither. Answers whom to ring;
    or `stale`, where somebody else has looked meanwhile, and nothing was changed."""
    state = json.dumps({name: astuple(one) for name, one in standing.items()})
    return store.alarm(before.version, state, tells)


def measured(store: Store, queues: Sequence[str], now: int) -> Figures:
    """What alarms go by."""
    stats, told = queries.stats(store), queries.deliveries(store)
    owed = statistics.owed(store, queues)
    return Figures(
        now=now,
        dead=stats["dead"],
        missed=stats["missed"] - _missed_before(store, now, stats["missed"]),
        owed_since={queue: since for queue, (_, since) in owed.items() if since is not None},
        last=_last(told),
        unproven={name.removeprefix("unproven:"): n for name, n in told.items() if name.startswith("unproven:")},
        memory=store.memory(),
        disks=_short_disks(store, now),
    )


def tell_disk(store: Store, host: str, free: int | None, now: int) -> None:
    """The disk of this host is short of room, with so many bytes free; None: it is not. A full store is not told."""
    with suppress(StoreUnavailable), translated():
        if free is None:
            store.client.hdel(PREFIX + "disks", host)
        else:
            store.client.hset(PREFIX + "disks", host, f"{now}:{free}")


def _short_disks(store: Store, now: int) -> dict[str, int]:
    with translated():
        raw: Any = store.client.hgetall(PREFIX + "disks")
    told = {host.decode(): [int(part) for part in value.split(b":")] for host, value in raw.items()}
    return {host: free for host, (at, free) in told.items() if now - at < DISK_LOOK_MS}


def _missed_before(store: Store, now: int, otherwise: int) -> int:
    """How many had been missed an hour ago, or at the first sample since."""
    samples = statistics.samples(store, now - HOUR_MS)
    return samples[0]["missed"] if samples else otherwise


def _last(told: Mapping[str, int]) -> dict[str, int]:
    """When each source was last believed, whichever of its secrets proved it."""
    found: dict[str, int] = {}
    for name, at in told.items():
        word, _, rest = name.partition(":")
        if word == "last":
            source = rest.partition(":")[0]
            found[source] = max(found.get(source, 0), at)
    return found
