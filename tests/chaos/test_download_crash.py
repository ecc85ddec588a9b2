"""A crash at every step of a download, with a real worker and SIGKILL: the document is stored once, whole, with one
notification.

Into a folder on Redis with SQLite, and to S3 on RabbitMQ (where it is installed) with Postgres.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from dev.simulators.http import Request
from inbox.event import Event
from inbox.job import NewJob
from tasks.models import Document, DocumentStep
from tests.chaos.conftest import EACH_ONCE, World
from tests.support.buckets import S3
from tests.support.peers import Answer, Mailbox, Peer

CONTENT = b"%PDF-1.7 " + bytes(range(256)) * 80_000  # 20 MB: more than one piece of an upload
JOB = "documents:msg_1:documents.download"
QUEUES = "downloads,notifications"

# What the next attempt requests from the file service: the whole file, the rest of it, or nothing.
AGAIN = ["", ""]
REST = ["", "bytes"]
NOTHING = [""]
ALL_POINTS = {
    "after the headers are saved": AGAIN,
    "after the first bytes": REST,
    "in the middle": REST,
    "in the middle;in the middle of the rest": [*REST, "bytes"],
    "after the download, before the verification": NOTHING,
    "after the verification, before the save": NOTHING,
    "after the sync, before the rename": NOTHING,
    "after the save, before the part is deleted": NOTHING,
    "while the part is deleted": NOTHING,
    "after the part is deleted, before the commit": NOTHING,
    "after the SQL commit, before finish": NOTHING,
    "after finish": NOTHING,
}
OF_A_BUCKET = {
    "in the middle": REST,
    "after the verification, before the save": NOTHING,
    "in the middle of the upload": NOTHING,
    "after the save, before the part is deleted": NOTHING,
    "after the part is deleted, before the commit": NOTHING,
}


def serve(request: Request) -> Answer:
    """Answer with the file, or with the requested rest of it."""
    headers = {"ETag": '"v1"', "Content-Type": "application/pdf"}
    first = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
    if not first:
        return Answer(200, headers, CONTENT)
    span = f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
    return Answer(206, {**headers, "Content-Range": span}, CONTENT[first:])


@dataclass
class Download:
    """One document whose download is due."""

    world: World
    peer: Peer
    mailbox: Mailbox
    stored: Callable[[], dict[str, bytes]] = field(default=dict)

    def __post_init__(self) -> None:
        spool = self.world.stack.folder / "spool"
        self.world.stack.environment |= {
            "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
            "CUSTOMER_NOTIFY_URLS": f"{self.mailbox.url}&to={{email}}",
            "PUBLIC_URL": "https://us.example.com",
            "DOCUMENT_SPOOL": str(spool),
        }
        now = datetime.now(UTC)
        row = Document(id="doc_1", document_id="contract", status="downloading", created_at=now, updated_at=now)
        row.result_url, row.notify_email, row.notify_agents = self.peer.url, "ada@example.com", []
        with self._db() as db:
            db.add(row)
            db.commit()
        job = NewJob(JOB, "tasks.documents.download", "downloads", {"document": "doc_1"}, ordering_key="doc_1")
        self.world.store.record(Event("documents", "msg_1", "completed", b"{}"), [job])

    def die_and_settle(self, points: str) -> None:
        self.world.stack.worker(queues=QUEUES, HOLDFAST_TEST_DIE=points)
        stats = self.world.settle()
        assert (stats["succeeded"], stats["dead"]) == (2, 0)
        for point in points.split(";"):
            assert (self.world.stack.folder / f"died-{point}").exists()

    def is_whole_with_one_notification(self) -> None:
        with self._db() as db:
            row = db.get_one(Document, "doc_1")
            assert (row.status, row.progress, row.size) == ("completed", 100, len(CONTENT))
            assert (row.sha256, row.stored_as) == (hashlib.sha256(CONTENT).hexdigest(), "doc_1.pdf")
            assert [step.status for step in db.scalars(select(DocumentStep))] == ["completed"]
        assert self.stored() == {"doc_1.pdf": CONTENT}
        assert [to for to, _ in self.mailbox.mails] == [["ada@example.com"]]

    def ranges(self) -> list[str]:
        """The unit of the range in each request, or nothing."""
        return [request.headers.get("Range", "").partition("=")[0] for request in self.peer.requests]

    def unfinished(self) -> list[str]:
        folders = (self.world.stack.folder / "spool", self.world.stack.folder / "documents" / ".incoming")
        return [path.name for folder in folders for path in folder.glob("*")]

    def _db(self) -> Session:
        return Session(create_engine(self.world.database))


@pytest.fixture
def download(world: World) -> Iterator[Download]:
    with Peer(serve) as peer, Mailbox() as mailbox:
        yield Download(world, peer, mailbox)


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
@pytest.mark.parametrize("point", ALL_POINTS)
def test_a_document_is_stored_whole_and_once_if_the_worker_is_killed_at_any_step(
    download: Download, point: str
) -> None:
    folder = download.world.stack.folder / "documents"
    download.stored = lambda: {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}
    download.die_and_settle(point)
    download.is_whole_with_one_notification()
    assert download.ranges() == ALL_POINTS[point]
    assert download.unfinished() == []


@pytest.mark.parametrize("world", EACH_ONCE[-1:], indirect=True)
@pytest.mark.parametrize("point", OF_A_BUCKET)
def test_a_document_in_s3_is_stored_whole_and_no_unfinished_upload_remains(
    download: Download, s3: S3, point: str
) -> None:
    bucket = s3.fresh()
    download.world.stack.environment |= {**s3.environment, "DOCUMENT_STORE": f"s3://{bucket}"}
    download.stored = lambda: s3.content(bucket)
    download.die_and_settle(point)
    download.is_whole_with_one_notification()
    assert download.ranges() == OF_A_BUCKET[point]
    assert (download.unfinished(), s3.uploads(bucket)) == ([], [])
