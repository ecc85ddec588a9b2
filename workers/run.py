"""One job, from lease to finish. What happens when we die between two steps is told at each of them."""

from __future__ import annotations

import json
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import structlog
from sqlalchemy import Table, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from inbox import retry
from inbox.errors import HoldfastError, LeaseLost, NotNow, StoreUnavailable, TransientError
from inbox.event import Event
from inbox.job import Doorbell, Lease, NewJob, NextJobRequest, job_id
from inbox.store import Store
from settings import Settings
from tasks.handler import Attempt, FollowUp, GaveUp, Handler
from tasks.models import Effect
from tasks.routes import TASKS
from telemetry import logs, tracing

log = structlog.get_logger()
MARK_DONE = insert(cast("Table", Effect.__table__))  # the table's, not the class's: that costs several times as much
ROOT = Path(__file__).parent.parent


class AttemptFailed(Exception):
    """What Flower shows of a failed attempt: the reason, without personal data."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Everything an attempt needs, made once per worker process. `holder` names the process for people."""

    store: Store
    sessions: Callable[[], Session]
    settings: Settings
    ring: Callable[[Sequence[Doorbell]], None]
    holder: str

    def lease(self, job: str, celery_task_id: str) -> Lease | str:
        """The job, or a word why not. Dying before it: the doorbell is gone, the sweep rings again."""
        return self.store.lease(job, self.holder, self.settings.lease_seconds, celery_task_id)

    def attempt(
        self, handler: Handler, lease: Lease, over: float, wish: NextJobRequest | None = None
    ) -> tuple[str, Lease | str]:
        """What became of it in a word, and the next lease, if there is a `wish` for one that can be fulfilled.

        Raises AttemptFailed after writing the failure down. `over` is the time.monotonic() at which Celery tells the
        handler to end.

        1. Effect. Dying in it: the lease runs out, the next attempt starts over; SQL was rolled back.
        2. Finish. Dying before it: the next attempt finds the effect row, changes nothing and finishes. Dying after
           it, with the next lease: as dying in the effect of that.
        """
        ids = _ids(lease)
        with logs.log_context(ids), tracing.attempt(ids, lease.task) as span:
            try:
                word, found = self._attempted(handler, lease, over, wish)
            except AttemptFailed as error:
                span.ended("failed", str(error))
                raise
            span.ended(word)
            return word, found

    def _attempted(
        self, handler: Handler, lease: Lease, over: float, wish: NextJobRequest | None
    ) -> tuple[str, Lease | str]:
        began = time.monotonic()
        found: Lease | str = "none"
        try:
            follow_ups = self._effect(handler, lease)
            bells, found = self._finish(lease, follow_ups, wish)
            return self._finished(began, bells, len(follow_ups)), found
        except LeaseLost:
            return _ended(began, "lost"), found
        except NotNow as error:
            self._let_go(lease, partial(self._put_off, wait=error))
            return _ended(began, "put off"), "none"
        except Exception as error:
            self.release(found)
            raise self._fail(lease, began, error) from None  # the cause may hold personal data: it is not chained
        except BaseException:  # SystemExit from the pool's signal handler, or KeyboardInterrupt
            self.release(found)
            if time.monotonic() < over:
                self.release(lease)  # the worker was told to stop: no fault of the job's
            else:
                self._fail(lease, began, TransientError("it ran over its time limit and would not end"))
            raise

    def _finished(self, began: float, bells: Sequence[Doorbell] | HoldfastError, follow_ups: int) -> str:
        if isinstance(bells, HoldfastError):
            raise bells
        self.ring(bells)
        return _ended(began, "succeeded", follow_ups=follow_ups)

    def _finish(
        self, lease: Lease, follow_ups: Sequence[FollowUp], wish: NextJobRequest | None
    ) -> tuple[Sequence[Doorbell] | HoldfastError, Lease | str]:
        new = [_new_job(lease, follow_up) for follow_up in follow_ups]
        return self.store.finish_and_lease(lease, new, wish) if wish else (self.store.finish(lease, new), "none")

    def _effect(self, handler: Handler, lease: Lease) -> Sequence[FollowUp]:
        """The handler's changes and the effect row in one transaction: both or none, and only once per job.

        The first holder does not look whether the row is there. Should the record have forgotten an earlier one, as
        after a failover, the row is a conflict, and nothing is changed.
        """
        try:
            done = None if lease.first else self._done(lease)
            if done is not None:
                return done
            with self.sessions() as db:
                attempt = self._attempt(lease)
                follow_ups = list(handler(attempt, db))
                row = {"job_id": lease.job_id, "follow_ups": _encode(follow_ups), "done_at": attempt.now}
                db.execute(MARK_DONE, row)
                db.commit()
                return follow_ups
        except IntegrityError as error:
            # A holder that slept over its lease came back, and one of the two committed first.
            done = self._done(lease)
            if done is None:
                raise TransientError(f"two jobs wrote the same row ({_where(error)})") from None
            return done

    def _done(self, lease: Lease) -> list[FollowUp] | None:
        """The follow-ups of a job that has had its effect already, or None."""
        with self.sessions() as db:
            effect = db.get(Effect, lease.job_id)
            return _decode(effect.follow_ups) if effect else None

    def _attempt(self, lease: Lease) -> Attempt:
        return Attempt(
            key=lease.job_id,
            event=Event(lease.source, lease.event_id, lease.event_type, lease.body, lease.received_ms),
            args=lease.args,
            number=lease.attempt,
            now=datetime.now(UTC),
            settings=self.settings,
            renew=lambda: self.store.renew(lease, self.settings.lease_seconds),
            replays=lease.replays,
            last=lease.attempt >= self._policy(lease.task).attempts,
        )

    def _fail(self, lease: Lease, began: float, error: Exception) -> AttemptFailed:
        reason = describe(error)
        bound = log.bind(ms=_ms(began), error=type(error).__name__, reason=reason)
        try:
            policy, jitter = self._policy(lease.task), random.random()  # noqa: S311
            fate = retry.decide(policy, error, lease.attempt, self.store.now_ms(), jitter)
            left = error.follow_ups if isinstance(error, GaveUp) else ()
            self.ring(self.store.fail(lease, reason, fate, [_new_job(lease, one) for one in left]))
            bound.warning("attempt failed", fate=type(fate).__name__)
        except (LeaseLost, StoreUnavailable) as also:  # the lease will run out, or has; the sweep sees to the rest
            bound.warning("attempt failed, and the record does not take it", why=type(also).__name__)
        return AttemptFailed(reason)

    def _policy(self, task: str) -> retry.Policy:
        s, named = self.settings, TASKS[task].schedule
        schedule = getattr(s, named) if named else ()
        return retry.Policy(s.retry_base_seconds, s.retry_cap_seconds, s.max_attempts, schedule)

    def _put_off(self, lease: Lease, wait: NotNow) -> list[Doorbell]:
        """For a second at least: if our clock goes behind the store's, the job would come back at once, and again."""
        return self.store.postpone(lease, str(wait), max(wait.at_ms, self.store.now_ms() + 1000))

    def release(self, lease: Lease | str) -> None:
        """Let somebody else have the job now, if it is held at all."""
        if isinstance(lease, Lease):
            with logs.log_context(_ids(lease)):  # maybe the next job's, while we are at work for another
                self._let_go(lease, self.store.release)

    def _let_go(self, lease: Lease, how: Callable[[Lease], list[Doorbell]]) -> None:
        try:
            self.ring(how(lease))
            log.info("job given back")
        except LeaseLost:
            log.info("job not given back: it is done, or not ours any more")
        except StoreUnavailable as error:
            log.warning("job not given back; its lease will run out", why=type(error).__name__)


