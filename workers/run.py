"""Runs one job, from lease to finish. Each step is described with the effect of a crash before or in it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Table, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from inbox import retry
from inbox.errors import HoldfastError, LeaseLost, NotNow, StoreUnavailable, TransientError
from inbox.event import Event
from inbox.job import Doorbell, Lease, NewJob, NextJobRequest
from inbox.store import Store
from inbox.wire import nonce
from settings import Settings
from tasks.db.statement_limits import statements_end_at
from tasks.handler import Attempt, FollowUp, GaveUp, Handler
from tasks.models import Effect
from tasks.routes import TASKS
from telemetry import logs, tracing
from workers.attempt_errors import describe, is_outage, where
from workers.follow_ups import decode, encode, new_job

log = structlog.get_logger()
INSERT_EFFECT = insert(cast("Table", Effect.__table__))  # inserting through the class costs several times as much
OUTAGE_PAUSE_SECONDS = 1.0
NextRequest = Callable[[], NextJobRequest | None]  # asked when a job has ended: whether another one may begin then


def no_next_request() -> None:
    """For a job after which no other begins."""


class AttemptFailed(Exception):
    """A failed attempt, as Flower shows it: the reason, without personal data."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Everything an attempt needs. `holder` names the process for people."""

    store: Store
    sessions: Callable[[], Session]
    settings: Settings
    ring: Callable[[Sequence[Doorbell]], None]
    holder: str

    def lease(self, job: str, celery_task_id: str) -> Lease | str:
        """Lease a job, or return the reason why not. If the process dies before this, the sweep rings again.

        If the reply is lost, the job is returned as soon as the store is available again: otherwise its lease would
        expire and count as an attempt. Then, or if the store stays away, raises StoreUnavailable.
        """
        same = nonce()

        def lease() -> Lease | str:
            return self.store.lease(job, self.holder, self.settings.lease_seconds, celery_task_id, nonce=same)

        try:
            return lease()
        except StoreUnavailable:
            self._return_after_lost_reply(lease)
            raise

    def _return_after_lost_reply(self, lease: Callable[[], Lease | str]) -> None:
        """It does not run now: it would not have its whole time limit."""
        end = time.monotonic() + self.settings.job_soft_limit_seconds / 2
        while time.monotonic() < end:
            time.sleep(OUTAGE_PAUSE_SECONDS)
            with suppress(StoreUnavailable):
                self.release(lease())
                return

    def attempt(
        self, handler: Handler, lease: Lease, deadline: float, next_request: NextRequest = no_next_request
    ) -> tuple[str, Lease | str]:
        """Run an attempt. Returns its outcome, and the next lease or the reason why there is none.

        Raises AttemptFailed after recording the failure. `deadline` is the time.monotonic() at which Celery stops the
        handler. `next_request` returns the request for the next lease, if there is to be one.

        1. Effect. If the process dies in it, SQL is rolled back, the lease ends and the next attempt starts over.
        2. Finish. If the process dies before it, the next attempt finds the effect row, changes nothing and finishes.
           If it dies after it, it holds the next lease and dies in the effect of that job.
        """
        ids = _ids(lease)
        with logs.log_context(ids), tracing.attempt(ids, lease.task) as span:
            try:
                outcome, found = self._run(handler, lease, deadline, next_request)
            except AttemptFailed as error:
                span.ended("failed", str(error))
                raise
            span.ended(outcome)
            return outcome, found

    def _run(
        self, handler: Handler, lease: Lease, deadline: float, next_request: NextRequest
    ) -> tuple[str, Lease | str]:
        began = time.monotonic()
        try:
            new = [new_job(lease, follow_up) for follow_up in self._effect(handler, lease, deadline)]
        except LeaseLost:
            return _ended(began, "lost"), "none"
        except NotNow as error:
            return self._put_off(lease, began, str(error), error.at_ms), "none"
        except Exception as error:
            if is_outage(error):
                return self._wait_for(error, lease, began), "none"
            raise self._fail(lease, began, error) from None  # the cause may hold personal data: it is not chained
        except BaseException:  # SystemExit from the pool's signal handler, or KeyboardInterrupt
            if time.monotonic() < deadline:
                self.release(lease)  # the worker must stop; the job did not fail
            else:
                self.overran(lease, began)
            raise
        return self._finish(lease, began, new, deadline, next_request)

    def overran(self, lease: Lease, began: float) -> None:
        """Record that a job was not done in time: it runs since the time.monotonic() `began`. This fences it off."""
        self._fail(lease, began, TransientError("it exceeded its time limit and did not stop"))

    def _finish(
        self, lease: Lease, began: float, new: Sequence[NewJob], deadline: float, next_request: NextRequest
    ) -> tuple[str, Lease | str]:
        """The effect is committed, so nothing from here on is the job's failure: the next attempt finds the row."""
        found: Lease | str = "none"
        try:
            bells, found = self._finish_when_available(lease, new, deadline, next_request)
            if isinstance(bells, HoldfastError):
                raise bells
            self._ring(bells)
            return _ended(began, "succeeded", follow_ups=len(new)), found
        except LeaseLost:
            return _ended(began, "lost"), found
        except (StoreUnavailable, SoftTimeLimitExceeded):
            self.release(lease)
            return _ended(began, "not finished"), "none"
        except BaseException:
            self.release(found)
            self.release(lease)
            raise

    def _finish_when_available(
        self, lease: Lease, new: Sequence[NewJob], deadline: float, next_request: NextRequest
    ) -> tuple[Sequence[Doorbell] | HoldfastError, Lease | str]:
        """Finish the job. While the store is not available, try again each second until the deadline."""
        request = next_request()
        finished, found = self._try_to_finish(lease, new, request)
        while isinstance(finished, StoreUnavailable) and time.monotonic() + OUTAGE_PAUSE_SECONDS < deadline:
            if isinstance(found, Lease):
                self.release(found)
                request = None  # otherwise its reply was lost, perhaps with a lease, which the same request gets again
            time.sleep(OUTAGE_PAUSE_SECONDS)
            finished, found = self._try_to_finish(lease, new, request)
            if not next_request():
                self.release(found)
                found = "none"
        return finished, found

    def _try_to_finish(
        self, lease: Lease, new: Sequence[NewJob], request: NextJobRequest | None
    ) -> tuple[Sequence[Doorbell] | HoldfastError, Lease | str]:
        try:
            return (
                self.store.finish_and_lease(lease, new, request) if request else (self.store.finish(lease, new), "none")
            )
        except StoreUnavailable as error:
            return error, "none"

    def _effect(self, handler: Handler, lease: Lease, deadline: float) -> Sequence[FollowUp]:
        """Commit the handler's changes and the effect row in one transaction, once per job.

        The first holder does not query for the row. If the record has lost an earlier lease, as after a failover, the
        insert conflicts with the existing row, and nothing is changed.
        """
        try:
            done = None if lease.first else self._done(lease)
            if done is not None:
                return done
            with statements_end_at(deadline), self.sessions() as db:
                attempt = self._attempt(lease, deadline)
                follow_ups = list(handler(attempt, db))
                row = {"job_id": lease.job_id, "follow_ups": encode(follow_ups), "done_at": attempt.now}
                db.execute(INSERT_EFFECT, row)
                db.commit()
                return follow_ups
        except IntegrityError as error:
            # A stalled holder resumed after its lease had expired, and one of the two holders committed first.
            done = self._done(lease)
            if done is None:
                raise TransientError(f"two jobs wrote the same row ({where(error)})") from None
            return done

    def _done(self, lease: Lease) -> list[FollowUp] | None:
        """The stored follow-ups of a job that already had its effect, or None."""
        with self.sessions() as db:
            effect = db.get(Effect, lease.job_id)
            return decode(effect.follow_ups) if effect else None

    def _attempt(self, lease: Lease, deadline: float) -> Attempt:
        return Attempt(
            key=lease.job_id,
            event=Event(lease.source, lease.event_id, lease.event_type, lease.body, lease.received_ms),
            args=lease.args,
            number=lease.attempt,
            now=datetime.fromtimestamp(lease.leased_ms / 1000, UTC),
            settings=self.settings,
            renew=lambda: self.store.renew(lease, self.settings.lease_seconds),
            replays=lease.replays,
            last=lease.attempt >= self._policy(lease.task).attempts,
            deadline=deadline,
        )

    def _fail(self, lease: Lease, began: float, error: Exception) -> AttemptFailed:
        reason = describe(error)
        bound = log.bind(ms=_ms(began), error=type(error).__name__, reason=reason)
        try:
            policy, jitter = self._policy(lease.task), random.random()  # noqa: S311
            decision = retry.decide(policy, error, lease.attempt, self.store.now_ms(), jitter)
            follow_ups = error.follow_ups if isinstance(error, GaveUp) else ()
            new = [new_job(lease, follow_up) for follow_up in follow_ups]
            self._ring(self.store.fail(lease, reason, decision, new))
            bound.warning("attempt failed", decision=type(decision).__name__)
        except (LeaseLost, StoreUnavailable) as also:  # the lease has expired or will; then the sweep rings again
            bound.warning("attempt failed, and the failure could not be recorded", why=type(also).__name__)
        return AttemptFailed(reason)

    def _policy(self, task: str) -> retry.Policy:
        s, named = self.settings, TASKS[task].schedule
        schedule = getattr(s, named) if named else ()
        return retry.Policy(s.retry_base_seconds, s.retry_cap_seconds, s.max_attempts, schedule)

    def _put_off(self, lease: Lease, began: float, reason: str, at_ms: int) -> str:
        """By a second at least: if our clock is behind the store's, the job would come back again and again."""

        def postpone(lease: Lease) -> list[Doorbell]:
            return self.store.postpone(lease, reason, max(at_ms, self.store.now_ms() + 1000))

        self._return_job(lease, postpone)
        return _ended(began, "put off")

    def _wait_for(self, outage: Exception, lease: Lease, began: float) -> str:
        """Put the job off as after a first failure, without counting the attempt. The process waits for a moment, too,
        or it would put off one job of a backlog after the other."""
        delay_ms = int(self._policy(lease.task).delay(1, random.random()) * 1000)  # noqa: S311
        reason = str(outage) if isinstance(outage, StoreUnavailable) else "the database is not available"
        outcome = self._put_off(lease, began, reason, lease.leased_ms + _ms(began) + delay_ms)
        time.sleep(OUTAGE_PAUSE_SECONDS)
        return outcome

    def _ring(self, bells: Sequence[Doorbell]) -> None:
        self.ring(self.store.push(bells, first=True))

    def release(self, lease: Lease | str) -> None:
        """Return a leased job so that another worker can run it now."""
        if isinstance(lease, Lease):
            with logs.log_context(_ids(lease)):  # perhaps the next job's lease, while another job runs
                self._return_job(lease, self.store.release)

    def _return_job(self, lease: Lease, return_: Callable[[Lease], list[Doorbell]]) -> None:
        try:
            self._ring(return_(lease))
            log.info("job returned")
        except LeaseLost:
            log.info("job not returned: it has finished or another worker holds it")
        except StoreUnavailable as error:
            log.warning("job not returned; its lease will expire", why=type(error).__name__)


def _ended(began: float, outcome: str, **fields: int) -> str:
    log.info("attempt ended", ms=_ms(began), outcome=outcome, **fields)
    return outcome


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _ids(lease: Lease) -> dict[str, str | int]:
    """Bound to every log line of an attempt. `event_id`, because structlog uses `event` for the message."""
    return {"source": lease.source, "event_id": lease.event_id, "job": lease.job_id, "attempt": lease.attempt}
