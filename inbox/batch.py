"""The record for a process that runs many jobs at once: one thread sends the calls of all its jobs together.

A round trip costs the store one fsync and the process a few system calls, whatever the number of its calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

from inbox import wire
from inbox.errors import StoreUnavailable
from inbox.job import Batch, BatchRequest, Doorbell, Lease
from inbox.roundtrip import store_unavailable, translate_errors
from inbox.store import STOPPING, Store
from inbox.wire import no_message

ENDS = frozenset({"finish", "fail", "release"})  # the scripts that end an attempt


class Claim(NamedTuple):
    """Identifies a lease."""

    job_id: str
    token: int


@dataclass(frozen=True, slots=True)
class Call:
    """A script that a job waits for."""

    script: str
    args: Sequence[Any]
    reply: Future[Any] = field(default_factory=Future)

    @property
    def claim(self) -> Claim:
        return Claim(self.args[0], self.args[1])


class BatchStore(Store):
    """A store whose calls for running jobs wait until another thread runs `exchange`.

    `on_call` is called after each of them. Other calls do not wait.
    """

    on_call: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._calls: deque[Call] = deque()

    def waiting(self) -> bool:
        """Whether a call waits."""
        return bool(self._calls)

    def ending(self) -> set[Claim]:
        """The leases that the waiting calls end."""
        return {call.claim for call in list(self._calls) if call.script in ENDS}

    def exchange(self, request: BatchRequest | None) -> Batch | None:
        """Run all waiting calls and the request in one round trip. Returns the reply to the request.

        Raises StoreUnavailable: then a request with the same nonce gets what the lost reply held.
        """
        calls = list(self._calls)
        scripts = [(call.script, call.args) for call in calls]
        if request:
            same_server = self._message is not no_message
            scripts.append(("lease_next", wire.batch_args(request, same_server)))
        if not scripts:
            return None
        with translate_errors():
            replies = self._raw_replies(scripts)
        for call, reply in zip(calls, replies, strict=False):
            self._calls.popleft()
            _answer(call, reply)
        return _batch(replies[-1]) if request else None

    def fail_waiting(self, error: StoreUnavailable) -> None:
        """Let the calls that wait raise the error."""
        while self._calls:
            self._calls.popleft().reply.set_exception(error)

    def release_all(self, leases: Sequence[Lease]) -> list[Doorbell]:
        """As `release` for each of them, at once and in one round trip; those that are lost are passed over."""
        with translate_errors():
            replies = self._raw_replies([("release", _release_args(lease)) for lease in leases])
        released = [reply[1:] for reply in replies if isinstance(reply, list) and reply[0] == b"ok"]
        return [bell for bells in released for bell in wire.parse_doorbells(bells)]

    def _run(self, name: str, *args: Any) -> Any:
        if name not in ENDS and name != "renew":
            return super()._run(name, *args)
        call = Call(name, args)
        self._calls.append(call)
        self.on_call()
        return call.reply.result()


def _release_args(lease: Lease) -> tuple[Any, ...]:
    return lease.job_id, lease.token, STOPPING, ""


def _answer(call: Call, reply: Any) -> None:
    if isinstance(reply, redis.RedisError):
        call.reply.set_exception(store_unavailable(reply))
    else:
        call.reply.set_result(reply)


def _batch(reply: Any) -> Batch:
    if isinstance(reply, redis.RedisError):
        raise store_unavailable(reply)
    return wire.parse_batch(reply)
