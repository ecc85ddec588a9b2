"""A crash around the calls to the document service, with a real worker and SIGKILL: nothing is done twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from dev.simulators.http import Request
from dev.stack.servers import wait_until
from inbox import queries
from inbox.event import Event
from inbox.job import NewJob
from tasks.models import Document
from tests.chaos.conftest import World
from tests.support.peers import Answer, Peer

WAITS = Answer(body=b'{"status": "processing", "progress": 70}')
LOST = Answer(404)


def prepare(world: World, peer: Peer, task: str | None, job: str, **args: int) -> str:
    """Insert a document and record the job that submits or polls it; returns the job's id."""
    world.stack.environment |= {"DOC_SERVICE_URL": peer.url, "PUBLIC_URL": "https://us.example.com"}
    now, status = datetime.now(UTC), "processing" if task else "submitting"
    row = Document(id="doc_1", document_id="contract", status=status, created_at=now, updated_at=now, task_id=task)
    row.notify_agents = []
    with Session(create_engine(world.database)) as db:
        db.add(row)
        db.commit()
    new = NewJob(f"api:doc_1:{job}", f"tasks.document_starts.{job}", "documents", {"document": "doc_1", **args})
    world.store.record(Event("api", "doc_1", "document.requested", b"{}"), [new])
    return new.id


def document(world: World) -> Document:
    with Session(create_engine(world.database)) as db:
        return db.get_one(Document, "doc_1")


def die_and_end(world: World, job: str, point: str) -> None:
    world.stack.worker(queues="documents,notifications", HOLDFAST_TEST_DIE=point)
    wait_until(lambda: world.state(job) == "succeeded", seconds=120, what=f"the job; {queries.stats(world.store)}")
    assert (world.stack.folder / f"died-{point}").exists()


@pytest.mark.parametrize("point", ["before the submission", "after the submission, before the commit"])
def test_a_document_submitted_by_a_worker_that_dies_is_one_task(world: World, point: str) -> None:
    keys: list[str] = []

    def reply(request: Request) -> Answer:
        keys.append(request.headers["Idempotency-Key"])
        return Answer(200, body=b'{"task_id": "task_1"}')

    with Peer(reply) as peer:
        job = prepare(world, peer, None, "start", start=1)
        die_and_end(world, job, point)
    assert (document(world).status, document(world).task_id) == ("processing", "task_1")
    assert set(keys) == {job}
    assert len(keys) == (1 if point.startswith("before") else 2)


@pytest.mark.parametrize("point", ["before the poll", "after the poll, before the commit"])
@pytest.mark.parametrize(("says", "start", "progress"), [(WAITS, 1, 70), (LOST, 2, 0)])
def test_the_next_worker_checks_a_deadline_if_the_first_dies(
    world: World, point: str, says: Answer, start: int, progress: int
) -> None:
    def reply(request: Request) -> Answer:
        return Answer(200, body=b'{"task_id": "task_2"}') if request.method == "POST" else says

    with Peer(reply) as peer:
        job = prepare(world, peer, "task_1", "deadline", start=1, number=1)
        die_and_end(world, job, point)
        wait_until(lambda: document(world).status == "processing", seconds=120, what="the new start")
    assert (document(world).start, document(world).progress) == (start, progress)
    assert document(world).task_id == f"task_{start}"
    assert len([request for request in peer.requests if request.method == "POST"]) == start - 1
