"""Replays by a person, on the real record: a replay never creates a job that exists already."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from dev.simulators.http import Request
from inbox import queries
from inbox.store import Store
from tasks.db.engine import make_engine, make_sessions
from tasks.documents.submissions import NO_ANSWER
from tasks.models import Document, Notification
from tests.conftest import Clock
from tests.support.peers import Answer, Peer
from tests.support.workplace import Workplace

DAY = 86400
START = "api:doc_1:documents.start.1"


class Service:
    """A document service that refuses submissions until the test sets `takes`, and sends no callbacks."""

    def __init__(self) -> None:
        self.takes = False
        self.says: dict[str, str] | None = None  # of every task; None: it has lost it
        self.peer = Peer(self._reply)

    def _reply(self, request: Request) -> Answer:
        if request.path.startswith("/files/"):
            return Answer(body=b"the document")
        if request.method == "POST":
            return Answer(body=b'{"task_id": "task_1"}') if self.takes else Answer(422)
        return Answer(404) if self.says is None else Answer(body=json.dumps(self.says).encode())


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    with made.peer:
        yield made


@pytest.fixture
def place(store: Store, clock: Clock, database: str, tmp_path: object, service: Service) -> Iterator[Workplace]:
    engine = make_engine(database)
    settings = {
        "DOCUMENT_STORE": f"{tmp_path}/documents",
        "DOC_SERVICE_URL": service.peer.url,
        "PUBLIC_URL": "http://127.0.0.1:9",
        "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
    }
    yield Workplace(store, clock, make_sessions(engine), settings)
    engine.dispose()


def row(sessions: Callable[[], Session]) -> Document:
    with sessions() as db:
        return db.scalars(select(Document)).one()


def refused_and_replayed(place: Workplace, service: Service) -> None:
    """A document whose submission was refused, and is replayed two days later, when the service works again."""
    place.record("api", "doc_1", "document.requested", b'{"document_id": "contract-7"}')
    assert (place.dead(), row(place.sessions).status) == ([START], "failed")
    place.pass_time(2 * DAY)
    assert queries.stats(place.store)["unfinished"] == 0
    service.takes = True
    place.replay(START)
    assert row(place.sessions).status == "processing"


def test_a_replayed_start_has_a_deadline_of_its_own(place: Workplace, service: Service) -> None:
    refused_and_replayed(place, service)
    assert queries.stats(place.store)["unfinished"] == 1
    service.says = {"status": "processing"}
    place.pass_time(DAY)
    service.says = {"status": "completed", "result_url": f"{service.peer.url}/files/1"}
    place.pass_time(DAY)
    assert row(place.sessions).status == "completed"


def test_a_failure_after_a_replay_is_notified_again(place: Workplace, service: Service) -> None:
    place.settings["DOCUMENT_STARTS"] = "1"
    refused_and_replayed(place, service)
    place.pass_time(DAY)
    assert row(place.sessions).status == "failed"
    with place.sessions() as db:
        told = db.scalars(select(Notification).filter_by(kind="document_failed")).all()
    assert sorted(each.params["reason"] for each in told) == ["the document service answered 422", NO_ANSWER]
