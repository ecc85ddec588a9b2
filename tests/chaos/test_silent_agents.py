"""Agents that accept a connection and say nothing, beside one that answers, with a real worker of two processes."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from dev.stack.servers import wait_until
from inbox.event import Event
from inbox.job import NewJob, job_id
from settings import load
from tasks.agents.handoff import enqueue_handoffs
from tasks.clients.safe_http import READ_SECONDS
from tasks.handler import Attempt
from tasks.models import Document
from tests.chaos.conftest import World
from tests.support.business import HANDOFF_SECRET
from tests.support.peers import Answer, Peer

SILENT = 6


class SilentServer(socketserver.ThreadingTCPServer):
    """Reads what it is sent, and never answers. `held` has the seconds for which each connection was open."""

    daemon_threads = True

    def __init__(self) -> None:
        self.held: list[float] = []
        self.open = self.most_open = 0
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, number: int) -> None:
        with self._lock:
            self.open += number
            self.most_open = max(self.most_open, self.open)

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                began = time.monotonic()
                server.count(1)
                while self.request.recv(65536):
                    pass
                server.count(-1)
                server.held.append(time.monotonic() - began)

        return Handler


@contextmanager
def silent_servers(number: int) -> Iterator[list[SilentServer]]:
    servers = [SilentServer() for _ in range(number)]
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def complete_document(world: World, urls: list[str]) -> None:
    """Record the handoffs of a completed document to these agents, in this order."""
    world.stack.environment |= {"CALL_OUT_ALLOWED_HOSTS": "127.0.0.1", "HANDOFF_SECRET": HANDOFF_SECRET}
    world.stack.environment |= {"LEASE_SECONDS": "90", "JOB_TIME_LIMIT_SECONDS": "60"}
    now = datetime.now(UTC)
    event = Event("documents", "msg_1", "completed", b"{}")
    attempt = Attempt("documents:msg_1:download", event, {}, 1, now, load({}), lambda: None)
    document = Document(id="doc_1", document_id="d", status="completed", start=1, created_at=now, updated_at=now)
    jobs = []
    with Session(create_engine(world.database)) as db:
        db.add(document)
        db.flush()
        for url in urls:
            document.notify_agents = [url]
            (one,) = enqueue_handoffs(db, attempt, document)
            job = job_id(event.source, event.id, one.effect)
            jobs.append(NewJob(job, one.task, "handoffs", dict(one.args), ordering_key=one.ordering_key))
        db.commit()
    world.store.record(event, jobs)


FIRST_IN_FIRST_OUT = pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)


@FIRST_IN_FIRST_OUT
@pytest.mark.slow
def test_no_host_that_never_answered_is_waited_for_as_long_as_others(world: World) -> None:
    with silent_servers(SILENT) as silent, Peer(lambda _: Answer(204)) as peer:
        complete_document(world, [*(server.url for server in silent), peer.url])
        world.stack.worker(queues="handoffs", processes=2)
        wait_until(lambda: bool(peer.requests), seconds=120, what="the good agent to be told")
        wait_until(lambda: all(server.held for server in silent), seconds=120, what="the first call of each")
        assert max(server.held[0] for server in silent) < READ_SECONDS


@FIRST_IN_FIRST_OUT
@pytest.mark.slow
def test_many_urls_of_one_silent_host_hold_one_process(world: World) -> None:
    with silent_servers(1) as (silent,), Peer(lambda _: Answer(204)) as peer:
        complete_document(world, [*(f"{silent.url}/?agent={n}" for n in range(SILENT)), peer.url])
        world.stack.worker(queues="handoffs", processes=2)
        wait_until(lambda: bool(peer.requests), seconds=120, what="the good agent to be told")
        assert len(silent.held) < SILENT, "the good agent came last"
        wait_until(lambda: len(silent.held) >= 2, seconds=120, what="two calls of the silent host")
        assert silent.most_open == 1
