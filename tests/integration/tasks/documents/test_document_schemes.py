"""The document service's callbacks by each scheme, from the callback URL to the document."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select
from werkzeug.test import Client

from dev.stack.servers import Valkey
from inbox import find, queries
from inbox.errors import PermanentError
from inbox.find import Filter
from inbox.store import Store
from settings import load
from tasks.documents.callback_url import callback_url
from tasks.documents.callbacks import completed, failed, progress
from tasks.models import Document
from tests.support.asgi_client import asgi_client
from tests.support.business import NOW, Business
from tests.support.running import run
from tests.support.signed_deliveries import API_KEY
from workers.run import AttemptFailed, Runner

SECRET, NEW_SECRET = "a-secret-of-16-or-more", "another-secret-of-16-or-more"
DONE = {"task_id": "task_1", "status": "completed", "result_url": "https://files.example.com/1"}
FAILED = {"task_id": "task_1", "status": "failed"}


def settings_of(scheme: str, **more: str) -> dict[str, str]:
    return {
        "DOC_WEBHOOK_SCHEME": scheme,
        "DOC_WEBHOOK_SECRET": SECRET,
        "PUBLIC_URL": "https://us.example.com",
        **more,
    }


def receiver(valkey: Valkey, folder: Path, scheme: str, **more: str) -> Client:
    here = {"REDIS_URL": valkey.url, "DATABASE_URL": f"sqlite:///{folder}/x.db", "API_KEYS": API_KEY}
    return asgi_client(load(here | settings_of(scheme, **more)))


def proved(scheme: str, body: bytes, document: str = "doc_1") -> tuple[str, dict[str, str]]:
    """The address that a service calls, and what it puts into its headers."""
    url = urlsplit(callback_url(load(settings_of(scheme)), document))
    headers = {
        "hmac-sha256": {"X-Hub-Signature-256": f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"},
        "bearer": {"Authorization": f"Bearer {SECRET}"},
    }
    return f"{url.path}?{url.query}".rstrip("?"), headers.get(scheme, {})


def call(client: Client, scheme: str, told: Any, document: str = "doc_1") -> int:
    body = json.dumps(told).encode()
    path, headers = proved(scheme, body, document)
    return client.post(path, data=body, headers=headers).status_code


def recorded(store: Store) -> list[dict[str, Any]]:
    rows = find.search(store, "events", Filter(), 10).rows
    events = (queries.find_event(store, row["source"], row["id"]) for row in rows)
    return [event for event in events if event]


OWN = ("hmac-sha256", "bearer", "token")


@pytest.mark.parametrize("scheme", OWN)
def test_a_repeated_callback_is_processed_once(valkey: Valkey, tmp_path: Path, real_store: Store, scheme: str) -> None:
    client = receiver(valkey, tmp_path, scheme)
    assert [call(client, scheme, DONE) for _ in range(3)] == [200] * 3
    (event,) = recorded(real_store)
    assert (event["type"], event["deliveries"]) == ("completed", 3)
    assert event["id"].startswith("task_1:completed:")


@pytest.mark.parametrize("scheme", OWN)
def test_a_callback_with_other_content_is_another_event(
    valkey: Valkey, tmp_path: Path, real_store: Store, scheme: str
) -> None:
    client = receiver(valkey, tmp_path, scheme)
    for told in (DONE, FAILED, FAILED | {"task_id": "task_2"}, FAILED | {"error_message": "x"}):
        assert call(client, scheme, told) == 200
    assert len({event["id"] for event in recorded(real_store)}) == 4


@pytest.mark.parametrize("scheme", OWN)
def test_one_that_proves_nothing_is_refused_and_counted(
    valkey: Valkey, tmp_path: Path, real_store: Store, scheme: str
) -> None:
    client = receiver(valkey, tmp_path, scheme)
    path, headers = proved(scheme, b"another body", "doc_2")
    forged = {name: value[:-1] + "x" for name, value in headers.items()}
    for attempt in ({}, forged):
        answer = client.post(path.replace("doc_2", "doc_1"), data=json.dumps(DONE), headers=attempt)
        assert (answer.status_code, list(answer.get_json())) == (400, ["error"])
        assert SECRET not in answer.text
    assert (recorded(real_store), queries.stats(real_store)["rejected"]) == ([], 2)


@pytest.mark.parametrize("scheme", OWN)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"task_id": "t"}',
        b'{"task_id": "", "status": "x"}',
        b'{"task_id": "t", "status": "two words"}',
        b'{"task_id": "t", "status": ""}',
        b'{"task_id": "t\\u0000", "status": "x"}',
        b'{"task_id": "t", "status": "completed"}',
        json.dumps({"task_id": "t" * 256, "status": "x"}).encode(),
        json.dumps({"task_id": "t", "status": "x" * 256}).encode(),
        b"[" * 5000,
    ],
)
def test_an_authentic_but_malformed_callback_is_a_400_with_a_message(
    valkey: Valkey, tmp_path: Path, real_store: Store, scheme: str, body: bytes
) -> None:
    client = receiver(valkey, tmp_path, scheme)
    path, headers = proved(scheme, body)
    answer = client.post(path, data=body, headers=headers)
    assert (answer.status_code, list(answer.get_json())) == (400, ["error"])
    assert recorded(real_store) == []


def test_the_longest_task_and_status_have_an_identity_too(valkey: Valkey, tmp_path: Path, real_store: Store) -> None:
    client = receiver(valkey, tmp_path, "bearer")
    for number in range(2):
        told = {"task_id": "t" * 254 + str(number), "status": "s" * 255}
        assert call(client, "bearer", told) == 200
    assert len(recorded(real_store)) == 2


@pytest.mark.parametrize(("scheme", "header"), [("hmac-sha256", "X-Signature"), ("bearer", "X-Api-Key")])
def test_the_header_can_be_named(valkey: Valkey, tmp_path: Path, real_store: Store, scheme: str, header: str) -> None:
    client = receiver(valkey, tmp_path, scheme, DOC_WEBHOOK_HEADER=header)
    body = json.dumps(DONE).encode()
    path, headers = proved(scheme, body)
    assert client.post(path, data=body, headers=headers).status_code == 400
    assert client.post(path, data=body, headers={header: next(iter(headers.values()))}).status_code == 200


@pytest.mark.parametrize("scheme", OWN)
def test_while_a_secret_is_rotated_the_old_one_is_accepted(
    valkey: Valkey, tmp_path: Path, real_store: Store, scheme: str
) -> None:
    client = receiver(valkey, tmp_path, scheme, DOC_WEBHOOK_SECRET=f"{NEW_SECRET},{SECRET}")
    assert call(client, scheme, DONE) == 200


# --- an address for each document -------------------------------------------------------------------------------------


def test_only_the_scheme_token_gives_each_document_an_address_of_its_own() -> None:
    for scheme in ("hmac-sha256", "bearer"):
        assert callback_url(load(settings_of(scheme)), "doc_1") == "https://us.example.com/doc-status-webhook"
    made = {callback_url(load(settings_of("token")), document) for document in ("doc_1", "doc_2")}
    assert len(made) == 2
    assert all(url.startswith("https://us.example.com/doc-status-webhook?document=doc_") for url in made)


def test_the_token_of_one_document_cannot_claim_the_event_id_of_another(
    valkey: Valkey, tmp_path: Path, real_store: Store
) -> None:
    client = receiver(valkey, tmp_path, "token")
    assert call(client, "token", FAILED, "doc_2") == 200
    assert call(client, "token", FAILED, "doc_1") == 200
    assert len(recorded(real_store)) == 2


def test_the_job_knows_which_document_the_address_was_for(valkey: Valkey, tmp_path: Path, real_store: Store) -> None:
    client = receiver(valkey, tmp_path, "token")
    call(client, "token", DONE)
    (event,) = recorded(real_store)
    lease = real_store.lease(event["jobs"][0]["id"], "worker-1", 60)
    assert not isinstance(lease, str)
    assert lease.args == {"document": "doc_1"}


def document(business: Business, key: str, task: str | None, status: str = "processing") -> None:
    with business.sessions() as db:
        row = Document(id=key, document_id="contract", status=status, created_at=NOW, updated_at=NOW, task_id=task)
        row.notify_agents = []
        db.add(row)
        db.commit()


def status_of(business: Business, key: str) -> str:
    return str(business.one(select(Document.status).filter_by(id=key)))


@pytest.mark.parametrize("handler", [progress, completed, failed])
def test_a_callback_url_of_one_document_cannot_change_the_task_of_another(business: Business, handler: Any) -> None:
    document(business, "doc_1", "task_1")
    document(business, "doc_2", "task_2")
    with pytest.raises(PermanentError, match="the task does not belong to the document of this callback URL"):
        business.run(handler, DONE | {"progress": 50}, source="documents", args={"document": "doc_2"})
    assert (status_of(business, "doc_1"), status_of(business, "doc_2")) == ("processing", "processing")


def test_a_callback_before_the_response_finds_its_document_by_the_callback_url(business: Business) -> None:
    document(business, "doc_1", None, "submitting")
    (fetch,) = business.run(completed, DONE, source="documents", args={"document": "doc_1"})
    assert (fetch.args, status_of(business, "doc_1")) == ({"document": "doc_1"}, "downloading")


def test_a_task_that_the_document_never_had_is_a_dead_letter(business: Business) -> None:
    document(business, "doc_1", "task_7")
    with pytest.raises(PermanentError, match="the document belongs to another task"):
        business.run(completed, DONE, source="documents", args={"document": "doc_1"})


# --- an unknown task --------------------------------------------------------------------------------------------------


def test_a_callback_of_an_unknown_task_is_answered_200_and_shown_until_it_is_a_dead_letter(
    valkey: Valkey, tmp_path: Path, real_store: Store, business: Business
) -> None:
    client = receiver(valkey, tmp_path, "bearer")
    assert call(client, "bearer", DONE) == 200
    (event,) = recorded(real_store)
    job, key = event["jobs"][0]["id"], {"Authorization": f"Bearer {API_KEY}"}
    for attempts, state in ((2, "scheduled"), (1, "dead")):
        runner = Runner(
            real_store, business.sessions, load({"MAX_ATTEMPTS": str(attempts)}), lambda _: None, "worker-1"
        )
        real_store.client.hset(f"{{holdfast}}:job:{job}", "due", 0)  # its next attempt is due now
        with pytest.raises(AttemptFailed):
            run(runner, completed, job, "", 60)
        (shown,) = client.get(f"/api/v1/events/documents/{event['id']}", headers=key).get_json()["jobs"]
        assert (shown["state"], shown["reason"]) == (state, "the task is not known yet")
    (dead,) = client.get("/api/v1/jobs?state=dead", headers=key).get_json()["jobs"]
    assert dead["id"] == job


@pytest.mark.parametrize("scheme", OWN)
def test_a_status_in_capitals_is_the_same_status(
    valkey: Valkey, tmp_path: Path, real_store: Store, scheme: str
) -> None:
    client = receiver(valkey, tmp_path, scheme)
    assert call(client, scheme, DONE | {"status": "COMPLETED"}) == 200
    (event,) = recorded(real_store)
    assert (event["type"], [job["task"] for job in event["jobs"]]) == ("completed", ["tasks.documents.completed"])
    assert call(client, scheme, {"task_id": "task_2", "status": "Completed"}) == 400  # and no result_url
