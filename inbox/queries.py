"""Queries about events, jobs and deliveries, and about the server. Read only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from inbox.errors import StoreUnavailable
from inbox.job import JobState, StoredState, job_state
from inbox.packing import unpack
from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

COUNTS = (
    "accepted",
    "missed",
    "duplicates",
    "rejected",
    "unhandled",
    "succeeded",
    "dead",
    "discarded",
    "expired",
    "sweeps",
    "unreadable",
)


def stats(store: Store) -> dict[str, int]:
    """The number of events accepted, missed, rejected, …, and of jobs in each state; `unfinished` jobs are those that
    are pending, scheduled or running."""
    now = store.now_ms()
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        pipe.hgetall(PREFIX + "counts")
        pipe.zcount(PREFIX + "scheduled", f"({now}", "+inf")
        raw, scheduled = pipe.execute()
    stored = Counter({name.decode(): int(value) for name, value in raw.items()})
    unfinished, running = stored[StoredState.PENDING] + stored[StoredState.RUNNING], stored[StoredState.RUNNING]
    pending = max(stored[StoredState.PENDING] - scheduled, 0)
    states = {"pending": pending, "scheduled": scheduled, "running": running, "unfinished": unfinished}
    return {name: stored[name] for name in COUNTS} | states


def delivery_counts(store: Store) -> dict[str, int]:
    """Counters of deliveries: `accepted:<source>`, `duplicate:<source>`, `rejected:<source>:<reason>`,
    `verified:<source>:<secret's name>`; `unproven:<source>` of signed ones rejected since the last verified one.
    And times (ms since 1970) of the last verified ones: `last:<source>:<secret's name>`."""
    with translate_errors():
        raw: Any = store.client.hgetall(PREFIX + "deliveries")
    return {name.decode(): int(value) for name, value in raw.items()}


def attempt_counts(store: Store) -> dict[str, int]:
    """Counters of attempts: `<task>:<outcome>`; `<task>:<ms>`, attempts that took at most that long and longer than the
    next smaller limit (`inf`: no limit); `<task>:ms`, their total duration."""
    with translate_errors():
        raw: Any = store.client.hgetall(PREFIX + "attempts")
    return {name.decode(): int(value) for name, value in raw.items()}


def find_event(store: Store, source: str, event_id: str) -> dict[str, Any] | None:
    """One event with its jobs and their attempts, or None. Times are milliseconds since 1970. No payload."""
    name = f"{source}:{event_id}"
    with translate_errors():
        raw: Any = store.client.hgetall(f"{PREFIX}event:{name}")
        job_ids: Any = store.client.lrange(f"{PREFIX}jobs:{name}", 0, -1) if raw else []
    if not raw:
        return None
    fields = _text(raw)
    jobs = _find_jobs(store, job_ids)
    return {
        "source": source,
        "id": event_id,
        "type": fields["type"],
        "received": int(fields["received"]),
        "deliveries": int(fields["deliveries"]),
        "last_deliveries": _last_deliveries(fields),
        "state": _event_state(fields, jobs),
        "jobs": jobs,
    }


def _last_deliveries(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """When (ms) the last five deliveries came, in that order, and the name of the secret that proved each."""
    last = sorted(value.split(":") for name, value in fields.items() if name.startswith("heard:"))
    return [{"at": int(at), "secret": secret} for at, secret in last]


def find_body(store: Store, source: str, event_id: str) -> bytes | None:
    """The event's payload, as it was signed; None once it has been pruned."""
    with translate_errors():
        raw: Any = store.client.get(f"{PREFIX}body:{source}:{event_id}")
    return raw if raw is None else unpack(raw)


def _event_state(fields: Mapping[str, str], jobs: list[dict[str, Any]]) -> str:
    """As event_state in scripts/find.lua."""
    if any(job["state"] == JobState.DEAD for job in jobs):
        return "dead"
    done = "discarded" if int(fields.get("discarded", 0)) else "succeeded"
    return {"0": done, "-1": "unhandled"}.get(fields["open"], "open")


