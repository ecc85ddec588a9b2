"""The durable record in Redis.

Each change is one named atomic script in scripts/, whose head lists what it guards against. Every method raises
StoreUnavailable if Redis cannot be reached, is full, is loading or is read-only; then nothing was changed in part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis

from inbox import wire
from inbox.errors import LeaseLost, StoreUnavailable
from inbox.event import Event, NewEvent
from inbox.job import Doorbell, Lease, NewJob, NextJobRequest
from inbox.memory_guard import MemoryGuard
from inbox.retry import DeadLetter, RetryAt
from inbox.roundtrip import Command, execute, first_confirmed, store_unavailable, translate_errors
from inbox.rules import Rules
from inbox.wire import Message, no_message

PREFIX = "{holdfast}:"
SCRIPTS = (
    *("record", "lease", "lease_next", "renew", "finish", "fail", "release", "sweep", "heartbeat", "end_leases"),
    *("replay", "discard", "find", "save_alerts"),
)
STOPPING = "the worker was stopping"  # why a job was returned

REPLICA_MS = 500  # the maximum time for a replica to confirm; less than the time for one reply with its fsync

# The result of recording one event: the doorbells to ring; None if it was known; or the error.
Outcome = list[Doorbell] | None | StoreUnavailable


class Store:
    """The record. `message` makes the Celery message of a job if the broker is the same Redis; `now_ms` replaces the
    server's clock in tests.

    An event is recorded and a job replayed only after `replicas_ack` replicas have confirmed it (docs/decisions/0005).
    """

    def __init__(
        self,
        client: redis.Redis,
        rules: Rules | None = None,
        *,
        message: Message = no_message,
        replicas_ack: int = 0,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.client = client
        self._message, self.replicas_ack, self._now_ms = message, replicas_ack, now_ms
        rules = rules or Rules()
        self._rules = rules.script_args()
        self._worker_timeout_ms = int(rules.worker_timeout_seconds * 1000)
        self.memory_guard = MemoryGuard(self.memory)
        self._scripts = {name: client.register_script(wire.script_source(name)) for name in SCRIPTS}

    def record(
        self, event: Event, jobs: Sequence[NewJob], secret: str = "", *, counted: str = "accepted"
    ) -> list[Doorbell] | None:
        """Record an event with its jobs, once.

        Returns the doorbells to ring (none if the script itself put the messages into the broker's queues), or None if
        the event was known; then nothing is changed. `secret` is the name of the secret that verified the delivery,
        never the secret; its use is counted either way. A new event is `counted` as accepted (delivered), missed (found
        by a reconcile) or due (created by our own clock).
        """
        (outcome,) = self.record_all([NewEvent(event, jobs, secret)], counted=counted)
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        return outcome

    def record_all(self, events: Sequence[NewEvent], *, counted: str = "accepted") -> list[Outcome]:
        """Record all of them in one step with one fsync. For each, what `record` would return or raise."""
        try:
            self.memory_guard.check()
            replies = self._run_confirmed("record", counted, *wire.event_args(events, self._message))
        except StoreUnavailable as error:
            return [error for _ in events]
        return [wire.parse_record(reply) for reply in replies]

    # The next two are for inbox/recorder.py, which does the same in an event loop.

    def record_commands(self, events: Sequence[NewEvent]) -> list[Command]:
        """The commands of `record_all` for delivered events."""
        return [self._command("record", "accepted", *wire.event_args(events, self._message)), *self._wait()]

    def load_command(self, name: str) -> Command:
        """Loads a script into a server that is new or has just become master."""
        return ("SCRIPT", "LOAD", self._scripts[name].script)

    def lease(
        self, job_id: str, holder: str, lease_seconds: float, task_id: str = "", *, nonce: str = ""
    ) -> Lease | str:
        """Lease a job. Without a lease, returns the reason: unknown, done, busy, early or waiting.

        If it is repeated with the same `nonce`, because its reply was lost, it gets the same lease.
        """
        lease_ms = int(lease_seconds * 1000)
        return wire.parse_lease(self._run("lease", job_id, holder, lease_ms, nonce or wire.nonce(), task_id))

    def renew(self, lease: Lease, lease_seconds: float) -> None:
        """Extend a lease to `lease_seconds` from now. Raises LeaseLost."""
        if not self._run("renew", lease.job_id, lease.token, int(lease_seconds * 1000)):
            raise LeaseLost(lease.job_id)

    def finish(self, lease: Lease, follow_ups: Sequence[NewJob] = ()) -> list[Doorbell]:
        """Mark the job as succeeded and create its follow-ups. Returns the doorbells to ring. Raises LeaseLost."""
        return self._bells(lease, self._run("finish", lease.job_id, lease.token, *self._job_args(follow_ups)))

    def finish_and_lease(
        self, lease: Lease, follow_ups: Sequence[NewJob], request: NextJobRequest
    ) -> tuple[list[Doorbell] | LeaseLost | StoreUnavailable, Lease | str]:
        """What `finish` returns or raises, and a lease for the next doorbell's job, in one round trip with one fsync.

        Instead of the lease, the reason why there is none: as in `lease`, or `none` if there is no suitable job or the
        broker is another server.
        """
        if self._message is no_message:
            return self.finish(lease, follow_ups), "none"
        lease_ms = int(request.lease_seconds * 1000)
        lease_args = ("", request.holder, lease_ms, request.nonce, "", request.queue, *request.tasks)
        finish_args = (lease.job_id, lease.token, *self._job_args(follow_ups))
        with translate_errors():
            finished, found = self._raw_replies([("finish", finish_args), ("lease", lease_args)])
        if isinstance(found, redis.RedisError):  # each of the two scripts takes effect even if the other fails
            found = [b"none"]
        if isinstance(finished, redis.RedisError):
            return store_unavailable(finished), wire.parse_lease(found)
        next_lease = wire.parse_lease(found)
        if finished[0] == b"stale":
            return LeaseLost(lease.job_id), next_lease
        leased = next_lease.job_id if isinstance(next_lease, Lease) else ""
        return [bell for bell in wire.parse_doorbells(finished[1:]) if bell.job_id != leased], next_lease

    def push(self, bells: Sequence[Doorbell], *, first: bool = False) -> Sequence[Doorbell]:
        """Put doorbells at the end of their queues, for a hundredth of what Celery takes; or first, for jobs whose
        turn has come before, because they are returned or have waited for their ordering key.

        Returns those to be rung in another way: all, if the broker is another server. The sweep rings lost ones.
        """
        if self._message is no_message or not bells:
            return bells
        jobs = [NewJob(bell.job_id, bell.task, bell.queue) for bell in (reversed(bells) if first else bells)]
        with suppress(StoreUnavailable), translate_errors():
            self._replies([], *(("RPUSH" if first else "LPUSH", job.queue, self._message(job)) for job in jobs))
        return ()

    def fail(
        self, lease: Lease, reason: str, decision: RetryAt | DeadLetter, follow_ups: Sequence[NewJob] = ()
    ) -> list[Doorbell]:
        """Record a failed attempt with its `reason` (no personal data), and retry the job or make it a dead letter.

        Creates the `follow_ups` of a dead letter. Returns the doorbells to ring. Raises LeaseLost.
        """
        due = decision.due_ms if isinstance(decision, RetryAt) else ""
        args = (lease.job_id, lease.token, reason, due, *self._job_args(follow_ups))
        return self._bells(lease, self._run("fail", *args))

    def release(self, lease: Lease) -> list[Doorbell]:
        """Return the job for another worker to run now; no attempt is counted. Raises LeaseLost."""
        return self._release(lease, STOPPING, "")

    def postpone(self, lease: Lease, reason: str, due_ms: int) -> list[Doorbell]:
        """Return the job with a later due time; no attempt is counted. Raises LeaseLost."""
        return self._release(lease, reason, due_ms)

    def sweep(self, limit: int, room: Mapping[str, int]) -> list[Doorbell]:
        """The doorbells to ring again: of at most `limit` jobs that are due or whose lease has expired; and by queue,
        of at most `limit` jobs that newer ones have overtaken and `room[queue]` others that no worker answered."""
        pairs = [value for queue, free in room.items() for value in (queue, max(free, 0))]
        return wire.parse_doorbells(self._run("sweep", limit, *pairs))

    def heartbeat(self, worker: str) -> tuple[list[str], list[Doorbell]]:
        """Report that this worker is alive. Ends the leases of all workers that did not report in time.

        Returns the processes of this worker that hold leases, each as `<worker>/<process>`, and the doorbells to ring.
        """
        holders, bells = self._run("heartbeat", worker, self._worker_timeout_ms)
        return [holder.decode() for holder in holders], wire.parse_doorbells(bells)

    def end_leases(self, holder: str) -> list[Doorbell]:
        """The process `<worker>/<process>` has died: its leases end now. Returns the doorbells to ring."""
        return wire.parse_doorbells(self._run("end_leases", holder.rpartition("/")[0], holder))

    def replay(self, job_id: str, by: str, *, only: str = "") -> list[Doorbell] | str:
        """Run a final job again for the person `by`. Returns the doorbells to ring, or the reason why not: unknown,
        unfinished (it will run anyway), pruned (without payload); or the job's state, if it is not `only`."""
        return wire.parse_result(self._run_confirmed("replay", job_id, by, only))

    def discard(self, job_id: str, by: str, why: str) -> str:
        """Discard a dead letter for the person `by`. Returns "", or the reason why not: unknown, unfinished, done,
        already."""
        result = wire.parse_result(self._run_confirmed("discard", job_id, by, why))
        return result if isinstance(result, str) else ""

    def save_alerts(self, version: int, state: str, event: NewEvent | None) -> list[Doorbell] | str:
        """See inbox/alert_state.py."""
        events = wire.event_args([event] if event else [], self._message)
        return wire.parse_result(self._run("save_alerts", version, state, *events))

    def find(self, *args: Any) -> Any:
        """See inbox/find.py."""
        return self._run("find", *args)

    def count(self, deliveries: Mapping[str, int]) -> None:
        """Add to the counters of deliveries, whose names are listed at `delivery_counts` in inbox/queries.py."""
        with translate_errors(), self.client.pipeline(transaction=False) as pipe:
            for name, times in deliveries.items():
                pipe.hincrby(PREFIX + "deliveries", name, times)
            rejected = sum(times for name, times in deliveries.items() if name.startswith("rejected:"))
            pipe.hincrby(PREFIX + "counts", "rejected", rejected)
            pipe.execute()

    def now_ms(self) -> int:
        """The store's clock, the one all workers share."""
        if self._now_ms:
            return self._now_ms()
        with translate_errors():
            seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def memory(self) -> tuple[int, int]:
        """(bytes the server uses, bytes it may use; 0: no limit)."""
        with translate_errors():
            found: Any = self.client.info("memory")
        return int(found["used_memory"]), int(found["maxmemory"])

    def write_error(self) -> str:
        """The server's error reply to a write, for example because it is full or a replica; empty if it accepts one."""
        with translate_errors():
            (reply,) = self._execute([("SET", PREFIX + "probe", "")])
        return str(reply) if isinstance(reply, redis.RedisError) else ""

    def replicas(self) -> int:
        """How many replicas confirm a write now; at most `replicas_ack` are waited for."""
        with translate_errors():
            return int(self._replies([], ("SET", PREFIX + "probe", ""), ("WAIT", self.replicas_ack, REPLICA_MS))[1])

    def _run(self, name: str, *args: Any) -> Any:
        with translate_errors():
            return self._replies([(name, args)])[0]

    def _run_confirmed(self, name: str, *args: Any) -> Any:
        """Run a script whose effect must be confirmed by replicas."""
        try:
            with translate_errors():
                return first_confirmed(self._raw_replies([(name, args)], *self._wait()), self.replicas_ack)
        except StoreUnavailable:
            if self.replicas_ack:
                # This master may have lost its replicas to a new one: new connections ask the Sentinels for the master.
                self.client.connection_pool.disconnect(inuse_connections=False)
            raise

    def _wait(self) -> list[Command]:
        return [("WAIT", self.replicas_ack, REPLICA_MS)] if self.replicas_ack else []

    def _replies(self, calls: Sequence[tuple[str, Sequence[Any]]], *after: Command) -> list[Any]:
        """The replies of these scripts and of the commands `after` them, in one round trip. Raises the first error."""
        replies = self._raw_replies(calls, *after)
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply
        return replies

    def _raw_replies(self, calls: Sequence[tuple[str, Sequence[Any]]], *after: Command) -> list[Any]:
        """The same with errors among the replies."""
        commands = [self._command(name, *args) for name, args in calls]
        replies = self._execute([*commands, *after])
        missed = [n for n, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if missed:
            for name in {calls[n][0] for n in missed}:  # a server that is new or has just become master knows none
                self.client.script_load(self._scripts[name].script)
            again = self._execute([*(commands[n] for n in missed), *after])
            for n, reply in zip([*missed, *range(len(commands), len(replies))], again, strict=True):
                replies[n] = reply
        return replies

    def _job_args(self, jobs: Sequence[NewJob]) -> list[Any]:
        return wire.job_args(jobs, self._message)

    def _execute(self, commands: Sequence[Command]) -> list[Any]:
        return execute(self.client, commands)

    def _command(self, name: str, *args: Any) -> Command:
        now = self._now_ms() if self._now_ms else ""
        return ("EVALSHA", self._scripts[name].sha, 1, PREFIX, now, *self._rules, *args)

    def _release(self, lease: Lease, reason: str, due: int | str) -> list[Doorbell]:
        return self._bells(lease, self._run("release", lease.job_id, lease.token, reason, due))

    def _bells(self, lease: Lease, reply: list[bytes]) -> list[Doorbell]:
        if reply[0] == b"stale":
            raise LeaseLost(lease.job_id)
        return wire.parse_doorbells(reply[1:])
