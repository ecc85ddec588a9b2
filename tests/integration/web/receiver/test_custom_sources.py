"""Senders of the user's own: verified, told apart and recorded as the others are, whatever they send."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from dev.stack.servers import Valkey
from inbox import find, queries
from inbox.find import Filter
from inbox.store import Store
from settings import load
from tasks import routes
from tests.integration.web.receiver.test_hostile_input import ABSURD, NO_JSON
from tests.support.asgi_client import asgi_client
from tests.support.signed_deliveries import API_KEY, signed_by_documents

SECRET = "a-secret-of-16-or-more"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SOURCES = f"""
[github]
scheme = "hmac-sha256"
secret = "{SECRET}"
id = "header:X-GitHub-Delivery"
type = "header:X-GitHub-Event"

[crm]
scheme = "bearer"
secret = ["a-newer-secret-0123456789", "{SECRET}"]
header = "X-Api-Key"
id = "body:event.id"
type = "body:event.kind"

[plain]
scheme = "bearer"
secret = "{SECRET}"

[own-id]
secret = "{SIGNING}"
id = "header:X-Id"

[signed]
secret = "{SIGNING}"
"""
KEY = {"X-Api-Key": SECRET}


@pytest.fixture
def client(valkey: Valkey, tmp_path: Path) -> Client:
    here = {"REDIS_URL": valkey.url, "DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "API_KEYS": API_KEY}
    return asgi_client(load({**here, "SOURCES": SOURCES}))


def github(client: Client, body: bytes, **change: str) -> int:
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-GitHub-Event": "push",
    }
    return client.post("/hooks/github", data=body, headers=headers | change).status_code


def crm(client: Client, event: Any) -> int:
    return client.post("/hooks/crm", data=json.dumps({"event": event}), headers=KEY).status_code


def recorded(store: Store) -> list[tuple[str, str, str]]:
    rows = find.search(store, "events", Filter(), 50).rows
    return sorted((row["source"], row["id"], row["type"]) for row in rows)


def test_each_is_recorded_by_the_id_and_the_type_that_it_says(client: Client, real_store: Store) -> None:
    assert github(client, b"no JSON is needed where headers tell") == 200
    assert crm(client, {"id": 7, "kind": "deal.won"}) == 200
    body, headers = signed_by_documents({"type": "x.happened"}, "msg_7", SIGNING)
    assert client.post("/hooks/signed", data=body, headers=headers).status_code == 200
    assert recorded(real_store) == [
        ("crm", "7", "deal.won"),
        ("github", "72d3162e-cc78-11e3-81ab-4c9367dc0958", "push"),
        ("signed", "msg_7", "x.happened"),
    ]


def test_a_repetition_is_a_duplicate_and_two_senders_may_use_one_id(client: Client, real_store: Store) -> None:
    for _ in range(2):
        assert crm(client, {"id": "evt-1", "kind": "deal.won"}) == 200
    assert github(client, b"{}", **{"X-GitHub-Delivery": "evt-1"}) == 200
    stats = queries.stats(real_store)
    assert (stats["accepted"], stats["duplicates"], stats["unhandled"]) == (2, 1, 2)


@pytest.mark.parametrize("change", [{}, {"X-GitHub-Event": "repository.deleted"}])
def test_a_delivery_sent_again_under_another_id_and_type_is_one_event(
    client: Client, real_store: Store, change: dict[str, str]
) -> None:
    for number in range(3):
        assert (
            github(client, b'{"n": 1}', **{"X-GitHub-Delivery": f"guid-{number}"}, **(change if number else {})) == 200
        )
    assert recorded(real_store) == [("github", "guid-0", "push")]
    stats = queries.stats(real_store)
    assert (stats["accepted"], stats["duplicates"]) == (1, 2)
    assert queries.delivery_counts(real_store)["duplicate:github"] == 2
    assert github(client, b'{"n": 2}', **{"X-GitHub-Delivery": "guid-3"}) == 200
    assert len(recorded(real_store)) == 2


def test_an_id_beside_the_signature_of_standard_webhooks_is_not_trusted_either(
    client: Client, real_store: Store
) -> None:
    body, headers = signed_by_documents({"type": "x.happened"}, "msg_7", SIGNING)
    for number in range(2):
        assert client.post("/hooks/own-id", data=body, headers={**headers, "X-Id": f"id-{number}"}).status_code == 200
    assert recorded(real_store) == [("own-id", "id-0", "x.happened")]


def test_without_a_place_for_the_id_it_is_a_digest_of_the_body(client: Client, real_store: Store) -> None:
    bearer = {"Authorization": f"Bearer {SECRET}"}
    for body in ('{"type": "a"}', '{"type": "a"}', '{"type": "a", "n": 1}'):
        assert client.post("/hooks/plain", data=body, headers=bearer).status_code == 200
    digest = hashlib.sha256(b'{"type": "a"}').hexdigest()
    assert len(recorded(real_store)) == 2
    assert ("plain", digest, "a") in recorded(real_store)


def test_a_route_makes_a_job_of_it(client: Client, real_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ROUTES, ("github", "push"), "tasks.payouts.payout_failed")
    assert github(client, b"{}") == 200
    ((source, event, _),) = recorded(real_store)
    found = queries.find_event(real_store, source, event)
    assert found is not None
    assert [job["task"] for job in found["jobs"]] == ["tasks.payouts.payout_failed"]


def test_one_that_does_not_prove_itself_is_refused_and_counted(client: Client, real_store: Store) -> None:
    assert github(client, b"{}", **{"X-Hub-Signature-256": "sha256=00"}) == 400
    assert client.post("/hooks/crm", data="{}").status_code == 400
    counts = client.get("/api/v1/sources", headers={"Authorization": f"Bearer {API_KEY}"}).get_json()["sources"]
    rejected = {source["name"]: source["rejected"] for source in counts}
    assert (rejected["github"]["signature"], rejected["crm"]["unsigned"]) == (1, 1)


@pytest.mark.parametrize("field", ["id", "kind"])
@pytest.mark.parametrize("absurd", [*ABSURD, *NO_JSON])
def test_an_absurd_value_is_refused_in_words_or_recorded(client: Client, field: str, absurd: str) -> None:
    value = {**ABSURD, **NO_JSON}[absurd]
    other = "kind" if field == "id" else "id"
    body = f'{{"event": {{"{other}": "x", "{field}": {value}}}}}'.encode("utf-8", "surrogatepass")
    answer = client.post("/hooks/crm", data=body, headers=KEY)
    assert (answer.status_code, list(answer.get_json())) in ((200, ["success"]), (400, ["error"]))


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'"x"', b'{"event": []}', b'{"event": {"id": true}}', b"\xff"])
def test_a_body_of_another_shape_is_refused_in_words(client: Client, real_store: Store, body: bytes) -> None:
    answer = client.post("/hooks/crm", data=body, headers=KEY)
    assert (answer.status_code, list(answer.get_json())) == (400, ["error"])
    assert recorded(real_store) == []
