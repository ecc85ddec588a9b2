"""What a key of the API and the console may do: its scopes, its rate, its mails, and its name on what it did."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from dev.stack.servers import Valkey
from inbox import queries
from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.store import Store
from settings import SCOPES, Settings, load
from tests.conftest import fresh_database
from tests.support.signed_deliveries import API_KEY, key_name
from web import auth
from web.api.operation import Operation
from web.application import create_app

KEYS = {scope: f"{scope}-key-0123456789abcdef" for scope in SCOPES}
DOCUMENT = {"document_id": "contract-7", "notify": {"email": "ada@example.com"}}


@pytest.fixture
def settings(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Settings:
    named = [f"{scope}-bot:{scope}:{key}" for scope, key in KEYS.items()]
    return load(
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": fresh_database(request, "sqlite"),
            "API_KEYS": ",".join([API_KEY, *named]),
            "API_MAILS_PER_HOUR": "2",
            "DOCUMENT_STORE": str(tmp_path / "documents"),
            "STRIPE_API_KEY": "sk_test_1",
        }
    )


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def operations(client: FlaskClient) -> Mapping[tuple[str, str], str]:
    """The scope of each operation, by method and path."""
    app, found = client.application, {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if isinstance(view, Operation) and not view.public:
            (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            found[method, re.sub(r"<[^>]+>", "x", rule.rule)] = view.scope
    return found


def test_every_operation_requires_its_scope_and_no_other(client: FlaskClient) -> None:
    for (method, path), scope in operations(client).items():
        for name, key in KEYS.items():
            response = client.open(path, method=method, headers=bearer(key), json={} if method == "POST" else None)
            allowed = response.status_code != 403
            assert allowed == (name == scope), (method, path, name)
            if not allowed:
                message = f"this needs a key with the scope {scope}; {name}-bot has {name}"
                assert response.get_json() == {"error": message}


def test_a_change_requires_more_than_reading(client: FlaskClient) -> None:
    assert {scope for (method, _), scope in operations(client).items() if method == "GET"} == {"read"}
    assert "read" not in {scope for (method, _), scope in operations(client).items() if method != "GET"}


def test_a_key_without_scopes_in_its_entry_may_do_everything(client: FlaskClient) -> None:
    for method, path in operations(client):
        response = client.open(path, method=method, headers=bearer(API_KEY), json={} if method == "POST" else None)
        assert response.status_code not in (401, 403), (method, path)


# --- the console ------------------------------------------------------------------------------------------------------


def test_the_console_is_closed_to_a_key_that_may_not_read(client: FlaskClient) -> None:
    for scope in ("write", "replay", "admin"):
        answer = client.post("/console/sign-in", data={"key": KEYS[scope]})
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (403, False)


def test_in_the_console_a_key_may_do_no_more_than_in_the_api(client: FlaskClient) -> None:
    client.post("/console/sign-in", data={"key": KEYS["read"]})
    page = client.get("/console/")
    assert (page.status_code, "read-bot" in page.text) == (200, True)
    token = re.findall(r'name="form_token" value="(\w+)"', page.text)[0]
    for path in ("jobs/replay", "jobs/discard", "replays", "agents/x/disable"):
        assert client.post(f"/console/{path}", data={"form_token": token, "job": "x"}).status_code == 403
    assert client.post("/console/sign-out", data={"form_token": token}).status_code == 302


# --- rates ------------------------------------------------------------------------------------------------------------


def test_each_key_has_its_own_rate_in_api_and_console_together(settings: Settings) -> None:
    keys = load({"API_KEYS": f"{API_KEY},{API_KEY}-2"}).api_keys
    client = create_app(replace(settings, api_keys=keys, api_rate_per_minute=3)).test_client()
    client.post("/console/sign-in", data={"key": API_KEY})
    assert client.get("/console/sources").status_code == 200
    statuses = [client.get("/api/v1/stats", headers=bearer(API_KEY)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = client.get("/api/v1/stats", headers=bearer(API_KEY))
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    assert refused.get_json() == {"error": f"too many requests by {key_name(API_KEY)} (API_RATE_PER_MINUTE)"}
    assert client.get("/console/sources").status_code == 429
    assert client.get("/api/v1/stats", headers=bearer(f"{API_KEY}-2")).status_code == 200


def test_all_processes_together_take_a_limited_number_of_mails_from_each_key(
    client: FlaskClient, settings: Settings
) -> None:
    def request(client: FlaskClient, key: str, body: object = DOCUMENT) -> int:
        response = client.post("/api/v1/documents", json=body, headers=bearer(key))
        assert response.status_code != 429 or response.headers["Retry-After"] == "3600"
        return response.status_code

    twin = create_app(settings).test_client()
    assert [request(one, KEYS["write"]) for one in (client, twin, client, twin)] == [202, 202, 429, 429]
    assert request(client, KEYS["write"], {"document_id": "contract-7"}) == 202
    assert request(client, API_KEY) == 202


def test_a_key_replays_only_so_many_single_jobs_a_day(
    client: FlaskClient, real_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_REPLAYS", 2)
    for n in range(3):
        real_store.record(Event("stripe", f"evt_{n}", "x", b"{}"), [NewJob(f"job-{n}", "tasks.a", "payments")])
        lease = real_store.lease(f"job-{n}", "worker", 60)
        assert isinstance(lease, Lease)
        real_store.finish(lease)

    def replay(key: str, job: str) -> int:
        return client.post(f"/api/v1/jobs/{job}/replay", headers=bearer(key)).status_code

    assert [replay(KEYS["replay"], f"job-{n}") for n in range(3)] == [200, 200, 429]
    assert [entry["job"] for entry in queries.list_audit_log(real_store, 10)] == ["job-1", "job-0"]
    assert replay(API_KEY, "job-2") == 200


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "scope"), [("documents", DOCUMENT, "write"), ("reconcile", {"days": 2}, "replay")]
)
def test_an_event_that_a_key_requests_names_the_key(
    client: FlaskClient, real_store: Store, path: str, body: object, scope: str
) -> None:
    event = client.post(f"/api/v1/{path}", json=body, headers=bearer(KEYS[scope])).get_json()["id"]
    source = {"documents": "api", "reconcile": "holdfast"}[path]
    recorded = json.loads(queries.find_body(real_store, source, event) or b"{}")
    assert recorded["by"] == f"{scope}-bot"
    shown = client.get(f"/api/v1/events/{source}/{event}", headers=bearer(KEYS["read"])).get_json()
    assert shown["payload"]["by"] == f"{scope}-bot"


def test_a_repeated_request_is_recognised_although_an_earlier_version_recorded_no_key(
    client: FlaskClient, real_store: Store
) -> None:
    document = "doc_" + hashlib.sha256(b"write-bot k").hexdigest()[:32]
    earlier = b'{"document_id":"contract-7","options":{},"notify":{"email":"ada@example.com","agents":[]}}'
    real_store.record(Event("api", document, "document.requested", earlier), [])
    headers = bearer(KEYS["write"]) | {"Idempotency-Key": "k"}
    for _ in range(3):  # more than the mails of an hour: a repetition sends none
        response = client.post("/api/v1/documents", json=DOCUMENT, headers=headers)
        assert (response.status_code, response.get_json()["id"]) == (202, document)
    other = client.post("/api/v1/documents", json={"document_id": "contract-8"}, headers=headers)
    assert other.status_code == 422
