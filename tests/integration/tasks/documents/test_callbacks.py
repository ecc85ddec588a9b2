"""Documents, on both databases: submitted, tracked, downloaded, announced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from dev.simulators.document_service import DocumentService
from dev.simulators.pdf import document_pdf
from inbox.errors import LeaseLost, PermanentError, TransientError
from settings import load
from tasks.clients.document_service import ProcessRequest, request_processing
from tasks.documents import transfer
from tasks.documents.announcements import notify_waiters
from tasks.documents.callback_url import callback_url
from tasks.documents.callbacks import completed, create_document, failed, progress
from tasks.documents.download import download
from tasks.documents.submissions import submit
from tasks.handler import FollowUp, GaveUp
from tasks.models import Document, DocumentStep, Handoff, Notification
from tasks.notifications.notify import send
from tests.support.business import HANDOFF_SECRET, NOW, Business, at_once
from tests.support.peers import Answer, Mailbox, Peer
from tests.support.signed_deliveries import API_KEY as OUR_API_KEY
from web.application import create_app

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13

API_KEY = "key-of-the-document-service"
TASK = json.dumps({"task_id": "task_1"}).encode()
REQUEST = {"document_id": "contract-7", "options": {"format": "PDF", "ocr": True}}


@pytest.fixture
def service(business: Business) -> Iterator[DocumentService]:
    """The simulator; its callbacks go to a closed port, because these tests call the handlers themselves."""
    with DocumentService(API_KEY, HANDOFF_SECRET) as server:
        by_service(business, server.url)
        yield server


def by_service(business: Business, url: str) -> None:
    business.settings |= {
        "DOC_SERVICE_URL": url,
        "DOC_SERVICE_API_KEY": API_KEY,
        "PUBLIC_URL": "http://127.0.0.1:9",
        "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
    }


def ask(business: Business, **more: Any) -> list[FollowUp]:
    """Request a document, up to its first submission."""
    body = {**REQUEST, **more}
    first, deadline = business.run(create_document, body, source="api", event_id="doc_1")
    assert (deadline.effect, deadline.delay_seconds) == ("documents.deadline.1.1", 86400)
    return business.follow(submit, first, body, source="api", event_id="doc_1")


def call_back(business: Business, handler: Any, event_id: str = "msg_1", **fields: Any) -> list[FollowUp]:
    body = {"task_id": "task_1", "document_id": "contract-7", "status": handler.__name__, **fields}
    return business.run(handler, body, source="documents", event_id=event_id)


def row(business: Business) -> Document:
    document = business.one(select(Document))
    assert isinstance(document, Document)
    return document


def steps(business: Business) -> list[tuple[str, int]]:
    return [(s.status, s.progress) for s in business.all(select(DocumentStep).order_by(DocumentStep.id))]


def processing(business: Business, **fields: Any) -> None:
    """A document whose task at the service is task_1."""
    values = {"document_id": "contract-7", "status": "processing", "created_at": NOW, "updated_at": NOW, **fields}
    with business.sessions() as db:
        db.add(Document(id="doc_1", task_id="task_1", **values))
        db.commit()


def fetch(business: Business, url: str) -> list[FollowUp]:
    """The follow-ups of a callback for a finished document."""
    (follow_up,) = call_back(business, completed, event_id="msg_done", result_url=url)
    return business.follow(download, follow_up, source="documents", event_id="msg_done")


def stored(business: Business) -> list[Path]:
    return sorted(path for path in (business.folder / "documents").rglob("*") if path.is_file())


# --- initiate ---------------------------------------------------------------------------------------------------------


def test_a_document_is_submitted_to_the_service_and_its_task_id_stored(
    business: Business, service: DocumentService
) -> None:
    (deadline,) = ask(business, notify={"email": "ada@example.com", "agents": ["https://a.example.com/in"]})
    assert deadline.effect == "documents.deadline.1.1"
    document = row(business)
    assert (document.id, document.document_id, document.status) == ("doc_1", "contract-7", "processing")
    assert document.task_id is not None
    assert document.task_id.startswith("task_")
    assert (document.notify_email, document.notify_agents) == ("ada@example.com", ["https://a.example.com/in"])
    assert steps(business) == [("submitting", 0), ("processing", 0)]


def test_the_service_is_asked_by_its_contract() -> None:
    with Peer(lambda _: Answer(202, body=TASK)) as peer:
        settings = load(
            {"DOC_SERVICE_URL": peer.url, "DOC_SERVICE_API_KEY": API_KEY, "PUBLIC_URL": "https://us.example.com"}
        )
        wanted = ProcessRequest("contract-7", callback_url(settings, "doc_1"), {"ocr": True})
        assert request_processing(settings, wanted, "the-key", NOW) == "task_1"
    (request,) = peer.requests
    assert (request.method, request.path) == ("POST", "/api/v1/process")
    assert json.loads(request.body) == {
        "document_id": "contract-7",
        "callback_url": "https://us.example.com/doc-status-webhook",
        "processing_options": {"ocr": True},
    }
    assert request.headers["Authorization"] == f"Bearer {API_KEY}"
    assert request.headers["Idempotency-Key"] == "the-key"


def test_two_at_once_start_one_task(business: Business, service: DocumentService) -> None:
    at_once(lambda _: ask(business), 2)
    assert row(business).status == "processing"
    assert len(service.tasks()) == 1


def test_after_a_crash_behind_the_response_the_request_is_repeated_with_the_same_key(business: Business) -> None:
    with Peer(lambda _: Answer(200, body=TASK)) as peer:
        by_service(business, peer.url)
        first, _ = business.run(create_document, REQUEST, source="api", event_id="doc_1")
        attempt = business.attempt("api", "doc_1", REQUEST, first.effect, first.args)
        with business.sessions() as db:
            submit(attempt, db)  # and no commit
        assert row(business).status == "submitting"
        ask(business)
        assert [request.headers["Idempotency-Key"] for request in peer.requests] == ["api:doc_1:documents.start.1"] * 2
    assert row(business).task_id == "task_1"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_service_is_called_again_after_its_retry_after(business: Business, status: int) -> None:
    with Peer(lambda _: Answer(status, {"Retry-After": "23"})) as peer:
        by_service(business, peer.url)
        with pytest.raises(TransientError, match=f"the document service answered {status}") as error:
            ask(business)
    assert error.value.retry_after_seconds == 23
    assert row(business).status == "submitting"


def test_a_service_that_is_away_is_transient(business: Business) -> None:
    by_service(business, "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="the document service did not answer"):
        ask(business)


def test_a_refusal_fails_the_document_tells_the_administrator_and_is_a_dead_letter(
    business: Business, mailbox: Mailbox
) -> None:
    business.settings["ADMIN_NOTIFY_URLS"] = mailbox.url + "&to=ops@example.com"
    with Peer(lambda _: Answer(422)) as peer:
        by_service(business, peer.url)
        for business.replays in range(2):
            with pytest.raises(PermanentError, match="the document service answered 422"):
                ask(business)
    assert (row(business).status, row(business).error) == ("failed", "the document service answered 422")
    assert len(mailbox.mails) == 2  # one for each failure
    for recipients, mail in mailbox.mails:
        assert recipients == ["ops@example.com"]
        assert mail["Subject"] == "The document doc_1 failed"
    assert business.all(select(Notification.state)) == ["sent", "sent"]


def test_a_replay_after_the_cause_is_corrected_continues(business: Business) -> None:
    answers = iter([Answer(401), Answer(200, body=TASK)])
    with Peer(lambda _: next(answers)) as peer:
        by_service(business, peer.url)
        with pytest.raises(PermanentError):
            ask(business)
        with pytest.raises(PermanentError, match="replay this job"):  # killed before it was a dead letter
            ask(business)
        business.replays = 1
        ask(business)
    assert (row(business).status, row(business).error) == ("processing", None)
    assert [status for status, _ in steps(business)] == ["submitting", "failed", "submitting", "processing"]


def test_a_refusal_is_recorded_even_if_the_administrator_cannot_be_notified(business: Business) -> None:
    business.settings["ADMIN_NOTIFY_URLS"] = "json://127.0.0.1:9/"
    with Peer(lambda _: Answer(400)) as peer:
        by_service(business, peer.url)
        with pytest.raises(PermanentError, match="answered 400"):
            ask(business)
    assert row(business).status == "failed"
    assert business.one(select(Notification.state)) == "owed"


def test_without_a_service_the_setting_is_named(business: Business) -> None:
    with pytest.raises(PermanentError, match="DOC_SERVICE_URL is not set"):
        ask(business)
    assert row(business).status == "failed"


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"task_id": 7}', b"{}", b"\xff"])
def test_an_answer_without_a_task_is_a_dead_letter(business: Business, body: bytes) -> None:
    with Peer(lambda _: Answer(200, body=body)) as peer:
        by_service(business, peer.url)
        with pytest.raises(PermanentError, match="no task_id"):
            ask(business)


def test_a_request_without_a_document_is_refused_by_name(business: Business) -> None:
    with pytest.raises(PermanentError, match="document_id"):
        ask(business, document_id=None)


# --- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [progress, completed, failed])
def test_a_callback_that_overtook_its_answer_is_tried_again(business: Business, handler: Any) -> None:
    with pytest.raises(TransientError, match="the task is not known yet"):
        call_back(business, handler)
    processing(business)
    call_back(business, handler, result_url="https://files.example.com/1")


@pytest.mark.parametrize(
    ("reported", "reached"),
    [([10, 60], 60), ([60, 10], 60), ([60, None], 60), ([-5], 0), ([250], 100), ([33.7], 33), ([1e8], 100)],
)
def test_progress_never_runs_back(business: Business, reported: list[float | None], reached: int) -> None:
    processing(business)
    for number, percent in enumerate(reported):
        call_back(business, progress, event_id=f"msg_{number}", progress=percent)
    assert (row(business).progress, row(business).status) == (reached, "processing")


@pytest.mark.parametrize("final", ["downloading", "completed", "failed"])
@pytest.mark.parametrize("handler", [progress, completed, failed])
def test_a_document_that_the_service_is_done_with_listens_no_more(business: Business, final: str, handler: Any) -> None:
    processing(business, status=final, progress=50)
    assert call_back(business, handler, progress=90, result_url="https://x.example.com/", error_message="late") == []
    assert (row(business).status, row(business).progress, row(business).error) == (final, 50, None)


def test_a_failure_is_stored_with_its_reason_and_the_administrator_notified(business: Business) -> None:
    processing(business)
    with capture_logs() as lines:
        told, again = call_back(business, failed, error_message="page 3 of Ada's passport cannot be read")
    assert again.effect == "documents.start.2"
    assert (row(business).status, row(business).error) == ("failed", "page 3 of Ada's passport cannot be read")
    assert business.one(select(Notification.kind)) == "document_failed"
    assert [line["document"] for line in lines] == ["doc_1"]
    assert "passport" not in str([lines, told, again])


def test_a_completed_document_is_to_be_fetched(business: Business) -> None:
    processing(business)
    (follow_up,) = call_back(business, completed, result_url="https://files.example.com/1?token=s3cret")
    assert (follow_up.task, follow_up.args) == ("tasks.documents.download", {"document": "doc_1"})
    assert row(business).status == "downloading"


def test_a_completion_without_a_result_is_refused_by_name(business: Business) -> None:
    processing(business)
    with pytest.raises(PermanentError, match="result_url"):
        call_back(business, completed)


def test_callbacks_at_once_lead_to_one_download(business: Business) -> None:
    processing(business)
    url = "https://files.example.com/1"
    answers = at_once(lambda n: call_back(business, completed, event_id=f"msg_{n}", result_url=url), 3)
    assert sorted(len(answer) for answer in answers) == [0, 0, 1]


# --- download ---------------------------------------------------------------------------------------------------------


def test_a_document_is_stored_whole_with_its_digest_and_size(business: Business, service: DocumentService) -> None:
    processing(business)
    assert fetch(business, f"{service.url}/files/contract-7") == []
    content = document_pdf("contract-7")
    document = row(business)
    assert (document.status, document.progress) == ("completed", 100)
    assert (document.sha256, document.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (document.stored_as, document.content_type) == ("doc_1.pdf", "application/pdf")
    (path,) = stored(business)
    assert path == business.folder / "documents" / "doc_1.pdf"
    assert path.read_bytes() == content


def test_the_result_is_fetched_with_our_key_from_the_service_only(business: Business) -> None:
    with (
        Peer(lambda _: Answer(200, body=b"x")) as elsewhere,
        Peer(lambda _: Answer(302, {"Location": elsewhere.url})) as peer,
    ):
        by_service(business, peer.url)
        processing(business)
        fetch(business, f"{peer.url}/files/1")
        assert peer.requests[0].headers["Authorization"] == f"Bearer {API_KEY}"
        assert API_KEY not in str(elsewhere.requests[0].headers)


def test_the_recipients_are_notified_of_success(business: Business, service: DocumentService) -> None:
    processing(
        business, notify_email="ada@example.com", notify_agents=["https://a.example.com", "https://b.example.com"]
    )
    told, *agents = fetch(business, f"{service.url}/files/contract-7")
    assert told.task == "tasks.notifications.send"
    owed = business.all(select(Handoff).order_by(Handoff.agent))
    assert sorted(f.args["handoff"] for f in agents) == sorted(row.id for row in owed)
    assert {f.ordering_key for f in agents} == {"agents:https://a.example.com:443", "agents:https://b.example.com:443"}
    assert [row.kind for row in owed] == ["document.completed"] * 2
    assert business.one(select(Notification)).params == {}, "no live link"


def test_the_link_in_the_mail_opens_the_document_without_a_key(
    business: Business, service: DocumentService, mailbox: Mailbox
) -> None:
    business.now = datetime.now(UTC) - timedelta(days=30)
    business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}&to={{email}}"
    processing(business, notify_email="ada@example.com")
    (told,) = fetch(business, f"{service.url}/files/contract-7")
    business.now = datetime.now(UTC)  # the mail server was down for a month
    business.follow(send, told)
    ((_, mail),) = mailbox.mails
    text = mail.get_body(("plain",))
    assert text is not None
    (link,) = re.findall(r"http://127\.0\.0\.1:9(/content/\S+)", text.get_content())
    with business.sessions() as db:
        bind = db.get_bind()
    assert isinstance(bind, Engine)
    ours = load({"DOCUMENT_STORE": str(business.folder / "documents"), "API_KEYS": OUR_API_KEY})
    ours = replace(ours, database_url=bind.url.render_as_string(hide_password=False))
    served = create_app(ours).test_client().get(link)
    assert (served.status_code, served.data) == (200, stored(business)[0].read_bytes())


@pytest.mark.parametrize(
    ("document_id", "shown"),
    [
        ("https://login.evil.example/verify", "https://login[.]evil[.]example/verify"),
        ("login.evil.example/verify", "login[.]evil[.]example/verify"),
        ("www.evil.example", "www[.]evil[.]example"),
        ("pay@evil.example", "pay@evil[.]example"),
        ("contract-7.v2.pdf", "contract-7.v2.pdf"),
    ],
)
@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_mail_has_a_fixed_subject_and_no_link_that_the_requester_chose(
    business: Business, mailbox: Mailbox, status: str, document_id: str, shown: str
) -> None:
    business.settings |= {"CUSTOMER_NOTIFY_URLS": f"{mailbox.url}&to={{email}}", "PUBLIC_URL": "https://us.example"}
    stamps = {"created_at": NOW, "updated_at": NOW}
    document = Document(id="doc_1", document_id=document_id, status=status, notify_email="ada@example.com", **stamps)
    document.start, document.notify_agents = 1, []
    attempt = business.attempt("documents", "msg_1", None, "documents.download", {})
    with business.sessions() as db:
        db.add(document)
        (mail,) = notify_waiters(db, attempt, document)
        db.commit()
    business.follow(send, mail, source="documents", event_id="msg_1")
    ((_, received),) = mailbox.mails
    subjects = {"completed": "Your document is ready", "failed": "Your document could not be prepared"}
    assert received["Subject"] == subjects[status]
    text = received.get_body(("plain",))
    assert text is not None
    assert f"The document {shown} " in text.get_content()


def test_the_recipients_are_notified_of_a_failure_by_the_job_that_becomes_a_dead_letter(business: Business) -> None:
    processing(business, notify_email="ada@example.com", notify_agents=["https://a.example.com"])
    with Peer(lambda _: Answer(404)) as peer:
        by_service(business, peer.url)
        told = []
        for _ in range(2):  # the second as after a death between the commit and the dead letter
            with pytest.raises(GaveUp) as gave_up:
                fetch(business, f"{peer.url}/files/1")
            told.append(gave_up.value.follow_ups)
    assert told[0] == told[1]
    assert [one.task for one in told[0]] == ["tasks.notifications.send", "tasks.handoff.deliver"]
    owed = business.one(select(Handoff))
    assert (owed.kind, owed.data["error"]) == ("document.failed", "the document's address answered 404")
    assert business.one(select(Notification.kind).filter_by(audience="customer")) == "document_not_ready"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda: Answer(200, {"Content-Length": "1000"}, b"half"), TransientError, "did not answer"),
        (lambda: Answer(503, {"Retry-After": "5"}), TransientError, "answered 503"),
        (lambda: Answer(404), PermanentError, "answered 404"),
        (lambda: Answer(403), PermanentError, "answered 403"),
    ],
)
def test_nothing_of_a_download_that_failed_is_left_behind(
    business: Business, answer: Callable[[], Answer], error: type[Exception], words: str
) -> None:
    with Peer(lambda _: answer()) as peer:
        by_service(business, peer.url)
        processing(business)
        with pytest.raises(error, match=words) as raised:
            fetch(business, f"{peer.url}/files/1?token=s3cret")
    assert "s3cret" not in str(raised.value)
    assert stored(business) == []
    assert row(business).status == ("failed" if error is PermanentError else "downloading")


def test_an_interrupted_download_is_completed_by_the_next_attempt(business: Business) -> None:
    answers = iter([Answer(200, {"Content-Length": "8"}, b"half"), Answer(200, body=b"complete")])
    with Peer(lambda _: next(answers)) as peer:
        by_service(business, peer.url)
        processing(business)
        with pytest.raises(TransientError):
            fetch(business, peer.url)
        fetch(business, peer.url)
    assert [path.read_bytes() for path in stored(business)] == [b"complete"]


def test_an_address_in_our_own_network_is_not_fetched(business: Business) -> None:
    with Peer(lambda _: Answer()) as peer:
        by_service(business, "https://service.example.com")
        business.settings["CALL_OUT_ALLOWED_HOSTS"] = ""
        processing(business)
        with pytest.raises(PermanentError, match="CALL_OUT_ALLOWED_HOSTS"):
            fetch(business, peer.url)
        assert peer.requests == []
    assert row(business).status == "failed"


def test_a_document_over_the_limit_is_not_kept(business: Business) -> None:
    business.settings["MAX_DOCUMENT_BYTES"] = "100"
    with Peer(lambda _: Answer(200, {}, [b"x" * 60, b"x" * 60])) as peer:
        by_service(business, peer.url)
        processing(business)
        with pytest.raises(PermanentError, match="larger than 100 bytes"):
            fetch(business, peer.url)
    assert stored(business) == []


def test_a_long_download_keeps_its_lease_and_shows_how_far_it_is(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_it_shows() -> Iterator[bytes]:
        while row(business).received_bytes == 0 or business.renewals < 3:
            sent.append(b"x" * 100)
            yield sent[-1]
            time.sleep(0.005)

    sent: list[bytes] = []
    monkeypatch.setattr(transfer, "RENEW_EVERY_SECONDS", 0.02)
    monkeypatch.setattr("tasks.documents.download._ProgressRecorder.EVERY_SECONDS", 0.02)
    with Peer(lambda _: Answer(200, {}, until_it_shows())) as peer:
        by_service(business, peer.url)
        processing(business)
        fetch(business, peer.url)
    assert row(business).size == row(business).received_bytes == row(business).total_bytes == 100 * len(sent)


def test_how_long_a_download_will_be_is_shown_as_soon_as_it_is_known(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_it_shows() -> Iterator[bytes]:
        yield b"x" * 100
        while row(business).total_bytes is None:
            time.sleep(0.005)
            yield b"x"
            sent.append(b"x")
        seen.append((row(business).status, row(business).received_bytes > 0))
        yield b"x" * (10_000 - 100 - len(sent))

    sent: list[bytes] = []
    seen: list[tuple[str, bool]] = []
    monkeypatch.setattr(transfer, "RENEW_EVERY_SECONDS", 0.02)
    with Peer(lambda _: Answer(200, {"Content-Length": "10000"}, until_it_shows())) as peer:
        by_service(business, peer.url)
        processing(business)
        fetch(business, peer.url)
    assert seen == [("downloading", True)]
    assert (row(business).total_bytes, row(business).size) == (10_000, 10_000)


@pytest.mark.parametrize(("told", "ends"), [({"size": 8}, True), ({"size": 9}, False), ({"sha256": "5F" * 32}, False)])
def test_a_result_must_have_the_digest_and_size_of_its_callback(
    business: Business, told: dict[str, Any], ends: bool
) -> None:
    with Peer(lambda _: Answer(200, body=b"complete")) as peer:
        by_service(business, peer.url)
        processing(business)
        (job,) = call_back(business, completed, event_id="msg_done", result_url=peer.url, **told)
        if ends:
            business.follow(download, job, source="documents", event_id="msg_done")
        else:
            with pytest.raises(TransientError, match="differs from what the document service stated"):
                business.follow(download, job, source="documents", event_id="msg_done")
    assert row(business).status == ("completed" if ends else "downloading")
    assert len(stored(business)) == ends


def test_of_a_long_reason_the_beginning_is_kept_and_mailed(business: Business) -> None:
    processing(business)
    call_back(business, failed, error_message="page 3 " * 100_000)
    reason = "page 3 " * 285 + "page "
    assert row(business).error == business.one(select(Notification)).params["reason"] == reason


def test_a_download_whose_lease_has_expired_stops_and_stores_nothing(business: Business) -> None:
    def gone() -> None:
        raise LeaseLost

    business._renew = gone  # type: ignore[method-assign]
    with Peer(lambda _: Answer(200, body=b"x")) as peer:
        by_service(business, peer.url)
        processing(business)
        with pytest.raises(LeaseLost):
            fetch(business, peer.url)
    assert stored(business) == []


def test_what_a_killed_download_left_behind_is_swept_by_a_later_one(
    business: Business, service: DocumentService
) -> None:
    incoming = business.folder / "documents" / ".incoming"
    incoming.mkdir(parents=True)
    for name, age in (("old", timedelta(days=2)), ("new", timedelta(hours=1))):
        (incoming / f"{name}.part").write_bytes(b"x")
        at = (NOW - age).timestamp()
        os.utime(incoming / f"{name}.part", (at, at))
    processing(business)
    fetch(business, f"{service.url}/files/contract-7")
    assert [path.name for path in stored(business)] == ["new.part", "doc_1.pdf"]


def test_a_store_that_cannot_be_written_is_transient_and_named(business: Business, service: DocumentService) -> None:
    (business.folder / "documents").write_text("a file where the folder should be")
    processing(business)
    with pytest.raises(TransientError, match="DOCUMENT_STORE"):
        fetch(business, f"{service.url}/files/contract-7")
