"""The document-service simulator is a peer that can be trusted: others are judged by what it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook
from urllib3.exceptions import ProtocolError

from dev.simulators.document_service import DocumentService
from dev.simulators.http import Request, Response, Simulator
from dev.simulators.pdf import document_pdf
from dev.stack.servers import free_port, wait_until

KEY = "key-for-tests"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HEADERS = {"Authorization": f"Bearer {KEY}"}


class Listener(Simulator):
    """The receiver of the callbacks: it verifies and keeps them, and answers with the statuses in `answers`."""

    def __init__(self) -> None:
        super().__init__(self._accept)
        self.answers = [200]  # the last one is for all that follow
        self.received: list[tuple[str, dict[str, Any]]] = []

    def _accept(self, request: Request) -> Response:
        body = Webhook(SECRET).verify(request.body, {name.lower(): value for name, value in request.headers.items()})
        self.received.append((request.headers["webhook-id"], body))
        return Response(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    @property
    def statuses(self) -> list[str]:
        return [body["status"] for _, body in self.received]


@dataclass
class Peers:
    service: DocumentService
    listener: Listener

    def submit(self, document_id: str, key: str | None = None, **headers: str) -> requests.Response:
        job = {"document_id": document_id, "callback_url": self.listener.url, "processing_options": {"format": "PDF"}}
        given = HEADERS | ({"Idempotency-Key": key} if key else {}) | headers
        return requests.post(f"{self.service.url}/api/v1/process", json=job, headers=given, timeout=30)

    def status(self, task: str) -> requests.Response:
        return requests.get(f"{self.service.url}/api/v1/process/{task}", headers=HEADERS, timeout=30)

    def wait_for(self, count: int) -> list[str]:
        """The statuses called back, when there are `count` of them and no more are coming."""
        wait_until(lambda: len(self.listener.received) >= count, seconds=30, what=f"{count} callbacks")
        time.sleep(0.1)
        return self.listener.statuses


@pytest.fixture
def peers() -> Iterator[Peers]:
    with DocumentService(KEY, SECRET, pause_seconds=0.02) as service, Listener() as listener:
        yield Peers(service, listener)


def test_a_closed_service_sends_no_callback() -> None:
    lines: list[str] = []
    job = {"document_id": "report-1.pdf", "callback_url": f"http://127.0.0.1:{free_port()}/"}
    with DocumentService(KEY, SECRET, pause_seconds=0.05, log=lines.append) as service:
        requests.post(f"{service.url}/api/v1/process", json=job, headers=HEADERS, timeout=30)
        wait_until(lambda: bool(lines), seconds=30, what="the first callback, which fails")
    assert service.busy == 0
    assert "called back, answer none" in lines[0]


@pytest.mark.parametrize(
    ("document_id", "statuses"),
    [
        ("report-1.pdf", ["queued", "processing", "completed"]),
        ("late-1.pdf", ["queued", "processing", "completed", "processing"]),
        ("twice-1.pdf", ["queued", "queued", "processing", "processing", "completed", "completed"]),
        ("fails-1.pdf", ["queued", "processing", "failed"]),
        ("early-1.pdf", ["completed"]),
        ("flaky-1.pdf", ["queued", "processing", "failed"]),
        ("silent-1.pdf", []),
        ("lost-1.pdf", []),
    ],
)
def test_the_start_of_a_documents_id_chooses_its_behaviour(peers: Peers, document_id: str, statuses: list[str]) -> None:
    assert peers.submit(document_id).status_code == 200
    assert peers.wait_for(len(statuses)) == statuses


def test_the_status_of_a_task_can_be_polled_whether_or_not_it_calls_back(peers: Peers) -> None:
    for document in ("report-1.pdf", "silent-1.pdf", "early-1.pdf"):
        task = peers.submit(document).json()["task_id"]

        def completed(task: str = task) -> bool:
            return bool(peers.status(task).json()["status"] == "completed")

        wait_until(completed, seconds=30, what=document)
        assert peers.status(task).json()["task_id"] == task
        assert peers.status(task).json()["result_url"].endswith(document)


def test_a_task_that_is_unknown_or_lost_is_404_and_the_next_one_of_that_document_is_not(peers: Peers) -> None:
    first, second = (peers.submit("lost-1.pdf", key=key).json()["task_id"] for key in ("a", "b"))
    assert [peers.status(task).status_code for task in ("task_none", first, second)] == [404, 404, 200]
    assert peers.wait_for(3) == ["queued", "processing", "completed"]


def test_the_result_is_served_whole_with_its_length_also_after_a_redirect_or_slowly(peers: Peers) -> None:
    for name in ("report-1.pdf", "moved-a/1.pdf", "slow-1.pdf"):
        peers.submit(name)
        wait_until(lambda: peers.listener.statuses[-1:] == ["completed"], seconds=30, what=name)
        answer = requests.get(peers.listener.received.pop()[1]["result_url"], timeout=10)
        assert answer.content == document_pdf(name)
        assert answer.headers["Content-Length"] == str(len(answer.content))
        assert len(answer.history) == name.startswith("moved-")


def test_a_document_that_breaks_off_does_so_once_and_its_rest_can_be_asked_for(peers: Peers) -> None:
    url, whole = f"{peers.service.url}/files/breaks-1.pdf", document_pdf("breaks-1.pdf")
    with requests.get(url, timeout=30, stream=True) as first:
        assert first.headers["Content-Length"] == str(len(whole))
        half = first.raw.read(len(whole) // 2)
        with pytest.raises(ProtocolError):
            first.raw.read()
    assert whole.startswith(half)
    resume = {"Range": f"bytes={len(half)}-", "If-Range": first.headers["ETag"]}
    rest = requests.get(url, headers=resume, timeout=30)
    assert (rest.status_code, half + rest.content) == (206, whole)
    assert rest.headers["Content-Range"] == f"bytes {len(half)}-{len(whole) - 1}/{len(whole)}"
    for headers in (resume | {"If-Range": '"another"'}, {}, resume | {"Range": "bytes=9999999-"}):
        assert requests.get(url, headers=headers, timeout=30).content == whole


def test_a_flaky_document_succeeds_the_second_time(peers: Peers) -> None:
    peers.submit("flaky-1.pdf", key="a")
    assert peers.wait_for(3)[-1] == "failed"
    peers.submit("flaky-1.pdf", key="b")
    assert peers.wait_for(6)[-1] == "completed"


def test_an_early_callback_comes_before_the_answer(peers: Peers) -> None:
    peers.submit("early-1.pdf")
    assert peers.listener.statuses == ["completed"]


def test_a_repeated_callback_has_the_same_id(peers: Peers) -> None:
    peers.submit("twice-1.pdf")
    peers.wait_for(6)
    ids = [message_id for message_id, _ in peers.listener.received]
    assert ids[0::2] == ids[1::2]
    assert len(set(ids)) == 3


def test_a_callback_is_sent_again_under_its_id_until_it_is_acknowledged(peers: Peers) -> None:
    peers.listener.answers = [503, 200]
    peers.submit("report-1.pdf")
    assert peers.wait_for(4) == ["queued", "queued", "processing", "completed"]
    assert peers.listener.received[0][0] == peers.listener.received[1][0]


def test_a_busy_service_rejects_a_job_twice_and_then_accepts_it(peers: Peers) -> None:
    answers = [peers.submit("busy-1.pdf", key="k") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "1"


def test_the_same_key_gets_the_same_task_and_starts_no_second_one(peers: Peers) -> None:
    first, second = (peers.submit("report-1.pdf", key="k").json()["task_id"] for _ in range(2))
    assert first == second
    assert peers.wait_for(3) == ["queued", "processing", "completed"]


def test_a_key_used_for_another_document_is_rejected(peers: Peers) -> None:
    peers.submit("report-1.pdf", key="k")
    assert peers.submit("report-2.pdf", key="k").status_code == 409


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [
        (b'{"document_id": "a", "callback_url": "http://127.0.0.1/"}', "wrong", 401),
        (b"not json", KEY, 400),
        (b"[]", KEY, 422),
        (b'{"callback_url": "http://127.0.0.1/"}', KEY, 422),
        (b'{"document_id": "a", "callback_url": "file:///etc/passwd"}', KEY, 422),
        (b'{"document_id": "a", "callback_url": "http://127.0.0.1/", "processing_options": 1}', KEY, 422),
    ],
)
def test_a_request_that_cannot_be_accepted_is_rejected(peers: Peers, body: bytes, key: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(f"{peers.service.url}/api/v1/process", body, headers=headers, timeout=30)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_a_document_is_a_pdf_that_is_the_same_every_time() -> None:
    made = document_pdf("report-1.pdf")
    assert made == document_pdf("report-1.pdf") != document_pdf("report-2.pdf")
    table = int(made.split(b"startxref\n")[1].split()[0])
    first = int(made[table:].splitlines()[3].split()[0])
    assert made.startswith(b"%PDF-1.4")
    assert made[first:].startswith(b"1 0 obj")
    assert len(document_pdf("big-1.pdf")) > 3_000_000
