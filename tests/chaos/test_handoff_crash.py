"""A crash around the call to an agent, with a real worker and SIGKILL: the result is counted and announced once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from dev.stack.servers import wait_until
from inbox import queries
from inbox.event import Event
from inbox.job import NewJob
from tasks.agents.registry import get_or_create
from tasks.models import Agent, AgentAudit, Document, Handoff
from tests.chaos.conftest import World
from tests.support.business import HANDOFF_SECRET
from tests.support.peers import Answer, Mailbox, Peer

JOB = "documents:msg_1:handoff.document.completed.1.agt_1"


@dataclass
class Handing:
    """One handoff that is due for delivery to an agent that gives this answer."""

    world: World
    peer: Peer
    mailbox: Mailbox

    def __post_init__(self) -> None:
        self.world.stack.environment |= {
            "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
            "ADMIN_NOTIFY_URLS": f"{self.mailbox.url}&to=ops@example.com",
            "HANDOFF_SECRET": HANDOFF_SECRET,
        }
        now = datetime.now(UTC)
        with self.db() as db:
            db.add(Document(id="doc_1", document_id="d", status="completed", created_at=now, updated_at=now))
            db.flush()
            about = {
                "document": "doc_1",
                "agent": get_or_create(db, self.peer.url),
                "kind": "document.completed",
                "data": {},
            }
            db.add(Handoff(id=JOB, **about, created_at=now, updated_at=now))
            db.commit()
        job = NewJob(JOB, "tasks.handoff.deliver", "handoffs", {"handoff": JOB}, ordering_key="agent:agt_1")
        self.world.store.record(Event("documents", "msg_1", "completed", b"{}"), [job])

    def die(self, point: str) -> None:
        self.world.stack.worker(queues="handoffs,notifications", HOLDFAST_TEST_DIE=point)
        wait_until(lambda: not queries.stats(self.world.store)["unfinished"], seconds=120, what="all that is owed")
        assert (self.world.stack.folder / f"died-{point}").exists()

    def db(self) -> Session:
        return Session(create_engine(self.world.database))


@pytest.mark.parametrize("point", ["before the agent is called", "after the agent's answer, before the commit"])
def test_a_handoff_whose_worker_dies_is_delivered_with_the_same_id(world: World, mailbox: Mailbox, point: str) -> None:
    with Peer(lambda _: Answer(204)) as peer:
        handing = Handing(world, peer, mailbox)
        handing.die(point)
    assert len(peer.requests) == (1 if point.startswith("before") else 2)
    assert len({request.headers["webhook-id"] for request in peer.requests}) == 1
    with handing.db() as db:
        assert (db.get_one(Handoff, JOB).state, db.scalars(select(Agent.failures)).one()) == ("delivered", 0)


def test_an_agent_that_is_gone_is_disabled_with_a_notification_if_the_worker_dies_before_the_dead_letter(
    world: World, mailbox: Mailbox
) -> None:
    with Peer(lambda _: Answer(410)) as peer:
        handing = Handing(world, peer, mailbox)
        handing.die("before the failure is recorded")
    assert (len(peer.requests), world.state(JOB)) == (1, "dead")
    with handing.db() as db:
        assert (db.get_one(Handoff, JOB).state, db.scalars(select(Agent.state)).one()) == ("dead", "disabled")
        assert db.scalars(select(AgentAudit.action)).all() == ["disabled"]
    ((recipients, mail),) = mailbox.mails
    assert (recipients, mail["Subject"]) == (["ops@example.com"], "The agent 127.0.0.1 is not told any more")