def find_job(store: Store, job_id: str) -> dict[str, Any] | None:
    """One job with its attempts, or None if it is unknown or has been pruned."""
    return next(iter(_find_jobs(store, [job_id.encode()])), None)


def list_dead(store: Store, limit: int) -> list[dict[str, Any]]:
    """The newest `limit` dead letters."""
    with translate_errors():
        job_ids: Any = store.client.zrevrange(PREFIX + "dead", 0, limit - 1)
    return _find_jobs(store, job_ids)


def _find_jobs(store: Store, job_ids: Sequence[bytes]) -> list[dict[str, Any]]:
    now = store.now_ms()
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hgetall(f"{PREFIX}job:{job_id.decode()}")
        found: Any = pipe.execute()
    return [_job(job_id.decode(), _text(raw), now) for job_id, raw in zip(job_ids, found, strict=True) if raw]


def _job(job_id: str, fields: Mapping[str, str], now: int) -> dict[str, Any]:
    attempts = [(int(name[8:]), json.loads(value)) for name, value in fields.items() if name.startswith("attempt:")]
    return {
        "id": job_id,
        "source": fields["source"],
        "event": fields["event"],
        "type": fields["type"],
        "task": fields["task"],
        "queue": fields["queue"],
        "state": job_state(fields["state"], int(fields["due"]), now),
        "created": int(fields["created"]),
        "due": int(fields["due"]),
        "finished": int(fields["finished"]) if "finished" in fields else None,
        "reason": fields.get("reason"),
        "discarded": int(fields["discarded"]) if "discarded" in fields else None,
        "discard_reason": fields.get("why"),
        "replays": int(fields.get("replays", 0)),
        "replayed_by": fields.get("replayed_by"),
        "attempts": [attempt for _, attempt in sorted(attempts)],
    }


def list_audit_log(store: Store, limit: int, before: str = "") -> list[dict[str, Any]]:
    """The newest `limit` actions of people, or the newest `before` the entry with that id: `at` (ms), `action`, `job`,
    `by`, the state it `was` in, and for a discard the `reason`."""
    with translate_errors():
        rows: Any = store.client.xrevrange(PREFIX + "audit", max=f"({before}" if before else "+", count=limit)
    return [_audit_entry(name.decode(), _text(fields)) for name, fields in rows]


def _audit_entry(name: str, fields: dict[str, str]) -> dict[str, Any]:
    reason = {"reason": fields.pop("why")} if "why" in fields else {}
    return {"id": name, "at": int(name.split("-", maxsplit=1)[0]), **fields, **reason}


def last_sweep_ms(store: Store) -> int | None:
    """When a worker last swept, by the store's clock."""
    with translate_errors():
        raw: Any = store.client.get(PREFIX + "swept")
    return int(raw) if raw else None


def is_cluster(store: Store) -> bool:
    """True if the server is a node of a Redis Cluster. Raises StoreUnavailable."""
    with translate_errors():
        found: Any = store.client.info("cluster")
    return bool(found.get("cluster_enabled"))


def durability(store: Store) -> dict[str, str]:
    """The server's settings and status that decide whether an acknowledged event can be lost.

    A managed server may refuse CONFIG; then the settings known only from CONFIG are left out.
    """
    with translate_errors():
        memory: Any = store.client.info("memory")
        file: Any = store.client.info("persistence")
    found = {
        "maxmemory-policy": str(memory["maxmemory_policy"]),
        "appendonly": "yes" if file["aof_enabled"] else "no",
        "aof_last_write_status": str(file["aof_last_write_status"]),
    }
    with suppress(StoreUnavailable), translate_errors():
        config: Any = store.client.config_get("appendfsync", "no-appendfsync-on-rewrite")
        found |= config
    return found


def failed_disk_writes(store: Store) -> dict[str, str]:
    """Which of the server's last writes to its append-only file failed: `aof_last_write_status` (an append),
    `aof_last_bgrewrite_status` (a rewrite). Raises StoreUnavailable."""
    with translate_errors():
        found: Any = store.client.info("persistence")
    names = ("aof_last_write_status", "aof_last_bgrewrite_status")
    return {name: str(found[name]) for name in names if found.get(name, "ok") != "ok"}


def _text(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in raw.items()}