def _ended(began: float, outcome: str, **fields: int) -> str:
    log.info("attempt ended", ms=_ms(began), outcome=outcome, **fields)
    return outcome


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _ids(lease: Lease) -> dict[str, str | int]:
    """What every line of an attempt says; `event_id`, because `event` is the line's own words."""
    return {"source": lease.source, "event_id": lease.event_id, "job": lease.job_id, "attempt": lease.attempt}


def describe(error: BaseException) -> str:
    """An error in words that may be shown. A foreign one may quote addresses or payloads, so only its place is told."""
    return str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__} at {_where(error)}"


def _where(error: BaseException) -> str:
    """The innermost line of our own code that it passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(ROOT)]
    ours = [f for f in frames if "site-packages" not in f.filename]
    if not ours:
        return "an unknown place"
    return f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}"


def _new_job(lease: Lease, follow_up: FollowUp) -> NewJob:
    return NewJob(
        id=job_id(lease.source, lease.event_id, follow_up.effect),
        task=follow_up.task,
        queue=TASKS[follow_up.task].queue,
        args=follow_up.args,
        delay_seconds=follow_up.delay_seconds,
        ordering_key=follow_up.ordering_key,
    )


def _encode(follow_ups: Sequence[FollowUp]) -> str:
    return json.dumps([asdict(follow_up) for follow_up in follow_ups])


def _decode(raw: str) -> list[FollowUp]:
    return [FollowUp(**fields) for fields in json.loads(raw)]
