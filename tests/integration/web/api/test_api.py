"""The JSON API, against a real Valkey and a database."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from dev.stack.servers import Valkey
from inbox import queries
from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.retry import DeadLetter
from inbox.store import Store
from settings import Settings, load
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Document
from tests.support.buckets import S3
from tests.support.signed_deliveries import API_KEY, DOC_SECRET, key_name
from web.application import create_app

BEARER = {"Authorization": f"Bearer {API_KEY}"}
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def settings(valkey: Valkey, database: str, tmp_path: Path) -> Settings:
    return load(
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": database,
            "API_KEYS": f"another-key-0123456789abcd,{API_KEY}",
            "DOCUMENT_STORE": str(tmp_path / "documents"),
            "HANDOFF_SECRET": DOC_SECRET,
        }
    )


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def ask(client: FlaskClient, body: Any, **headers: str) -> tuple[int, Any]:
    response = client.post("/api/v1/documents", json=body, headers={**BEARER, **headers})
    return response.status_code, response.get_json()


def dead_job(store: Store) -> str:
    store.record(Event("stripe", "evt_1", "invoice.payment_failed", b"{}"), [NewJob("j1", "tasks.x", "payments")])
    lease = store.lease("j1", "worker-1", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "the invoice has no customer", DeadLetter("permanent"))
    return "j1"


@pytest.mark.parametrize("key", ["", "Bearer ", "Bearer wrong", API_KEY, "Bearer \xe9"])
def test_a_request_without_a_valid_key_is_401(client: FlaskClient, key: str) -> None:
    response = client.get("/api/v1/stats", headers={"Authorization": key})
    assert (response.status_code, list(response.get_json())) == (401, ["error"])


def test_without_api_keys_every_request_is_401(valkey: Valkey) -> None:
    client = create_app(load({"REDIS_URL": valkey.url})).test_client()
    assert client.get("/api/v1/stats", headers={"Authorization": "Bearer "}).status_code == 401


def test_a_document_request_is_durable_before_the_202(client: FlaskClient, real_store: Store) -> None:
    status, answer = ask(client, {"document_id": "contract.pdf", "options": {"format": "PDF", "ocr": True}})
    assert (status, answer["status"]) == (202, "submitting")
    body = queries.find_body(real_store, "api", answer["id"])
    assert json.loads(body or b"") == {
        "document_id": "contract.pdf",
        "options": {"format": "PDF", "ocr": True},
        "notify": {"agents": []},
        "by": key_name(API_KEY),
    }
    assert real_store.client.llen("documents") == 1
    assert client.get(f"/api/v1/documents/{answer['id']}", headers=BEARER).get_json()["status"] == "submitting"


def test_one_idempotency_key_is_one_document(client: FlaskClient, real_store: Store) -> None:
    answers = {ask(client, {"document_id": "a"}, **{"Idempotency-Key": "k1"})[1]["id"] for _ in range(3)}
    assert len(answers | {ask(client, {"document_id": "a"})[1]["id"]}) == 2
    assert real_store.client.llen("documents") == 2


def test_an_idempotency_key_belongs_to_one_caller_and_one_request(client: FlaskClient, real_store: Store) -> None:
    key = {"Idempotency-Key": "k1"}
    _, first = ask(client, {"document_id": "a", "options": {"ocr": True, "format": "PDF"}}, **key)
    assert ask(client, {"document_id": "a", "options": {"format": "PDF", "ocr": True}}, **key) == (202, first)
    for other in ({"document_id": "b"}, {"document_id": "a"}, {"document_id": "a", "options": {"ocr": False}}):
        status, answer = ask(client, other, **key)
        assert (status, answer["error"][:32]) == (422, "this Idempotency-Key was used fo")
    _, of_another = ask(client, {"document_id": "b"}, **key, Authorization="Bearer another-key-0123456789abcd")
    assert of_another["id"] != first["id"]
    assert real_store.client.llen("documents") == 2


def test_a_repeated_request_returns_the_current_status(client: FlaskClient, settings: Settings) -> None:
    key = {"Idempotency-Key": "k1"}
    _, first = ask(client, {"document_id": "a"}, **key)
    finished(settings, first["id"])
    assert ask(client, {"document_id": "a"}, **key) == (202, {"id": first["id"], "status": "completed"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "the body: "),
        ({}, "document_id: field required"),
        ({"document_id": 7}, "document_id: input should be a valid string"),
        ({"document_id": ""}, "document_id: string should have at least 1 character"),
        ({"document_id": "a b"}, "document_id: string should match pattern"),
        ({"document_id": "a", "colour": "red"}, "colour: extra inputs are not permitted"),
        ({"document_id": "a", "notify": {"email": "nobody"}}, "notify.email: string should match pattern"),
        ({"document_id": "a", "notify": {"locale": "../de"}}, "notify.locale: string should match pattern"),
        ({"document_id": "a", "notify": {"agents": ["ftp://x"]}}, "notify.agents.0: the URL must be a plain https://"),
    ],
)
def test_an_invalid_document_request_is_explained(client: FlaskClient, body: Any, words: str) -> None:
    status, answer = ask(client, body)
    assert (status, answer["error"][: len(words)]) == (400, words)


def finished(settings: Settings, document: str = "doc_1") -> None:
    """The row of a document whose eight bytes are stored."""
    row = Document(
        id=document,
        document_id="contract.pdf",
        status="completed",
        progress=100,
        size=8,
        sha256="ab" * 32,
        stored_as="doc_1",
        content_type="application/pdf",
        created_at=NOW,
        updated_at=NOW,
    )
    with make_sessions(make_engine(settings.database_url))() as db:
        db.add(row)
        db.commit()


def test_a_completed_document_is_shown_and_served(client: FlaskClient, settings: Settings) -> None:
    folder = Path(settings.document_store)
    folder.mkdir()
    (folder / "doc_1").write_bytes(b"%PDF-1.7")
    finished(settings)
    shown = client.get("/api/v1/documents/doc_1", headers=BEARER).get_json()
    assert shown | {"status": "completed", "progress": 100, "size": 8, "sha256": "ab" * 32} == shown
    served = client.get("/api/v1/documents/doc_1/content", headers=BEARER)
    assert (served.data, served.mimetype) == (b"%PDF-1.7", "application/pdf")
    assert served.headers["X-Content-Type-Options"] == "nosniff"
    part = client.get("/api/v1/documents/doc_1/content", headers={**BEARER, "Range": "bytes=1-3"})
    assert (part.status_code, part.data) == (206, b"PDF")


def test_a_document_in_s3_is_served_and_is_503_while_s3_is_unavailable(
    settings: Settings, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3.fresh()
    s3.client.put_object(Bucket=bucket, Key="finished/doc_1", Body=b"%PDF-1.7")
    finished(settings)
    client = create_app(replace(settings, document_store=f"s3://{bucket}/finished")).test_client()
    served = client.get("/api/v1/documents/doc_1/content", headers=BEARER)
    assert (served.data, served.mimetype, served.content_length) == (b"%PDF-1.7", "application/pdf", 8)
    assert "doc_1" in served.headers["Content-Disposition"]
    client = create_app(replace(settings, document_store="s3://no-such-bucket")).test_client()
    refused = client.get("/api/v1/documents/doc_1/content", headers=BEARER)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.get_json() == {"error": "DOCUMENT_STORE: S3 returned NoSuchBucket; try again"}


@pytest.mark.parametrize("path", ["documents/none", "documents/none/content", "events/stripe/none", "nothing"])
def test_an_unknown_path_is_404_in_json(client: FlaskClient, path: str) -> None:
    response = client.get(f"/api/v1/{path}", headers=BEARER)
    assert (response.status_code, list(response.get_json())) == (404, ["error"])


def test_a_dead_job_is_listed_with_its_reason_and_can_be_replayed_once(client: FlaskClient, real_store: Store) -> None:
    job = dead_job(real_store)
    (listed,) = client.get("/api/v1/jobs?state=dead", headers=BEARER).get_json()["jobs"]
    assert (listed["id"], listed["reason"]) == (job, "the invoice has no customer")
    assert client.post(f"/api/v1/jobs/{job}/replay", headers=BEARER).get_json() == {"replayed": job}
    again = client.post(f"/api/v1/jobs/{job}/replay", headers=BEARER)
    assert (again.status_code, again.get_json()["error"]) == (409, "not replayed: unfinished")
    audit: Any = real_store.client.xrange("{holdfast}:audit")
    assert [fields[b"by"][:8] for _, fields in audit] == [b"api key "]


def test_an_event_is_shown_with_its_jobs_and_attempts_and_all_its_jobs_are_replayed(
    client: FlaskClient, real_store: Store
) -> None:
    dead_job(real_store)
    event = client.get("/api/v1/events/stripe/evt_1", headers=BEARER).get_json()
    assert [attempt["outcome"] for attempt in event["jobs"][0]["attempts"]] == ["failed"]
    replayed = client.post("/api/v1/events/stripe/evt_1/replay", headers=BEARER).get_json()
    assert replayed == {"replayed": {"j1": "replayed"}}


def test_events_are_listed_newest_first_and_pages_skip_none(client: FlaskClient, store: Store) -> None:
    for name in ("evt_1", "evt_2", "evt_3"):  # all in one millisecond
        store.record(Event("stripe", name, "x", b"{}"), [])
    listed = client.get("/api/v1/events", headers=BEARER).get_json()["events"]
    assert [event["id"] for event in listed] == ["evt_3", "evt_2", "evt_1"]
    older = client.get(f"/api/v1/events?cursor={store.now_ms()}:stripe:evt_3", headers=BEARER).get_json()["events"]
    assert [event["id"] for event in older] == ["evt_2", "evt_1"]
    assert client.get("/api/v1/events?cursor=nonsense", headers=BEARER).status_code == 400


def test_stats_and_metrics_agree_with_the_record(client: FlaskClient, real_store: Store) -> None:
    dead_job(real_store)
    real_store.record(Event("stripe", "evt_1", "x", b"{}"), [])
    stats = client.get("/api/v1/stats", headers=BEARER).get_json()
    assert stats | {"accepted": 1, "duplicates": 1, "dead": 1, "unfinished": 0, "running": 0} == stats
    metrics = client.get("/metrics").text
    assert 'holdfast_accepted_total{source="stripe"} 1.0' in metrics
    assert 'holdfast_jobs{state="dead"} 1.0' in metrics


def test_low_memory_is_reported_before_the_store_is_full(client: FlaskClient, real_store: Store) -> None:
    real_store.client.config_set("maxmemory", "512mb")
    try:
        metrics = client.get("/metrics").text
    finally:
        real_store.client.config_set("maxmemory", "0")
    assert "holdfast_store_limit_bytes 5.36870912e+08" in metrics
    assert "\nholdfast_store_bytes " in metrics


@pytest.mark.parametrize("path", ["a%00b", "%ff", "a%00b/content", "x" * 5000])
def test_a_document_id_that_cannot_exist_is_404(client: FlaskClient, path: str) -> None:
    assert client.get(f"/api/v1/documents/{path}", headers=BEARER).status_code == 404


def test_a_request_over_the_limit_is_413(client: FlaskClient) -> None:
    body = b'{"document_id": "' + b"x" * 1_100_000 + b'"}'
    assert client.post("/api/v1/documents", data=body, headers=BEARER).status_code == 413


def test_without_a_database_the_response_is_503(settings: Settings) -> None:
    away = create_app(replace(settings, database_url="sqlite:////nowhere/at/all.db")).test_client()
    response = away.get("/api/v1/documents/doc_1", headers=BEARER)
    assert (response.status_code, "Retry-After" in response.headers) == (503, True)
