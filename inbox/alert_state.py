"""Alerts in the record: the measurements they are computed from, and the state they are in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any, NamedTuple

from inbox import queries, statistics
from inbox.alert_rules import HOUR_MS, AlertInputs, AlertState
from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.job import Doorbell
from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

DISK_REPORT_TTL_MS = 600_000  # a host that has reported nothing for that long is gone


class AlertSnapshot(NamedTuple):
    """The alerts at the last check (milliseconds since 1970). `version` counts the checks."""

    version: int
    checked_ms: int
    alerts: dict[str, AlertState]


def load_alerts(store: Store) -> AlertSnapshot:
    with translate_errors():
        raw: Any = store.client.hmget(PREFIX + "alarms", "version", "looked", "state")
    version, checked_ms, state = raw
    alerts = {name: AlertState(*fields) for name, fields in json.loads(state or b"{}").items()}
    return AlertSnapshot(int(version or 0), int(checked_ms or 0), alerts)


def save_alerts(
    store: Store, before: AlertSnapshot, alerts: Mapping[str, AlertState], event: NewEvent | None
) -> list[Doorbell] | str:
    """Save the alerts and record the event that announces them, in one step.

    Returns the doorbells to ring, or `stale` if another process has checked since `before`; then nothing is changed.
    """
    state = json.dumps({name: astuple(alert) for name, alert in alerts.items()})
    return store.save_alerts(before.version, state, event)


def measure(store: Store, queues: Sequence[str], now: int) -> AlertInputs:
    """What the alerts are computed from, as it is now."""
    stats, deliveries = queries.stats(store), queries.delivery_counts(store)
    unfinished = statistics.unfinished_by_queue(store, statistics.with_unknown_queues(store, queues))
    return AlertInputs(
        now=now,
        dead=stats["dead"],
        missed=stats["missed"] - _missed_before(store, now, stats["missed"]),
        unfinished_since={queue: since for queue, (_, since) in unfinished.items() if since is not None},
        last=_last_verified(deliveries),
        unproven={name.removeprefix("unproven:"): n for name, n in deliveries.items() if name.startswith("unproven:")},
        memory=store.memory(),
        disks=_short_disks(store, now),
    )


def record_disk(store: Store, host: str, free: int | None, now: int) -> None:
    """Report that this host's disk is short, with `free` bytes left, or that it is not (None). Does nothing if the
    store is full."""
    with suppress(StoreUnavailable), translate_errors():
        if free is None:
            store.client.hdel(PREFIX + "disks", host)
        else:
            store.client.hset(PREFIX + "disks", host, f"{now}:{free}")


def _short_disks(store: Store, now: int) -> dict[str, int]:
    with translate_errors():
        raw: Any = store.client.hgetall(PREFIX + "disks")
    reports = {host.decode(): [int(part) for part in value.split(b":")] for host, value in raw.items()}
    return {host: free for host, (at, free) in reports.items() if now - at < DISK_REPORT_TTL_MS}


def _missed_before(store: Store, now: int, default: int) -> int:
    """The number of missed events an hour ago, or at the first sample after that; without samples `default`."""
    samples = statistics.samples(store, now - HOUR_MS)
    return samples[0]["missed"] if samples else default


def _last_verified(deliveries: Mapping[str, int]) -> dict[str, int]:
    """The time of each source's last verified delivery, by any of its secrets."""
    last: dict[str, int] = {}
    for name, at in deliveries.items():
        kind, _, rest = name.partition(":")
        if kind == "last":
            source = rest.partition(":")[0]
            last[source] = max(last.get(source, 0), at)
    return last
