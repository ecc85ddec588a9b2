"""The record for a process that runs many jobs at once: one thread sends the calls of all its jobs together.

A round trip costs the store one fsync and the process a few system calls, whatever the number of its calls.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import redis

from inbox import wire
from inbox.errors import StoreUnavailable
from inbox.job import Batch, BatchRequest
from inbox.roundtrip import store_unavailable, translate_errors
from inbox.store import Store
from inbox.wire import no_message

OF_JOBS = frozenset({"finish", "fail", "release", "renew"})  # the scripts that a running job calls


@dataclass(frozen=True, slots=True)
class Call:
    """A script that a job waits for."""

    script: str
    args: Sequence[Any]
    reply: Future[Any] = field(default_factory=Future)
    made: float = field(default_factory=time.monotonic)


class BatchStore(Store):
    """A store whose calls for running jobs wait until another thread runs `exchange`.

    `on_call` is called after each of them. Other calls do not wait.
    """

    on_call: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._calls: deque[Call] = deque()

    def waiting(self) -> int:
        """The number of calls that wait."""
        return len(self._calls)

    def exchange(self, request: BatchRequest | None) -> Batch | None:
        """Run all waiting calls and the request in one round trip. Returns the reply to the request.

        Raises StoreUnavailable: then the calls wait for the next exchange.
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

    def give_up(self, older_than_seconds: float) -> None:
        """Let the calls that have waited for so long fail with StoreUnavailable."""
        while self._calls and time.monotonic() - self._calls[0].made > older_than_seconds:
            self._calls.popleft().reply.set_exception(StoreUnavailable("the store did not reply in time"))

    def _run(self, name: str, *args: Any) -> Any:
        if name not in OF_JOBS:
            return super()._run(name, *args)
        call = Call(name, args)
        self._calls.append(call)
        self.on_call()
        return call.reply.result()


def _answer(call: Call, reply: Any) -> None:
    if isinstance(reply, redis.RedisError):
        call.reply.set_exception(store_unavailable(reply))
    else:
        call.reply.set_result(reply)


def _batch(reply: Any) -> Batch:
    if isinstance(reply, redis.RedisError):
        raise store_unavailable(reply)
    return wire.parse_batch(reply)
