"""Runs handlers on real databases without Redis, as workers/run.py does between lease and finish."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from inbox.event import Event
from inbox.job import job_id
from settings import load
from tasks.handler import Attempt, FollowUp, Handler
from tasks.models import Effect
from tests.support.call_guard import no_calls_in_transactions
from tests.support.signed_deliveries import API_KEY

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HANDOFF_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

UNKNOWN = "of no matter"


@dataclass
class Business:
    """Runs handlers on one database, with the settings of the test."""

    sessions: Callable[[], Session]
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    now: datetime = NOW
    number: int = 1  # of the attempt
    last: bool = False  # no further attempt follows
    replays: int = 0
    renewals: int = 0

    def attempt(self, source: str, event_id: str, body: Any, effect: str, args: Mapping[str, str | int]) -> Attempt:
        raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        environ = {"DOCUMENT_STORE": str(self.folder / "documents"), "API_KEYS": API_KEY, **self.settings}
        return Attempt(
            key=job_id(source, event_id, effect),
            event=Event(source, event_id, body.get("type", UNKNOWN) if isinstance(body, dict) else UNKNOWN, raw),
            args=args,
            number=self.number,
            now=self.now,
            settings=load(environ),
            renew=self._renew,
            replays=self.replays,
            last=self.last,
        )

    def run(
        self,
        handler: Handler,
        body: Any = None,
        *,
        source: str = "stripe",
        event_id: str = "evt_1",
        effect: str = "",
        args: Mapping[str, str | int] | None = None,
    ) -> list[FollowUp]:
        """One attempt of one job; the effect happens once, even if the job runs several times."""
        attempt = self.attempt(source, event_id, body, effect or handler.__name__, args or {})
        try:
            return self._effect(handler, attempt)
        except IntegrityError:  # another run of the same job committed first
            with self.sessions() as db:
                return _decode(db.get_one(Effect, attempt.key))

    def follow(self, handler: Handler, follow_up: FollowUp, body: Any = None, **event: str) -> list[FollowUp]:
        """Run the handler of a follow-up job."""
        return self.run(handler, body, effect=follow_up.effect, args=follow_up.args, **event)

    def all(self, statement: Any) -> list[Any]:
        with self.sessions() as db:
            return list(db.scalars(statement).all())

    def one(self, statement: Any) -> Any:
        (row,) = self.all(statement)
        return row

    def _effect(self, handler: Handler, attempt: Attempt) -> list[FollowUp]:
        with self.sessions() as db:
            done = db.get(Effect, attempt.key)
            if done is not None:
                return _decode(done)
            with no_calls_in_transactions(db):
                follow_ups = list(handler(attempt, db))
            raw = json.dumps([asdict(follow_up) for follow_up in follow_ups])
            db.add(Effect(job_id=attempt.key, follow_ups=raw, done_at=attempt.now))
            db.commit()
            return follow_ups

    def _renew(self) -> None:
        self.renewals += 1


def at_once(work: Callable[[int], Any], times: int) -> list[Any]:
    """work(0), work(1), … in one thread each, started together; returns their results in that order."""
    start = threading.Barrier(times)

    def run(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(run, range(times)))


def _decode(effect: Effect) -> list[FollowUp]:
    return [FollowUp(**fields) for fields in json.loads(effect.follow_ups)]
