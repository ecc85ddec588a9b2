"""The scripts, how jobs go to them, and how their answers are read: Redis carries flat lists of bytes and numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.job import Doorbell, Lease, NewJob
from inbox.packing import pack, unpack

# The ready-made broker message of a job, to be pushed in the same step; empty where the broker is another server.
Message = Callable[[NewJob], bytes]


def script_source(name: str) -> str:
    """The source of scripts/<name>.lua, with what is common to all of them in front."""
    folder = Path(__file__).parent / "scripts"
    flags = "" if name == "record" else " flags=allow-oom"
    return f"#!lua{flags}\n" + (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


def nonce() -> str:
    """Names one question to the store; should the client put it twice, the answer is the same."""
    return os.urandom(8).hex()


def event_args(them: Iterable[NewEvent], message: Message) -> list[Any]:
    """Six arguments an event, and those of its jobs, as scripts/record.lua takes them."""
    args: list[Any] = []
    for event, jobs, secret in them:
        args += (event.source, event.id, event.type, pack(event.body), secret, len(jobs), *job_args(jobs, message))
    return args


def job_args(jobs: Iterable[NewJob], message: Message) -> list[Any]:
    """Seven arguments a job, as create_all in scripts/common.lua takes them."""
    args: list[Any] = []
    for job in jobs:
        own = msgspec.json.encode(job.args)
        args += (job.id, job.task, job.queue, job.ordering_key, own, job.delay_seconds * 1000, message(job))
    return args


def parse_record(answer: list[bytes]) -> list[Doorbell] | StoreUnavailable | None:
    """Whom to ring for an event that is new; None if it was known; or why it is not recorded."""
    word, *bells = answer
    if word == b"refused":
        return StoreUnavailable("the store cannot take this event")
    return parse_doorbells(bells) if word == b"new" else None


def parse_result(answer: list[bytes]) -> list[Doorbell] | str:
    """Whom to ring, or the one word why nothing was changed."""
    word, *bells = answer
    return parse_doorbells(bells) if word == b"ok" else word.decode()


def parse_lease(answer: list[Any]) -> Lease | str:
    """The lease, or the one word why there is none."""
    word, *fields = answer
    if word != b"leased":
        return str(word.decode())
    job, token, attempt, args, source, event, kind, body, received, replays, first, task, task_id = fields
    return Lease(
        job_id=job.decode(),
        token=int(token),
        attempt=int(attempt),
        args=msgspec.json.decode(args),
        source=source.decode(),
        event_id=event.decode(),
        event_type=kind.decode(),
        body=unpack(body),
        received_ms=int(received),
        replays=int(replays),
        first=first == 1,
        task=task.decode(),
        task_id=task_id.decode(),
    )


def parse_doorbells(answer: Sequence[bytes]) -> list[Doorbell]:
    """Each is a job's id, its task and its queue."""
    words = [word.decode() for word in answer]
    return [Doorbell(*words[i : i + 3]) for i in range(0, len(words), 3)]
