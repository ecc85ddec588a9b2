"""Documents without a callback or with a failure: polled, waited for, started again, or failed with a notification."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from inbox.errors import PermanentError, TransientError
from tasks.clients.document_service import fetch_status
from tasks.documents.callbacks import completed, create_document, failed, progress
from tasks.documents.download import download
from tasks.documents.submissions import check_deadline, submit
from tasks.handler import FollowUp
from tasks.models import Document, FormerTask, Notification
from tests.integration.tasks.documents.test_callbacks import REQUEST, by_service, call_back, row, steps
from tests.support.business import Business, at_once
from tests.support.peers import Answer, Peer

RESULT = "https://files.example.com/1"


class Service:
    """A document service whose tasks are task_1, task_2, …; the test sets the status of each."""

    def __init__(self) -> None:
        self.says: Answer | dict[str, Any] = {"status": "processing"}
        self.meanwhile: Callable[[], Any] = lambda: None  # before it answers
        self.keys: list[str] = []
        self.peer = Peer(self._reply)

    @property
    def requested_tasks(self) -> list[str]:
        """The tasks whose status was requested."""
        return [request.path.rpartition("/")[2] for request in self.peer.requests if request.method == "GET"]

    def _reply(self, request: Request) -> Answer:
        if request.method == "POST":
            key = request.headers["Idempotency-Key"]
            self.keys += [key] * (key not in self.keys)
            return Answer(200, body=json.dumps({"task_id": f"task_{self.keys.index(key) + 1}"}).encode())
        self.meanwhile()
        return self.says if isinstance(self.says, Answer) else Answer(body=json.dumps(self.says).encode())


@pytest.fixture
def service(business: Business) -> Iterator[Service]:
    made = Service()
    with made.peer:
        by_service(business, made.peer.url)
        yield made


def follow(business: Business, follow_up: FollowUp, event_id: str = "doc_1", source: str = "api") -> list[FollowUp]:
    handlers = {"start": submit, "deadline": check_deadline, "download": download}
    handler = handlers[follow_up.task.rpartition(".")[2]]
    return business.follow(handler, follow_up, REQUEST, source=source, event_id=event_id)


def handed_over(business: Business) -> FollowUp:
    """A document that is processed as task_1; returns its deadline."""
    first, over = business.run(create_document, REQUEST, source="api", event_id="doc_1")
    follow(business, first)
    return over


def test_a_document_names_the_key_that_requested_it(business: Business) -> None:
    business.run(create_document, REQUEST | {"by": "shop-bot"}, source="api", event_id="doc_1")
    assert business.one(select(Document.by)) == "shop-bot"


def tasks_of(follow_ups: list[FollowUp]) -> list[str]:
    return [follow_up.task.rpartition(".")[2] for follow_up in follow_ups]


def alerts(business: Business) -> list[str]:
    found = business.all(select(Notification).filter_by(kind="document_failed").order_by(Notification.id))
    return [alert.params["next"] for alert in found]


# --- the deadline -----------------------------------------------------------------------------------------------------


def test_a_finished_document_without_a_callback_is_downloaded(business: Business, service: Service) -> None:
    over = handed_over(business)
    service.says = {"status": "completed", "result_url": RESULT}
    fetch, again = follow(business, over)
    assert service.requested_tasks == ["task_1"]
    assert (fetch.task, fetch.args, fetch.ordering_key) == ("tasks.documents.download", {"document": "doc_1"}, "doc_1")
    assert (row(business).status, row(business).result_url) == ("downloading", RESULT)
    assert (again.effect, again.delay_seconds) == ("documents.deadline.1.2", 86400)


def test_one_that_is_still_processed_is_waited_for_and_its_progress_shown(business: Business, service: Service) -> None:
    business.settings["DOCUMENT_DEADLINE"] = "2h"
    over = handed_over(business)
    service.says = {"status": "processing", "progress": 70}
    (again,) = follow(business, over)
    assert (again.args, again.delay_seconds) == ({"document": "doc_1", "start": 1, "number": 2}, 7200)
    assert (row(business).status, row(business).progress) == ("processing", 70)


def test_one_that_is_processed_for_ever_is_not_waited_for_for_ever(business: Business, service: Service) -> None:
    business.settings["DOCUMENT_WAITS"] = "3"
    over = handed_over(business)
    for _ in range(2):
        (over,) = follow(business, over)
    assert tasks_of(follow(business, over)) == ["send", "start", "deadline"]
    assert alerts(business) == ["It is started again: start 2 of 3."]
    assert (row(business).start, row(business).status) == (2, "submitting")


def test_one_that_ends_just_before_it_is_given_up_is_fetched(business: Business, service: Service) -> None:
    business.settings["DOCUMENT_WAITS"] = "1"
    over = handed_over(business)
    service.says = {"status": "completed", "result_url": RESULT}
    fetch, again = follow(business, over)
    assert fetch.task == "tasks.documents.download"
    assert tasks_of(follow(business, again)) == ["send", "start", "deadline"]  # the download never ended


def test_a_new_start_has_no_progress_and_no_result_yet(business: Business, service: Service) -> None:
    over = handed_over(business)
    call_back(business, completed, result_url=RESULT, progress=100)
    with business.sessions() as db:
        db.get_one(Document, "doc_1").progress = 60
        db.get_one(Document, "doc_1").received_bytes = 700
        db.commit()
    service.says = Answer(404)
    _, again, _ = follow(business, over)
    follow(business, again)
    now = row(business)
    assert (now.status, now.progress, now.received_bytes, now.result_url) == ("processing", 0, 0, None)
    call_back(business, progress, event_id="msg_2", task_id="task_2", progress=10)
    assert row(business).progress == 10


@pytest.mark.parametrize(("status", "ends"), [("COMPLETED", "downloading"), ("Failed", "submitting")])
def test_a_status_is_understood_in_any_case(business: Business, service: Service, status: str, ends: str) -> None:
    over = handed_over(business)
    service.says = {"status": status, "result_url": RESULT, "error_message": "a temporary fault"}
    follow(business, over)
    assert row(business).status == ends


@pytest.mark.parametrize(
    "says", [Answer(404), Answer(410), Answer(403), {"status": "completed"}, Answer(body=b"<html>")]
)
def test_one_that_the_service_has_lost_is_started_again_with_a_key_of_its_own(
    business: Business, service: Service, says: Any
) -> None:
    over = handed_over(business)
    service.says = says
    told, again, next_over = follow(business, over)
    assert tasks_of([told, again, next_over]) == ["send", "start", "deadline"]
    assert alerts(business) == ["It is started again: start 2 of 3."]
    assert (row(business).status, row(business).start, row(business).task_id) == ("submitting", 2, None)
    follow(business, again)
    assert service.keys == ["api:doc_1:documents.start.1", "api:doc_1:documents.start.2"]
    assert (row(business).status, row(business).task_id, row(business).error) == ("processing", "task_2", None)
    assert [status for status, _ in steps(business)] == [
        *("submitting", "processing", "failed", "submitting", "processing"),
    ]


def test_after_the_last_start_it_has_failed_and_the_administrator_knows(business: Business, service: Service) -> None:
    business.settings["DOCUMENT_STARTS"] = "2"
    over = handed_over(business)
    service.says = Answer(404)
    _, again, over = follow(business, over)
    follow(business, again)
    told, dead = follow(business, over)
    assert row(business).status == "failed"
    assert tasks_of([told, dead]) == ["send", "start"]
    assert alerts(business) == ["It is started again: start 2 of 2.", "To start it again, replay its dead letter."]
    with pytest.raises(PermanentError, match="replay this job"):
        follow(business, dead)
    assert len(service.keys) == 2


def test_a_start_that_never_reached_the_service_is_made_again(business: Business, service: Service) -> None:
    lost, over = business.run(create_document, REQUEST, source="api", event_id="doc_1")
    _, again, _ = follow(business, over)
    assert service.requested_tasks == []
    follow(business, again)
    assert row(business).task_id == "task_1"
    assert follow(business, lost) == []  # it comes late, and must not start a third
    assert service.keys == ["api:doc_1:documents.start.2"]


def test_a_service_that_is_down_at_the_deadline_is_polled_again_and_finally_the_document_restarts(
    business: Business, service: Service
) -> None:
    over = handed_over(business)
    service.says = Answer(503, {"Retry-After": "7"})
    with pytest.raises(TransientError) as error:
        follow(business, over)
    assert error.value.retry_after_seconds == 7
    assert row(business).status == "processing"
    business.number = 15  # MAX_ATTEMPTS
    assert tasks_of(follow(business, over)) == ["send", "start", "deadline"]


@pytest.mark.parametrize("final", ["completed", "failed"])
def test_the_deadline_of_a_finished_document_makes_no_call(business: Business, service: Service, final: str) -> None:
    over = handed_over(business)
    with business.sessions() as db:
        db.get_one(Document, "doc_1").status = final
        db.commit()
    assert follow(business, over) == []
    assert service.requested_tasks == []


def test_a_download_that_never_ended_gets_a_new_url(business: Business, service: Service) -> None:
    over = handed_over(business)
    call_back(business, completed, result_url=RESULT + "?expired")
    service.says = {"status": "completed", "result_url": RESULT}
    fetch, _ = follow(business, over)
    assert (fetch.effect, row(business).result_url) == ("documents.download.1.1", RESULT)


def test_two_downloads_of_a_document_store_it_and_tell_of_it_once(business: Business, service: Service) -> None:
    over = handed_over(business)
    with business.sessions() as db:
        db.get_one(Document, "doc_1").notify_email = "ada@example.com"
        db.commit()
    with Peer(lambda _: Answer(200, body=b"x")) as files:
        (first,) = call_back(business, completed, result_url=files.url)
        service.says = {"status": "completed", "result_url": files.url}
        second, _ = follow(business, over)
        told = [business.follow(download, first, source="documents", event_id="msg_1"), follow(business, second)]
    assert [len(each) for each in told] == [1, 0]
    assert len(business.all(select(Notification).filter_by(kind="document_ready"))) == 1


@pytest.mark.parametrize(
    ("says", "handler", "ends"),
    [
        ({"status": "processing"}, completed, "downloading"),
        ({"status": "completed", "result_url": RESULT}, completed, "downloading"),
        (Answer(404), completed, "downloading"),
        ({"status": "processing", "progress": 10}, progress, "processing"),
        ({"status": "failed"}, progress, "processing"),
        (Answer(404), failed, "failed"),
    ],
)
def test_a_callback_that_comes_while_the_service_is_asked_wins(
    business: Business, service: Service, says: Any, handler: Any, ends: str
) -> None:
    over = handed_over(business)
    service.says = says
    service.meanwhile = lambda: call_back(business, handler, result_url=RESULT, progress=60)
    follow_ups = follow(business, over)
    assert row(business).status == ends
    assert tasks_of(follow_ups) == ([] if ends == "failed" else ["deadline"])


def test_two_runs_of_a_deadline_at_once_start_one_more_task(business: Business, service: Service) -> None:
    over = handed_over(business)
    service.says = Answer(404)
    one, other = at_once(lambda _: follow(business, over), 2)
    assert one == other
    assert (row(business).start, len(alerts(business))) == (2, 1)
    at_once(lambda _: follow(business, one[1]), 2)
    assert len(service.keys) == 2


def test_a_deadline_that_dies_before_its_commit_has_done_nothing(business: Business, service: Service) -> None:
    over = handed_over(business)
    service.says = Answer(404)
    with business.sessions() as db:
        check_deadline(business.attempt("api", "doc_1", REQUEST, over.effect, over.args), db)
        db.rollback()  # SIGKILL
    assert (row(business).status, row(business).start, alerts(business)) == ("processing", 1, [])
    assert len(follow(business, over)) == 3


def test_a_response_that_comes_after_the_deadline_started_another_task_is_ignored(
    business: Business, service: Service
) -> None:
    slow, over = business.run(create_document, REQUEST, source="api", event_id="doc_1")

    def reply(request: Request) -> Answer:
        found.extend(follow(business, over))
        return Answer(200, body=b'{"task_id": "task_late"}')

    found: list[FollowUp] = []
    with Peer(reply) as peer:
        by_service(business, peer.url)
        assert follow(business, slow) == []
    assert (row(business).start, row(business).task_id) == (2, None)
    assert business.one(select(FormerTask.task_id)) == "task_late"


# --- callbacks for an earlier task ------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [progress, completed, failed])
def test_a_late_callback_of_a_former_task_changes_nothing(business: Business, service: Service, handler: Any) -> None:
    over = handed_over(business)
    service.says = Answer(404)
    _, again, _ = follow(business, over)
    for _ in range(2):  # before the new start is handed over, and after
        before = row(business).updated_at, steps(business)
        late = {"result_url": RESULT, "progress": 99, "error_message": "temporary"}
        assert call_back(business, handler, event_id=f"msg_{len(before[1])}", **late) == []
        assert (row(business).updated_at, steps(business)) == before
        follow(business, again)


def test_a_service_that_returns_the_former_task_id_for_a_new_start_is_accepted(business: Business) -> None:
    with Peer(
        lambda request: Answer(404) if request.method == "GET" else Answer(body=b'{"task_id": "task_1"}')
    ) as peer:
        by_service(business, peer.url)
        over = handed_over(business)
        _, again, next_over = follow(business, over)
        follow(business, again)
        assert (row(business).start, row(business).task_id) == (2, "task_1")
        follow(business, follow(business, next_over)[1])  # and once more: it is a former task already
    assert (row(business).start, row(business).task_id) == (3, "task_1")
    assert call_back(business, completed, result_url=RESULT) != []


def test_a_former_deadline_makes_no_call(business: Business, service: Service) -> None:
    over = handed_over(business)
    call_back(business, failed, error_message="a temporary fault")
    assert follow(business, over) == []
    assert service.requested_tasks == []


# --- the service gave up ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "reason", "again"),
    [
        ("", "Temporarily out of machines", True),
        ("", "the OCR timed out", True),
        ("", "page 3 cannot be read", False),
        ("", None, False),
        ("out of (memory|disk)", "node 7: Out of Memory", True),
        ("out of (memory|disk)", "the OCR timed out", False),
        ("off", "Temporarily out of machines", False),
    ],
)
def test_whether_a_failure_is_started_again_is_a_rule(
    business: Business, service: Service, rule: str, reason: str | None, again: bool
) -> None:
    business.settings["DOCUMENT_RETRY_ERRORS"] = rule
    handed_over(business)
    follow_ups = call_back(business, failed, error_message=reason)
    assert tasks_of(follow_ups) == ["send", "start", "deadline"][: 3 if again else 2]
    assert row(business).status == ("submitting" if again else "failed")
    assert row(business).error == (reason or "no reason given")
    assert alerts(business) == [
        "It is started again: start 2 of 3." if again else "To start it again, replay its dead letter."
    ]
    if again:
        follow(business, follow_ups[1], "msg_1", "documents")
        assert service.keys[1] == "documents:msg_1:documents.start.2"
        assert row(business).status == "processing"


def test_a_failure_that_does_not_pass_is_started_so_often_and_no_more(business: Business, service: Service) -> None:
    handed_over(business)
    for number in (1, 2, 3):
        body = {"task_id": f"task_{number}", "error_message": "temporary"}
        _, again, *_ = business.run(failed, body, source="documents", event_id=f"msg_{number}")
        if number < 3:
            follow(business, again, f"msg_{number}", "documents")
    assert (row(business).status, len(service.keys)) == ("failed", 3)
    with pytest.raises(PermanentError):
        follow(business, again, "msg_3", "documents")


def test_a_replayed_dead_letter_starts_the_document_again(business: Business, service: Service) -> None:
    handed_over(business)
    _, dead = call_back(business, failed, error_message="page 3 cannot be read")
    for _ in range(2):  # dead; or killed just before that was written down
        with pytest.raises(PermanentError, match="replay this job"):
            follow(business, dead, "msg_1", "documents")
    assert len(service.keys) == 1
    business.replays = 1
    (over,) = follow(business, dead, "msg_1", "documents")
    assert (over.effect, row(business).status, row(business).task_id) == (
        "documents.deadline.2.1.again0-1",
        "processing",
        "task_2",
    )
    business.replays = 0
    assert call_back(business, completed, event_id="msg_2", result_url=RESULT) == []  # of task_1
    (fetch,) = business.run(
        completed, {"task_id": "task_2", "result_url": RESULT}, source="documents", event_id="msg_3"
    )
    assert fetch.task == "tasks.documents.download"


def test_a_replay_that_dies_while_it_is_handed_over_goes_on_with_the_same_key(
    business: Business, service: Service
) -> None:
    handed_over(business)
    _, dead = call_back(business, failed, error_message="page 3 cannot be read")
    business.replays = 1
    with business.sessions() as db:
        submit(business.attempt("documents", "msg_1", {}, dead.effect, dead.args), db)
        db.rollback()  # SIGKILL
    follow(business, dead, "msg_1", "documents")
    assert service.keys == ["api:doc_1:documents.start.1", "documents:msg_1:documents.start.2"]
    assert (row(business).start, row(business).task_id) == (2, "task_2")


def test_a_failed_document_that_failed_twice_leaves_one_dead_letter(business: Business, service: Service) -> None:
    handed_over(business)
    first = call_back(business, failed, event_id="msg_1", error_message="broken")
    assert tasks_of(first) == ["send", "start"]
    assert call_back(business, failed, event_id="msg_2", error_message="broken") == []


# --- the call ---------------------------------------------------------------------------------------------------------


def test_the_status_is_asked_by_its_contract_and_at_the_path_that_is_set(business: Business, service: Service) -> None:
    service.says = {"task_id": "a/b", "status": "processing", "progress": 12.5, "more": 1}
    settings = business.attempt("api", "doc_1", None, "x", {}).settings
    assert fetch_status(settings, "a/b?c", business.now).progress == 12.5
    business.settings["DOC_STATUS_PATH"] = "/tasks/{task_id}?full=1"
    fetch_status(business.attempt("api", "doc_1", None, "x", {}).settings, "a/b", business.now)
    assert [request.path for request in service.peer.requests] == ["/api/v1/process/a%2Fb%3Fc", "/tasks/a%2Fb?full=1"]
    assert service.peer.requests[0].headers["Authorization"].startswith("Bearer ")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"task_id": 7}'])
def test_a_malformed_status_is_an_error_with_a_message(business: Business, service: Service, body: bytes) -> None:
    service.says = Answer(body=body)
    settings = business.attempt("api", "doc_1", None, "x", {}).settings
    with pytest.raises(PermanentError):
        fetch_status(settings, "task_1", business.now)


def test_a_malformed_progress_does_not_hide_the_status(business: Business, service: Service) -> None:
    service.says = Answer(body=b'{"status": "processing", "progress": "x"}')
    settings = business.attempt("api", "doc_1", None, "x", {}).settings
    found = fetch_status(settings, "task_1", business.now)
    assert (found.status, found.percent) == ("processing", 0)
