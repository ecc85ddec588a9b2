"""Arguments for the scripts, and their replies, which are flat lists of bytes and numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.job import Batch, BatchRequest, Doorbell, Lease, NewJob
from inbox.packing import pack, unpack

# Makes the broker message of a job, which the script puts into the queue in the same step; empty: it does not.
Message = Callable[[NewJob], bytes]


# What a script shares with some others, besides common.lua.
SHARED = {"lease": ["leasing"], "lease_next": ["leasing"], "heartbeat": ["deaths"], "end_leases": ["deaths"]}


def no_message(_job: NewJob) -> bytes:
    """For a broker that is another server."""
    return b""


def script_source(name: str) -> str:
    """The source of scripts/<name>.lua, after the files that it shares with others."""
    folder = Path(__file__).parent / "scripts"
    flags = "" if name == "record" else " flags=allow-oom"
    parts = ("common", *SHARED.get(name, ()), name)
    return f"#!lua{flags}\n" + "".join((folder / f"{part}.lua").read_text() for part in parts)


def nonce() -> str:
    """Identifies one request to the store. If the client sends it twice, the reply is the same."""
    return os.urandom(8).hex()


def event_args(events: Iterable[NewEvent], message: Message) -> list[Any]:
    """Seven arguments per event and those of its jobs, for scripts/record.lua."""
    args: list[Any] = []
    for event, jobs, secret, signed in events:
        args += (event.source, event.id, event.type, pack(event.body), secret, signed)
        args += (len(jobs), *job_args(jobs, message))
    return args


def job_args(jobs: Iterable[NewJob], message: Message) -> list[Any]:
    """Seven arguments per job, for create_jobs in scripts/common.lua."""
    args: list[Any] = []
    for job in jobs:
        encoded = msgspec.json.encode(job.args)
        args += (job.id, job.task, job.queue, job.ordering_key, encoded, job.delay_seconds * 1000, message(job))
    return args


def parse_record(reply: list[bytes]) -> list[Doorbell] | StoreUnavailable | None:
    """The doorbells to ring for a new event; None for a known one; or the error."""
    result, *bells = reply
    if result == b"refused":
        return StoreUnavailable("the store cannot record this event")
    return parse_doorbells(bells) if result == b"new" else None


def parse_result(reply: list[bytes]) -> list[Doorbell] | str:
    """The doorbells to ring, or the reason why nothing was changed."""
    result, *bells = reply
    return parse_doorbells(bells) if result == b"ok" else result.decode()


def parse_lease(reply: list[Any]) -> Lease | str:
    """The lease, or the reason why there is none."""
    result, *fields = reply
    if result != b"leased":
        return str(result.decode())
    job, token, attempt, args, source, event, event_type, body, received, replays, first, *more = fields
    task, task_id, leased, *suspect = more
    return Lease(
        job_id=job.decode(),
        token=int(token),
        attempt=int(attempt),
        args=msgspec.json.decode(args),
        source=source.decode(),
        event_id=event.decode(),
        event_type=event_type.decode(),
        body=unpack(body),
        received_ms=int(received),
        replays=int(replays),
        first=first == 1,
        task=task.decode(),
        task_id=task_id.decode(),
        leased_ms=int(leased),
        suspect=suspect == [1],
    )


def batch_args(request: BatchRequest, same_server: bool) -> list[Any]:
    """The arguments of scripts/lease_next.lua."""
    pairs = [value for queue, tasks in request.tasks.items() for value in (queue, f" {' '.join(tasks)} ")]
    lease_ms, polls = int(request.lease_seconds * 1000), int(request.polls)
    fixed = (request.holder, lease_ms, request.nonce, request.number, polls, int(same_server))
    return [*fixed, int(request.takes_suspect), len(request.tasks), *pairs, *request.announced]


def parse_batch(reply: list[Any]) -> Batch:
    bells, left, *leases = reply
    found = [lease for lease in map(parse_lease, leases) if isinstance(lease, Lease)]
    return Batch(found, left == b"left", parse_doorbells(bells))


def parse_doorbells(reply: Sequence[bytes]) -> list[Doorbell]:
    """Three items per doorbell: a job's id, its task and its queue."""
    items = [item.decode() for item in reply]
    return [Doorbell(*items[i : i + 3]) for i in range(0, len(items), 3)]
