"""Agents in the API and the console, and documents by signed link, on both databases."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from dev.stack.servers import Valkey
from inbox import queries
from inbox.store import Store
from settings import Settings, load
from tasks.agents.registry import get_or_create, signing_secrets
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Agent, AgentAudit, Document, Handoff
from tasks.signed_link import create_link
from tests.support.signed_deliveries import API_KEY, DOC_SECRET, key_name
from web.application import create_app

BEARER = {"Authorization": f"Bearer {API_KEY}"}
OTHER_KEY = "another-key-0123456789abcd"
URL = "https://agent.example/in?token=hush"


@pytest.fixture
def settings(valkey: Valkey, database: str, tmp_path: Path) -> Settings:
    return load(
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": database,
            "API_KEYS": f"{API_KEY},{OTHER_KEY}",
            "DOCUMENT_STORE": str(tmp_path / "documents"),
            "PUBLIC_URL": "https://us.example",
            "HANDOFF_SECRET": DOC_SECRET,
            "CALL_OUT_ALLOWED_HOSTS": "hub.internal",
        }
    )


@pytest.fixture
def sessions(settings: Settings) -> Callable[[], Session]:
    return make_sessions(make_engine(settings.database_url))


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def post(client: FlaskClient, path: str, body: Any = None) -> tuple[int, Any]:
    answer = client.post(f"/api/v1/{path}", json=body, headers=BEARER)
    return answer.status_code, answer.get_json()


def finished(settings: Settings, sessions: Callable[[], Session], status: str = "completed") -> Document:
    folder = Path(settings.document_store)
    folder.mkdir(exist_ok=True)
    (folder / "doc_1.pdf").write_bytes(b"%PDF-1.7")
    kept = {"stored_as": "doc_1.pdf", "content_type": "application/pdf", "size": 8}
    now = datetime.now(UTC)
    row = Document(id="doc_1", document_id="d", status=status, **kept, created_at=now, updated_at=now)
    with sessions() as db:
        db.add(row)
        db.commit()
    return row


# --- agents -----------------------------------------------------------------------------------------------------------


def test_adding_an_agent_shows_its_secret_once(
    client: FlaskClient, settings: Settings, sessions: Callable[[], Session]
) -> None:
    status, added = post(client, "agents", {"name": "hub", "url": URL, "rate_per_minute": 10})
    assert (status, sorted(added)) == (201, ["id", "name", "secret"])
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", added["secret"])
    assert post(client, "agents", {"name": "hub", "url": URL}) == (200, {"id": added["id"], "name": "hub"})
    (listed,) = client.get("/api/v1/agents", headers=BEARER).get_json()["agents"]
    standing = {"state": "active", "rate_per_minute": 10, "failures": 0, "delivered": 0, "pending": 0, "dead": 0}
    nothing = dict.fromkeys(("failing_since", "open_until", "last_response"))
    assert listed == {"id": added["id"], "name": "hub", "url": URL, **standing, **nothing}
    with sessions() as db:
        (entry,) = db.scalars(select(AgentAudit))
        assert (entry.action, entry.by) == ("added", key_name(API_KEY))
        assert added["secret"] in signing_secrets(settings, db.get_one(Agent, added["id"]), datetime.now(UTC))


@pytest.mark.parametrize("by", ["id", "name"])
def test_rotating_shows_a_new_secret_once(client: FlaskClient, sessions: Callable[[], Session], by: str) -> None:
    added = post(client, "agents", {"name": "hub", "url": URL})[1]
    status, rotated = post(client, f"agents/{added[by]}/rotate")
    assert (status, rotated["id"], rotated["name"]) == (200, added["id"], "hub")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", rotated["secret"])
    assert rotated["secret"] != added["secret"]
    with sessions() as db:
        assert [entry.action for entry in db.scalars(select(AgentAudit))] == ["added", "rotated"]


def test_the_secret_of_a_url_is_told_until_it_is_added_and_stays_the_same(
    client: FlaskClient, sessions: Callable[[], Session]
) -> None:
    told = post(client, "agents/secret", {"url": URL})
    assert (told[0], told[1]["name"]) == (200, None)
    assert told == post(client, "agents/secret", {"url": URL})
    assert post(client, "agents/secret", {"url": "https://b.example/"})[1]["secret"] != told[1]["secret"]
    assert post(client, "agents", {"name": "hub", "url": URL})[1]["secret"] == told[1]["secret"]
    status, refused = post(client, "agents/secret", {"url": URL})
    assert (status, refused["error"].split(",")[0]) == (409, "the URL was added as hub")
    assert post(client, "agents/secret", {"url": "http://10.0.0.5/"})[0] == 400
    with sessions() as db:
        assert [entry.action for entry in db.scalars(select(AgentAudit))] == [*["secret told"] * 3, "added"]


def test_secrets_need_a_handoff_secret(settings: Settings) -> None:
    client = create_app(replace(settings, handoff_secret=())).test_client()
    assert post(client, "agents/secret", {"url": URL})[0] == 400
    assert post(client, "agents/hub/rotate")[0] == 400


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "hub", "url": "https://other.example/"}, 409, "the name is registered for another URL"),
        ({"name": "spoke", "url": URL}, 409, "the URL is registered under another name"),
        ({"name": "a b", "url": "https://x.example/"}, 400, "name: string should match"),
        ({"name": "x", "url": "https://x.example/", "rate_per_minute": 0}, 400, "rate_per_minute: "),
        ({"name": "x", "url": "file:///etc/passwd"}, 400, "url: the URL "),
        ({"name": "x", "url": "http://x.example/"}, 400, "url: x.example must be called by https on port 443"),
        ({"name": "x", "url": "https://10.0.0.5/"}, 400, "url: 10.0.0.5 is a private address"),
        ({"name": "x", "url": "https://2130706433/"}, 400, "url: the URL is invalid"),
        ({"name": "x", "url": "https://[::ffff:127.0.0.1]/"}, 400, "url: ::ffff:7f00:1 is a private address"),
        ({"name": "x", "url": "http://hub.internal/"}, 201, ""),
    ],
)
def test_an_invalid_agent_is_refused_with_an_explanation(
    client: FlaskClient, body: dict[str, Any], status: int, words: str
) -> None:
    post(client, "agents", {"name": "hub", "url": URL})
    got, answer = post(client, "agents", body)
    assert (got, answer.get("error", "")[: len(words)]) == (status, words)
    assert "hush" not in json.dumps(answer)


def test_agents_require_a_handoff_secret(settings: Settings) -> None:
    client = create_app(replace(settings, handoff_secret=())).test_client()
    assert post(client, "agents", {"name": "hub", "url": URL})[0] == 400
    assert post(client, "documents", {"document_id": "d", "notify": {"agents": [URL]}})[0] == 400


@pytest.mark.parametrize("by", ["id", "name"])
def test_an_agent_is_disabled_and_enabled_as_the_response_shows(
    client: FlaskClient, sessions: Callable[[], Session], by: str
) -> None:
    agent = post(client, "agents", {"name": "hub", "url": URL})[1][by]
    for to, state in (("disable", "disabled"), ("disable", "disabled"), ("enable", "active"), ("enable", "active")):
        status, answer = post(client, f"agents/{agent}/{to}")
        assert (status, answer["state"], answer["name"]) == (200, state, "hub")
        assert client.get("/api/v1/agents", headers=BEARER).get_json()["agents"] == [answer]
    with sessions() as db:
        assert [entry.action for entry in db.scalars(select(AgentAudit))] == ["added", "disabled", "enabled"]


@pytest.mark.parametrize("agent", ["none", "a%00b"])
@pytest.mark.parametrize("action", ["disable", "rotate"])
def test_an_unknown_agent_is_404(client: FlaskClient, agent: str, action: str) -> None:
    assert post(client, f"agents/{agent}/{action}") == (404, {"error": "no such agent"})


def test_many_concurrent_disables_are_recorded_once(
    client: FlaskClient, settings: Settings, sessions: Callable[[], Session]
) -> None:
    post(client, "agents", {"name": "hub", "url": URL})
    app = create_app(settings)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(post, app.test_client(), "agents/hub/disable") for _ in range(6)]
        assert {call.result()[0] for call in calls} == {200}
    with sessions() as db:
        assert [entry.action for entry in db.scalars(select(AgentAudit))] == ["added", "disabled"]


def test_a_document_request_names_agents_by_name_or_url_and_invalid_ones_are_refused(
    client: FlaskClient, real_store: Store
) -> None:
    post(client, "agents", {"name": "hub", "url": URL})
    wanted = {"document_id": "d", "notify": {"agents": ["hub", "https://b.example/"]}}
    status, started = post(client, "documents", wanted)
    assert status == 202
    body = queries.find_body(real_store, "api", started["id"])
    assert json.loads(body or b"")["notify"]["agents"] == [URL, "https://b.example/"]
    for unfit, words in (
        ("spoke", "notify.agents.0 must be the name of an agent"),
        ("https://10.0.0.1/", "notify.agents.0: 10.0.0.1"),
    ):
        status, answer = post(client, "documents", {"document_id": "d", "notify": {"agents": [unfit]}})
        assert (status, answer["error"][: len(words)]) == (400, words)


# --- the console ------------------------------------------------------------------------------------------------------


def handed(db: Session, state: str, number: int) -> None:
    now = datetime.now(UTC)
    about = {"document": "doc_1", "agent": get_or_create(db, URL), "kind": "document.completed", "data": {}}
    db.add(Handoff(id=f"api:doc_1:h.{number}", **about, state=state, created_at=now, updated_at=now))


def test_the_page_shows_the_status_of_each_agent_and_no_secret(
    client: FlaskClient, settings: Settings, sessions: Callable[[], Session]
) -> None:
    added = post(client, "agents", {"name": "hub", "url": URL})[1]
    finished(settings, sessions)
    with sessions() as db:
        for number, state in enumerate(["delivered"] * 3 + ["owed"] * 2 + ["dead"]):
            handed(db, state, number)
        agent = db.get_one(Agent, added["id"])
        agent.failures, agent.failing_since = 7, datetime.now(UTC)
        agent.open_until, agent.last_answer = datetime.now(UTC) + timedelta(hours=1), "the agent answered 503"
        db.commit()
    client.post("/console/sign-in", data={"key": API_KEY})
    page = client.get("/console/agents").text
    figures = re.findall(r'<td class="number" data-label="([a-z]+)">(\d+)', page)
    assert figures == [("delivered", "3"), ("pending", "2"), ("dead", "1")]
    assert all(words in page for words in ("hub", "the agent answered 503", "circuit breaker open until", "7 failures"))
    assert "hush" not in page
    assert added["secret"] not in page


def test_the_buttons_disable_and_enable_only_with_the_form_token(
    client: FlaskClient, sessions: Callable[[], Session]
) -> None:
    agent = post(client, "agents", {"name": "hub", "url": URL})[1]["id"]
    client.post("/console/sign-in", data={"key": OTHER_KEY})
    token = re.findall(r'name="form_token" value="(\w+)"', client.get("/console/agents").text)[-1]
    assert client.post(f"/console/agents/{agent}/disable").status_code == 403
    for to in ("disable", "enable"):
        assert client.post(f"/console/agents/{agent}/{to}", data={"form_token": token}).status_code == 302
    with sessions() as db:
        entries = [(entry.action, entry.by) for entry in db.scalars(select(AgentAudit).order_by(AgentAudit.id))]
    assert entries[1:] == [("disabled", key_name(OTHER_KEY)), ("enabled", key_name(OTHER_KEY))]


# --- signed links -----------------------------------------------------------------------------------------------------


def path_of(settings: Settings, seconds: int = 60, document: str = "doc_1") -> str:
    parts = urlsplit(create_link(settings, document, datetime.now(UTC), seconds))
    return f"{parts.path}?{parts.query}"


def test_a_signed_link_serves_the_document_without_a_key(
    client: FlaskClient, settings: Settings, sessions: Callable[[], Session]
) -> None:
    finished(settings, sessions)
    served = client.get(path_of(settings))
    assert (served.status_code, served.data, served.mimetype) == (200, b"%PDF-1.7", "application/pdf")
    told = {name: served.headers[name] for name in ("Cache-Control", "Referrer-Policy", "X-Content-Type-Options")}
    assert list(told.values()) == ["no-store", "no-referrer", "nosniff"]
    assert served.headers["Content-Disposition"].startswith("attachment")
    part = client.get(path_of(settings), headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.data) == (206, b"PDF")
    head = client.head(path_of(settings))
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", "8")


def test_a_link_is_no_hmac_by_an_api_key_so_guesses_of_the_key_are_expensive(settings: Settings) -> None:
    found = re.search(r"until=(\d+)&signature=(\w{64})$", path_of(settings))
    assert found
    signed = (f"content:doc_1:{found[1]}", f"doc_1:{found[1]}")
    assert found[2] not in [hmac.digest(API_KEY.encode(), text.encode(), "sha256").hex() for text in signed]


def test_a_link_is_valid_while_its_key_is_configured(
    client: FlaskClient, settings: Settings, sessions: Callable[[], Session]
) -> None:
    finished(settings, sessions)
    path = path_of(settings)
    first, other = settings.api_keys
    for keys, status in (((other, first), 200), ((other,), 404), ((), 404)):
        rotated = create_app(replace(settings, api_keys=keys)).test_client()
        assert rotated.get(path).status_code == status


def test_a_key_that_may_not_read_neither_signs_links_nor_can_its_owner_forge_them(
    settings: Settings, sessions: Callable[[], Session]
) -> None:
    finished(settings, sessions)
    reader = settings.api_keys[0]
    writer = load({"API_KEYS": f"shop:write:{OTHER_KEY}"}).api_keys[0]
    both = replace(settings, api_keys=(writer, reader))
    client = create_app(both).test_client()
    assert client.get(path_of(both)).status_code == 200
    (owner_says_read,) = load({"API_KEYS": f"shop:read:{OTHER_KEY}"}).api_keys
    assert client.get(path_of(replace(settings, api_keys=(owner_says_read,)))).status_code == 404


def test_without_keys_every_link_is_invalid(settings: Settings, sessions: Callable[[], Session]) -> None:
    finished(settings, sessions)
    closed = replace(settings, api_keys=())
    assert create_app(closed).test_client().get(path_of(closed)).status_code == 404


WRONGS: dict[str, Callable[[str], str]] = {
    "no signature": lambda path: path.partition("&")[0],
    "nothing": lambda path: path.partition("?")[0],
    "another signature": lambda path: path[:-1] + ("0" if path[-1] != "0" else "1"),
    "a longer life": lambda path: re.sub(r"until=(\d+)", lambda found: f"until={int(found[1]) + 1}", path),
    "no time": lambda path: re.sub(r"until=\d+", "until=never", path),
    "digits of another script": lambda path: re.sub(r"until=\d+", "until=%D9%A1", path),
    "another document": lambda path: path.replace("doc_1", "doc_2"),
    "bytes": lambda path: path + "%ff%00",
    "a document with NUL": lambda path: path.replace("doc_1", "doc%001"),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_every_invalid_link_is_the_same_404(
    client: FlaskClient, settings: Settings, sessions: Callable[[], Session], wrong: str
) -> None:
    finished(settings, sessions)
    answer = client.get(WRONGS[wrong](path_of(settings)))
    assert (answer.status_code, answer.get_json()) == (404, {"error": "no such document, or the link has expired"})
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("seconds", "status"), [(60, "downloading"), (60, "failed"), (-1, "completed")])
def test_an_expired_link_or_one_of_an_unfinished_document_is_404(
    client: FlaskClient, settings: Settings, sessions: Callable[[], Session], seconds: int, status: str
) -> None:
    finished(settings, sessions, status)
    assert client.get(path_of(settings, seconds)).status_code == 404
    assert client.get(path_of(settings, document="doc_9")).status_code == 404
