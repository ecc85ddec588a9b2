"""Order of arrival does not matter for documents either: callbacks, starts and deadlines, shuffled and doubled.

What comes too early is tried again, as the record does; in the end the document is where it belongs, fetched once or
given up once, and on the way nothing ran backwards.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.event import listen

from inbox.errors import PermanentError, TransientError
from tasks.db.engine import make_engine, make_sessions
from tasks.documents.callbacks import completed, create_document, failed, progress
from tasks.documents.submissions import check_deadline, submit
from tasks.handler import FollowUp
from tasks.models import Document, Notification
from tests.integration.tasks.documents.test_callbacks import REQUEST, by_service
from tests.integration.tasks.documents.test_submissions import RESULT, Service
from tests.support.business import Business
from tests.support.databases import fresh_postgres
from tests.support.searching import searching

RANK = {"submitting": 0, "processing": 1, "downloading": 2, "completed": 3}
HANDLERS = {"completed": completed, "failed": failed}


@dataclass(frozen=True)
class Called:
    """A callback; `id` is its webhook-id."""

    id: str
    status: str
    task: int = 1
    fields: tuple[tuple[str, Any], ...] = ()


def called(number: int, status: str, task: int = 1, **fields: Any) -> Called:
    return Called(f"msg_{number}", status, task, tuple(fields.items()))


JOBS = ("start", "deadline")
Happening = Called | str  # a callback, or one of our own JOBS
STEPS = (called(1, "queued"), called(2, "processing", progress=20), called(3, "processing", progress=80))
LIVES: dict[str, tuple[tuple[Happening, ...], str]] = {
    "completed": ((*JOBS, *STEPS, *(called(n, "completed", result_url=RESULT) for n in (4, 5))), "downloading"),
    "failed for good": ((*JOBS, *STEPS, *(called(n, "failed", error_message="page 3") for n in (4, 5))), "failed"),
    "failed once, and once again for a while": (
        (
            *("start", *STEPS[:2], called(3, "failed", error_message="temporary")),
            *(called(4, "processing", 2, progress=40), called(5, "failed", 2, error_message="too busy")),
            called(6, "completed", 3, result_url=RESULT),
        ),
        "downloading",
    ),
    "still at work": ((*JOBS, *STEPS), "processing"),
}


@dataclass
class House:
    """Does what happens at once, and again what came too early."""

    business: Business
    owed: list[FollowUp] = field(default_factory=list)  # start and deadline, from the beginning on
    early: list[Happening] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)  # task by job: downloads, mails, dead letters
    seen: tuple[int, int, int] = (1, 0, 0)  # start, rank, progress

    def live(self, happenings: Sequence[Happening]) -> None:
        self.owed = self.business.run(create_document, REQUEST, source="api", event_id="doc_1")
        for happening in happenings:
            self._do(happening)
        for _ in range(len(happenings)):  # each round at least one of them finds what it waits for
            again, self.early = self.early, []
            for happening in again:
                self._do(happening)
        assert self.early == []

    def _do(self, happening: Happening) -> None:
        try:
            if isinstance(happening, str):
                self._job(self.owed[JOBS.index(happening)], "api", "doc_1")
            else:
                self._callback(happening)
        except TransientError:
            self.early.append(happening)
        self._look()

    def _callback(self, told: Called) -> None:
        body = {"task_id": f"task_{told.task}", "status": told.status, **dict(told.fields)}
        handler = HANDLERS.get(told.status, progress)
        self._then(self.business.run(handler, body, source="documents", event_id=told.id), "documents", told.id)

    def _job(self, job: FollowUp, source: str, event_id: str) -> None:
        handler = submit if job.task.endswith("start") else check_deadline
        self._then(self.business.follow(handler, job, REQUEST, source=source, event_id=event_id), source, event_id)

    def _then(self, follow_ups: list[FollowUp], source: str, event_id: str) -> None:
        for job in follow_ups:
            if job.task == "tasks.document_starts.start":
                with suppress(PermanentError):  # a dead letter
                    self._job(job, source, event_id)
            self.left[f"{source}:{event_id}:{job.effect}"] = job.task

    def _look(self) -> None:
        """Nothing ever runs backwards, unless the document was started again; what has failed is over."""
        document = self.business.one(select(Document))
        begun, rank, percent = self.seen
        now = document.start, RANK.get(document.status, 9), document.progress
        assert now >= (begun, rank, 0)
        assert now[0] > begun or document.progress >= percent
        self.seen = now


def lived(migrated: Path, url: str | None, happenings: Sequence[Happening]) -> dict[str, Any]:
    """How it ends, on a fresh database."""
    with tempfile.TemporaryDirectory() as folder, (service := Service()).peer:
        if url is None:
            shutil.copy(migrated, Path(folder) / "test.db")
            url = f"sqlite:///{folder}/test.db"
        engine = make_engine(url)
        if engine.dialect.name == "sqlite":  # no power is cut here, and fsyncs are most of the time it takes
            listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        business = Business(make_sessions(engine), Path(folder))
        by_service(business, service.peer.url)
        business.settings["DOCUMENT_STARTS"] = "9"
        service.says = {"status": "processing", "progress": 30}
        house = House(business)
        try:
            house.live(happenings)
            return _ending(house)
        finally:
            engine.dispose()


def _ending(house: House) -> dict[str, Any]:
    document = house.business.one(select(Document))
    alerts = house.business.all(select(Notification).filter_by(kind="document_failed"))
    last_words = [alert for alert in alerts if "dead letter" in alert.params["next"]]
    return {
        "status": document.status,
        "result_url": document.result_url,
        "downloads": list(house.left.values()).count("tasks.documents.download"),
        "given up": len(last_words),
    }


@st.composite
def arrivals(draw: st.DrawFn, life: tuple[Happening, ...]) -> list[Happening]:
    """What happens, in any order, some of it twice."""
    twice = draw(st.lists(st.sampled_from(life), max_size=4))
    return draw(st.permutations([*life, *twice]))


@pytest.mark.parametrize("name", LIVES)
def test_any_order_of_callbacks_starts_and_deadlines_ends_the_same(name: str, migrated_sqlite: Path) -> None:
    life, status = LIVES[name]
    wanted = lived(migrated_sqlite, None, life)
    assert wanted["status"] == status
    assert (wanted["downloads"], wanted["given up"]) == (int(status == "downloading"), int(status == "failed"))

    @searching(quick=25, deep=2000)
    @given(arrivals(life))
    @example(list(reversed(life)))
    def same(happenings: list[Happening]) -> None:
        assert lived(migrated_sqlite, None, happenings) == wanted

    same()


@pytest.mark.parametrize("name", LIVES)
def test_backwards_and_twice_it_ends_the_same_on_postgres(name: str, migrated_sqlite: Path, postgres: Any) -> None:
    life, _ = LIVES[name]
    backwards = [*reversed(life), *life]
    assert lived(migrated_sqlite, fresh_postgres(postgres), backwards) == lived(migrated_sqlite, None, life)
