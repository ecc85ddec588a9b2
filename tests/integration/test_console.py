"""The console's gate and its first page, against a real Valkey and a database."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dev.servers import Valkey
from inbox import figures
from inbox.event import Event
from inbox.job import NewJob
from inbox.store import Store
from settings import Settings, load
from tests.conftest import Clock, fresh_database
from tests.senders import API_KEY
from web import create_app
from web.console import sign_in

OTHER_KEY = "another-key-0123456789"


@pytest.fixture
def settings(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Settings:
    return load(
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": fresh_database(request, "sqlite"),
            "API_KEYS": f"{OTHER_KEY},{API_KEY}",
            "DOCUMENT_STORE": str(tmp_path / "documents"),
        }
    )


@pytest.fixture
def visitor(settings: Settings) -> FlaskClient:
    """Somebody who has not signed in."""
    return create_app(settings).test_client()


@pytest.fixture
def client(visitor: FlaskClient) -> FlaskClient:
    assert enter(visitor, API_KEY).status_code == 302
    return visitor


def enter(client: FlaskClient, key: str, **form: str) -> TestResponse:
    return client.post("/console/sign-in", data={"key": key, **form})


def token(client: FlaskClient) -> str:
    found = re.search(r'name="form_token" value="(\w+)"', client.get("/console/").text)
    assert found
    return found[1]


@pytest.mark.parametrize("path", ["", "?span=24h", "nothing", "events"])
def test_every_page_leads_to_the_sign_in_first(visitor: FlaskClient, path: str) -> None:
    answer = visitor.get(f"/console/{path}")
    assert (answer.status_code, answer.location[:21]) == (302, "/console/sign-in?next")


def test_after_signing_in_one_is_where_one_wanted_to_be(visitor: FlaskClient) -> None:
    wanted = visitor.get("/console/?span=24h").location
    shown = visitor.get(wanted).text
    assert 'value="/console/?span=24h"' in shown
    assert enter(visitor, API_KEY, next="/console/?span=24h").location == "/console/?span=24h"


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/console/\\evil", "javascript:x"])
def test_signing_in_leads_to_no_other_site(visitor: FlaskClient, elsewhere: str) -> None:
    assert enter(visitor, API_KEY, next=elsewhere).location == "/console/"


@pytest.mark.parametrize("key", ["", "wrong", API_KEY[:-1], API_KEY + "x", "\xe9", "x" * 10_000])
def test_a_wrong_key_opens_nothing(visitor: FlaskClient, key: str) -> None:
    answer = enter(visitor, key)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (401, False)
    assert API_KEY not in answer.text


def test_without_keys_the_console_is_closed(settings: Settings) -> None:
    visitor = create_app(replace(settings, api_keys=())).test_client()
    assert "The console is closed" in visitor.get("/console/sign-in").text
    assert enter(visitor, "").status_code == 401


def test_many_tries_must_wait_even_with_the_right_key(visitor: FlaskClient) -> None:
    tries = [enter(visitor, "wrong").status_code for _ in range(11)]
    assert tries == [401] * 10 + [429]
    assert enter(visitor, API_KEY).status_code == 429


def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_http(visitor: FlaskClient) -> None:
    plain = enter(visitor, API_KEY).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= set(plain.split("; "))
    assert API_KEY not in plain
    behind_caddy = visitor.post("/console/sign-in", data={"key": API_KEY}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in behind_caddy.headers["Set-Cookie"].split("; ")


def test_another_process_knows_the_session_and_taking_the_key_away_ends_it(
    client: FlaskClient, settings: Settings
) -> None:
    cookie = client.get_cookie(sign_in.COOKIE, path="/console")
    assert cookie
    bears = {"Cookie": f"{sign_in.COOKIE}={cookie.value}"}
    twin = create_app(settings).test_client(use_cookies=False)
    assert twin.get("/console/", headers=bears).status_code == 200
    rotated = create_app(replace(settings, api_keys=(OTHER_KEY,))).test_client(use_cookies=False)
    assert rotated.get("/console/", headers=bears).status_code == 302


def test_a_cookie_that_was_changed_or_is_old_is_none(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = client.get_cookie(sign_in.COOKIE, path="/console")
    assert cookie
    forged = cookie.value.replace(sign_in.key_name(API_KEY), sign_in.key_name(OTHER_KEY))
    bears = {"Cookie": f"{sign_in.COOKIE}={forged}"}
    assert client.application.test_client(use_cookies=False).get("/console/", headers=bears).status_code == 302
    monkeypatch.setattr(sign_in, "SESSION_SECONDS", -1)
    assert client.get("/console/").status_code == 302


@pytest.mark.parametrize("given", ["", "0" * 64, "é"])
def test_a_form_without_its_token_does_nothing(client: FlaskClient, given: str) -> None:
    answer = client.post("/console/sign-out", data={"form_token": given})
    assert (answer.status_code, client.get("/console/").status_code) == (403, 200)


def test_a_form_of_another_site_does_nothing(client: FlaskClient) -> None:
    data = {"form_token": token(client)}
    answer = client.post("/console/sign-out", data=data, headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, client.get("/console/").status_code) == (403, 200)


def test_signing_out_ends_it(client: FlaskClient) -> None:
    client.post("/console/sign-out", data={"form_token": token(client)})
    assert client.get("/console/").status_code == 302


def test_every_answer_forbids_foreign_and_inline_scripts_and_the_pages_hold_none(client: FlaskClient) -> None:
    for path in ("/console/", "/console/sign-in", "/console/nothing", "/console/static/console.css"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
    templates = (Path(__file__).parents[2] / "web/console/templates").rglob("*.html")
    inline = re.compile(r"<style|\sstyle=|\son\w+=|<script(?! src)|javascript:", re.IGNORECASE)
    assert [page.name for page in templates if inline.search(page.read_text())] == []


def test_nothing_of_it_is_kept_by_a_browser(client: FlaskClient) -> None:
    assert client.get("/console/").headers["Cache-Control"] == "no-store"


def test_a_page_that_is_not_there_says_so_in_html(client: FlaskClient) -> None:
    answer = client.get("/console/no/such/page")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")


def test_the_overview_tells_what_came_in_and_what_waits(client: FlaskClient, real_store: Store) -> None:
    for n in range(3):
        job = NewJob(f"j{n}", "tasks.payments.paid", "payments")
        real_store.record(Event("stripe", f"evt_{n}", "x", b"{}"), [job])
    page = client.get("/console/").text
    assert "<dd>3<small> last minute" in page
    assert "<dd>3<small> jobs" in page
    assert '<tr><td>payments</td><td class="number">3</td>' in page
    assert "No worker is at work" in page
    real_store.sweep(1, {})
    assert "No worker is at work" not in client.get("/console/").text


def test_a_store_that_is_away_is_told_in_words(settings: Settings, valkey: Valkey) -> None:
    client = create_app(settings).test_client()
    enter(client, API_KEY)
    valkey.kill()
    answer = client.get("/console/")
    assert (answer.status_code, "Senders hear 503" in answer.text) == (503, True)


def test_the_sweep_samples_what_is_owed_once_a_minute(store: Store, clock: Clock) -> None:
    store.record(Event("stripe", "e", "x", b"{}"), [NewJob("j", "t", "payments")])
    began = clock.ms
    for _ in range(5):
        clock.forward(30)
        store.sweep(1, {})
    samples = figures.samples(store, began)
    assert [(s["at"] - began, s["owed"], s["dead"]) for s in samples] == [
        (30_000, 1, 0),
        (60_000, 1, 0),
        (120_000, 1, 0),
    ]
    clock.ms = began
    store.sweep(1, {})  # a clock that went back
    assert figures.samples(store, began) == samples


def test_arrivals_are_counted_by_the_time_they_came(store: Store, clock: Clock) -> None:
    began = clock.ms
    for n in (0, 10, 20, 130):
        clock.ms = began + n * 1000
        store.record(Event("stripe", f"e{n}", "x", b"{}"), [])
    assert figures.arrivals(store, began - 1, began + 179_999, 3) == [3, 0, 1]


def test_a_queue_tells_since_when_its_oldest_job_is_due(store: Store, clock: Clock) -> None:
    began = clock.ms
    for n in range(3):
        clock.forward(1)
        store.record(Event("stripe", f"e{n}", "x", b"{}"), [NewJob(f"j{n}", "t", "payments")])
    assert figures.queues(store, ("payments", "documents")) == {"payments": (3, began + 1000), "documents": (0, None)}
