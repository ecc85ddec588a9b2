"""Result URLs that have expired, and replayed downloads."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from inbox.errors import PermanentError, TransientError
from tasks.documents.callbacks import completed
from tasks.documents.download import download
from tasks.handler import FollowUp, GaveUp
from tasks.models import Notification
from tests.integration.tasks.documents.test_callbacks import by_service, call_back, processing, row, steps, stored
from tests.support.business import Business
from tests.support.peers import Answer, Peer


class Service:
    """A service whose result is at /files/<today>; every other URL answers `refusal`."""

    def __init__(self, refusal: int = 403) -> None:
        self.write_error, self.today, self.status = refusal, "new", "completed"
        self.peer = Peer(self._reply)

    @property
    def requested_paths(self) -> list[str]:
        return [request.path for request in self.peer.requests]

    def _reply(self, request: Request) -> Answer:
        if request.path.startswith("/api/v1/process/"):
            told = {"status": self.status, "result_url": f"{self.peer.url}/files/{self.today}"}
            return Answer(body=json.dumps(told).encode())
        return Answer(body=b"the document") if request.path == f"/files/{self.today}" else Answer(self.write_error)


def to_download(business: Business, service: Service, path: str = "/files/old") -> FollowUp:
    by_service(business, service.peer.url)
    processing(business)
    (follow_up,) = call_back(business, completed, event_id="msg_done", result_url=service.peer.url + path)
    return follow_up


def fetch(business: Business, follow_up: FollowUp) -> list[FollowUp]:
    return business.follow(download, follow_up, source="documents", event_id="msg_done")


def alerts(business: Business) -> int:
    return len(business.all(select(Notification).filter_by(kind="document_failed")))


@pytest.mark.parametrize("refusal", [401, 403, 404, 410])
def test_where_an_address_has_expired_the_one_of_today_is_asked_for(business: Business, refusal: int) -> None:
    with (service := Service(refusal)).peer:
        fetch(business, to_download(business, service))
    assert service.requested_paths == ["/files/old", "/api/v1/process/task_1", "/files/new"]
    assert (row(business).status, row(business).result_url) == ("completed", f"{service.peer.url}/files/new")


@pytest.mark.parametrize(("today", "status"), [("old", "completed"), ("new", "processing"), ("new", "failed")])
def test_without_another_url_the_document_fails(business: Business, today: str, status: str) -> None:
    with (service := Service()).peer:
        job = to_download(business, service, "/files/gone" if today == "new" else "/files/old")
        service.today, service.status = today if today == "new" else "none", status
        if today == "old":
            service.peer.reply = lambda request: (
                Answer(body=json.dumps({"status": "completed", "result_url": f"{service.peer.url}/files/old"}).encode())
                if "process" in request.path
                else Answer(403)
            )
        with pytest.raises(PermanentError, match="answered 403"):
            fetch(business, job)
    assert (row(business).status, alerts(business)) == ("failed", 1)


def test_an_expired_url_is_retried_while_the_service_is_down(business: Business) -> None:
    with (service := Service()).peer:
        job = to_download(business, service)
        service.peer.reply = lambda request: Answer(503 if "process" in request.path else 403)
        with pytest.raises(TransientError, match="503"):
            fetch(business, job)
        assert (row(business).status, alerts(business)) == ("downloading", 0)
        service.peer.reply = service._reply
        business.number = 2
        fetch(business, job)
    assert row(business).status == "completed"


def test_an_address_that_never_answers_fails_the_document_aloud_at_the_last_attempt(business: Business) -> None:
    with (service := Service(503)).peer:
        job = to_download(business, service)
        for business.number, business.last, ending in ((1, False, TransientError), (2, True, GaveUp)):
            assert (row(business).status, alerts(business)) == ("downloading", 0)
            with pytest.raises(ending, match="answered 503"):
                fetch(business, job)
    assert (row(business).status, row(business).error, alerts(business)) == (
        "failed",
        "the document's address answered 503",
        1,
    )


def test_a_download_that_always_exceeds_its_time_limit_fails_the_document_with_a_notification(
    business: Business,
) -> None:
    class OverTime(Exception):
        """Like Celery's time limit; the text of an exception that is not ours must not be quoted."""

    def renew() -> None:
        raise OverTime("s3cret")

    with (service := Service()).peer:
        job = to_download(business, service, "/files/new")
        business._renew = renew  # type: ignore[method-assign]
        for business.number, business.last, ending in ((1, False, OverTime), (2, True, GaveUp)):
            with pytest.raises(ending):
                fetch(business, job)
    assert (row(business).status, row(business).error) == ("failed", "the download failed (OverTime)")
    assert alerts(business) == 1


def test_a_replayed_download_uses_a_new_url_and_is_shown_as_running(business: Business) -> None:
    with (service := Service(500)).peer:
        job = to_download(business, service)
        business.last = True
        with pytest.raises(GaveUp):
            fetch(business, job)
        business.last, business.replays = False, 1
        fetch(business, job)
    assert service.requested_paths == ["/files/old", "/api/v1/process/task_1", "/files/new"]
    assert [status for status, _ in steps(business)] == ["downloading", "failed", "downloading", "completed"]
    assert [path.read_bytes() for path in stored(business)] == [b"the document"]


def test_a_download_that_fails_again_after_a_replay_is_notified_again(business: Business) -> None:
    with (service := Service(404)).peer:
        job = to_download(business, service)
        service.status = "processing"
        for business.replays in range(3):
            with pytest.raises(PermanentError):
                fetch(business, job)
    assert [status for status, _ in steps(business)] == ["downloading", "failed"] * 3
    assert (row(business).status, alerts(business)) == ("failed", 3)
