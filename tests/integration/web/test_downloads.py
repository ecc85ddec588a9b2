"""Files of documents over real connections: read not at all, broken off, in parts; from a folder and from S3."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from uvicorn import Server

from dev.stack.servers import Valkey, free_port, wait_until
from settings import Settings, load
from tasks.db.engine import make_engine, make_sessions
from tasks.documents.store_factory import open_store
from tasks.models import Document
from tasks.signed_link import create_link
from tests.conftest import fresh_database
from tests.support.buckets import S3
from tests.support.running_receiver import running_receiver
from tests.support.signed_deliveries import API_KEY, STRIPE_SECRET
from web import downloads

KEY = {"Authorization": f"Bearer {API_KEY}"}
CONTENT = random.Random(1).randbytes(12_000_000)  # more than any socket's buffers hold
PATH = "/api/v1/documents/doc_1/content"


@dataclass
class Site:
    """A running receiver with one finished document."""

    server: Server
    settings: Settings

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.settings.port}{path}"

    def link(self) -> str:
        return create_link(self.settings, "doc_1", datetime.now(UTC), 3600)

    @contextmanager
    def unread(self, count: int, url: str, **headers: str) -> Iterator[list[socket.socket]]:
        """So many requests for a file by clients that read only the status; a refused one raises AssertionError."""
        socks = [self.request(url, **headers) for _ in range(count)]
        try:
            assert {sock.recv(12) for sock in socks} == {b"HTTP/1.1 200"}
            yield socks
        finally:
            for sock in socks:
                sock.close()

    def request(self, url: str, **headers: str) -> socket.socket:
        lines = [f"GET {url[url.index('/', 9) :]} HTTP/1.1", "Host: x"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", self.settings.port))
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        return sock


@pytest.fixture(params=["folder", "s3"])
def site(
    request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    if request.param == "folder":
        store = str(tmp_path)
        (tmp_path / "doc_1.bin").write_bytes(CONTENT)
    else:
        s3: S3 = request.getfixturevalue("s3")
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        bucket = s3.fresh()
        s3.client.put_object(Bucket=bucket, Key="finished/doc_1.bin", Body=CONTENT)
        store = f"s3://{bucket}/finished"
    port = free_port()
    environ = {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": fresh_database(request, "sqlite"),
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
        "API_KEYS": API_KEY,
        "DOCUMENT_STORE": store,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "PORT": str(port),
    }
    settings = load(environ)
    now, sha256 = datetime.now(UTC), hashlib.sha256(CONTENT).hexdigest()
    row = Document(id="doc_1", document_id="d", status="completed", stored_as="doc_1.bin", size=len(CONTENT))
    row.sha256, row.content_type, row.created_at, row.updated_at = sha256, "application/pdf", now, now
    with make_sessions(make_engine(settings.database_url))() as db:
        db.add(row)
        db.commit()
    with running_receiver(settings) as server:
        yield Site(server, settings)


def test_a_file_arrives_whole_and_its_connection_can_be_used_again(site: Site) -> None:
    with requests.Session() as session:
        for _ in range(2):
            answer = session.get(site.url(PATH), headers=KEY, timeout=60)
            assert (answer.status_code, answer.content == CONTENT) == (200, True)
        assert session.head(site.url(PATH), headers=KEY, timeout=20).headers["Content-Length"] == str(len(CONTENT))
        assert session.get(site.link(), timeout=60).content == CONTENT
        assert session.get(site.url("/livez"), timeout=20).status_code == 200


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_a_part_of_a_file_is_sent_and_one_beyond_its_end_is_416(site: Site) -> None:
    part = requests.get(site.link(), headers={"Range": "bytes=1000000-4000000"}, timeout=60)
    assert (part.status_code, part.content == CONTENT[1_000_000:4_000_001]) == (206, True)
    beyond = requests.get(site.link(), headers={"Range": "bytes=99999999-"}, timeout=60)
    assert (beyond.status_code, list(beyond.json())) == (416, ["error"])


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_downloads_that_are_not_read_hold_no_thread_of_the_pages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_PER_LINK", 100)
    with site.unread(40, site.link()):
        for path in ("/livez", "/console/sign-in", "/api/openapi.json"):
            assert requests.get(site.url(path), timeout=20).status_code == 200
        assert requests.get(site.url("/api/v1/documents"), headers=KEY, timeout=20).status_code == 200
        assert requests.get(site.url(PATH), headers=KEY, timeout=60).content == CONTENT


def test_a_link_has_so_many_downloads_at_once_and_gets_its_place_back_when_a_client_is_gone(site: Site) -> None:
    link = site.link()
    with site.unread(downloads.MAX_PER_LINK, link) as socks:
        refused = requests.get(link, timeout=20)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        assert requests.get(site.url(PATH), headers=KEY, timeout=60).status_code == 200
        socks[0].close()
        wait_until(lambda: requests.get(link, timeout=60).status_code == 200, seconds=20, what="the place")


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_links_leave_places_to_those_who_have_a_key(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_DOWNLOADS", 3)
    monkeypatch.setattr(downloads, "MAX_BY_LINKS", 2)
    with site.unread(2, site.link()):
        refused = requests.get(site.link(), timeout=20)
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        with site.unread(1, site.url(PATH), **KEY):
            assert requests.get(site.url(PATH), headers=KEY, timeout=20).status_code == 503


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_a_reader_who_takes_no_chunk_in_time_loses_the_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CHUNK_SECONDS", 0.3)
    link = site.link()
    with site.unread(downloads.MAX_PER_LINK, link):
        wait_until(lambda: requests.get(link, timeout=60).status_code == 200, seconds=20, what="a place")


@pytest.mark.parametrize("site", ["s3"], indirect=True)
def test_a_store_that_does_not_answer_keeps_links_waiting_and_no_other_page(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        open_store.cache_clear()
        waiting = [site.request(site.link()) for _ in range(40)]
        assert requests.get(site.url("/console/sign-in"), timeout=10).status_code == 200
        for sock in waiting:
            sock.close()
