"""The console: sign-in, overview, events, dead letters and audit log, against a real Valkey and a database."""

from __future__ import annotations

import hashlib
import hmac
import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner
from werkzeug.test import TestResponse

from dev.stack.servers import Valkey
from inbox import queries, statistics
from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.retry import DeadLetter
from inbox.store import PREFIX, Store
from settings import Settings, load
from tests.conftest import Clock, fresh_database
from tests.support.signed_deliveries import API_KEY, key_name
from web.application import create_app
from web.console import sign_in
from web.queries.timeline import build_timeline

OTHER_KEY = "another-key-0123456789abcd"


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
    """Not signed in."""
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
def test_every_page_redirects_to_the_sign_in_page(visitor: FlaskClient, path: str) -> None:
    answer = visitor.get(f"/console/{path}")
    assert (answer.status_code, answer.location[:21]) == (302, "/console/sign-in?next")


def test_signing_in_returns_to_the_requested_page(visitor: FlaskClient) -> None:
    sign_in_page = visitor.get("/console/?span=24h").location
    shown = visitor.get(sign_in_page).text
    assert 'value="/console/?span=24h"' in shown
    assert enter(visitor, API_KEY, next="/console/?span=24h").location == "/console/?span=24h"


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/console/\\evil", "javascript:x"])
def test_signing_in_never_redirects_to_another_site(visitor: FlaskClient, elsewhere: str) -> None:
    assert enter(visitor, API_KEY, next=elsewhere).location == "/console/"


@pytest.mark.parametrize("control", ["\r\nX: 1", "\n", "\0", "\x7f", "\u2028"])
def test_a_page_with_control_characters_in_its_name_is_not_returned_to(visitor: FlaskClient, control: str) -> None:
    answer = enter(visitor, API_KEY, next=f"/console/{control}")
    assert (answer.status_code, answer.location) == (302, "/console/")


@pytest.mark.parametrize("key", ["", "wrong", API_KEY[:-1], API_KEY + "x", "\xe9", "x" * 10_000])
def test_a_wrong_key_does_not_sign_in(visitor: FlaskClient, key: str) -> None:
    answer = enter(visitor, key)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (401, False)
    assert API_KEY not in answer.text


def test_without_api_keys_the_console_is_disabled(settings: Settings) -> None:
    visitor = create_app(replace(settings, api_keys=())).test_client()
    assert "The console is disabled" in visitor.get("/console/sign-in").text
    assert enter(visitor, "").status_code == 401


def test_wrong_keys_are_limited_in_console_and_api_together_and_a_right_key_never_is(visitor: FlaskClient) -> None:
    def ask(key: str) -> int:
        return visitor.get("/api/v1/stats", headers={"Authorization": f"Bearer {key}"}).status_code

    tries = [enter(visitor, "wrong").status_code for _ in range(5)] + [ask("wrong") for _ in range(6)]
    assert tries == [401] * 10 + [429]
    assert enter(visitor, "wrong").status_code == 429
    assert (enter(visitor, API_KEY).status_code, ask(API_KEY)) == (302, 200)
    assert visitor.get("/api/v1/stats").status_code == 401  # a request without a key does not count


def test_the_cookie_is_not_readable_by_scripts_and_not_sent_to_other_sites_or_over_plain_http(
    visitor: FlaskClient,
) -> None:
    plain = enter(visitor, API_KEY).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= set(plain.split("; "))
    assert API_KEY not in plain
    behind_caddy = visitor.post("/console/sign-in", data={"key": API_KEY}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in behind_caddy.headers["Set-Cookie"].split("; ")


def test_cookie_and_form_token_are_no_hmac_by_an_api_key(client: FlaskClient) -> None:
    cookie = client.get_cookie(sign_in.COOKIE, path="/console")
    assert cookie
    direct = TimestampSigner(API_KEY, "holdfast console", key_derivation="hmac", digest_method=hashlib.sha256)
    assert not direct.validate(cookie.value)
    assert token(client) != hmac.digest(API_KEY.encode(), b"form " + cookie.value.encode(), "sha256").hex()


def test_another_process_accepts_the_session_and_removing_the_key_ends_it(
    client: FlaskClient, settings: Settings
) -> None:
    cookie = client.get_cookie(sign_in.COOKIE, path="/console")
    assert cookie
    headers = {"Cookie": f"{sign_in.COOKIE}={cookie.value}"}
    twin = create_app(settings).test_client(use_cookies=False)
    assert twin.get("/console/", headers=headers).status_code == 200
    rotated = create_app(replace(settings, api_keys=settings.api_keys[:1])).test_client(use_cookies=False)
    assert rotated.get("/console/", headers=headers).status_code == 302


@pytest.mark.parametrize("spelling", [lambda cookie: cookie, lambda cookie: f"{cookie}=", lambda cookie: f"{cookie}=="])
def test_signing_out_ends_the_session_in_every_process_for_whoever_has_the_cookie(
    client: FlaskClient, settings: Settings, spelling: Callable[[str], str]
) -> None:
    cookie = client.get_cookie(sign_in.COOKIE, path="/console")
    assert cookie
    other = create_app(settings).test_client(use_cookies=False)
    headers = {"Cookie": f"{sign_in.COOKIE}={spelling(cookie.value)}"}
    before = other.get("/console/", headers=headers).status_code
    assert client.post("/console/sign-out", data={"form_token": token(client)}).status_code == 302
    assert other.get("/console/", headers=headers).status_code == 302
    assert before == 200 or spelling(cookie.value) != cookie.value
    assert enter(client, API_KEY).status_code == 302
    assert client.get("/console/").status_code == 200


def test_the_store_knows_an_ended_session_by_a_digest_until_its_cookie_expires(
    client: FlaskClient, real_store: Store
) -> None:
    cookie = client.get_cookie(sign_in.COOKIE, path="/console")
    assert cookie
    client.post("/console/sign-out", data={"form_token": token(client)})
    (key,) = real_store.client.keys(f"{PREFIX}ended-session:*")
    assert cookie.value.partition(".")[0] not in str(key)
    assert 0 < real_store.client.ttl(key) <= sign_in.SESSION_SECONDS


def test_a_forged_or_expired_cookie_is_not_accepted(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = client.get_cookie(sign_in.COOKIE, path="/console")
    assert cookie
    fresh = client.application.test_client(use_cookies=False)
    for forged in (
        f"x{cookie.value}",
        cookie.value[:-1],
        cookie.value.replace(".", "..", 1),
        "",
        ".",
        "\xff",
        '"\\377"',
    ):
        headers = {"Cookie": f"{sign_in.COOKIE}={forged}"}
        assert fresh.get("/console/", headers=headers).status_code == 302, forged
    monkeypatch.setattr(sign_in, "SESSION_SECONDS", -1)
    assert client.get("/console/").status_code == 302


@pytest.mark.parametrize("given", ["", "0" * 64, "é"])
def test_a_form_without_a_valid_token_is_refused(client: FlaskClient, given: str) -> None:
    answer = client.post("/console/sign-out", data={"form_token": given})
    assert (answer.status_code, client.get("/console/").status_code) == (403, 200)


def test_a_form_from_another_site_is_refused(client: FlaskClient) -> None:
    data = {"form_token": token(client)}
    answer = client.post("/console/sign-out", data=data, headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, client.get("/console/").status_code) == (403, 200)


@pytest.mark.parametrize("path", ["/", "/console"])
def test_the_way_to_the_console_keeps_scheme_and_host(client: FlaskClient, path: str) -> None:
    answer = client.get(path, headers={"Host": "other.example"})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/console/")


def test_signing_out_ends_the_session(client: FlaskClient) -> None:
    client.post("/console/sign-out", data={"form_token": token(client)})
    assert client.get("/console/").status_code == 302


def test_every_response_forbids_foreign_and_inline_scripts_and_no_page_has_any(client: FlaskClient) -> None:
    for path in ("/console/", "/console/sign-in", "/console/nothing", "/console/static/console.css"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
    templates = (Path(__file__).parents[4] / "web/console/templates").rglob("*.html")
    inline = re.compile(r"<style|\sstyle=|\son\w+=|<script(?! src)|javascript:", re.IGNORECASE)
    assert [page.name for page in templates if inline.search(page.read_text())] == []


def test_pages_are_not_cached_by_the_browser(client: FlaskClient) -> None:
    assert client.get("/console/").headers["Cache-Control"] == "no-store"


def test_an_unknown_page_is_a_404_in_html(client: FlaskClient) -> None:
    answer = client.get("/console/no/such/page")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")


def test_the_overview_shows_accepted_events_and_unfinished_jobs(client: FlaskClient, real_store: Store) -> None:
    for n in range(3):
        job = NewJob(f"j{n}", "tasks.payments.paid", "payments")
        real_store.record(Event("stripe", f"evt_{n}", "x", b"{}"), [job])
    page = client.get("/console/").text
    assert "<dd>3<small> last minute" in page
    assert "<dt>Unfinished jobs</dt><dd>3</dd>" in page
    assert re.search(
        r'<tr><td>payments</td><td class="number">3</td><td class="number">\d s</td><td class="number">3<', page
    )
    assert "No worker is running" in page
    real_store.sweep(1, {})
    assert "No worker is running" not in client.get("/console/").text


def test_an_unavailable_store_is_explained(settings: Settings, valkey: Valkey) -> None:
    client = create_app(settings).test_client()
    enter(client, API_KEY)
    valkey.kill()
    answer = client.get("/console/")
    assert (answer.status_code, "The store is unavailable" in answer.text) == (503, True)


def test_the_sweep_samples_the_unfinished_jobs_once_a_minute(store: Store, clock: Clock) -> None:
    store.record(Event("stripe", "e", "x", b"{}"), [NewJob("j", "t", "payments")])
    began = clock.ms
    for _ in range(5):
        clock.forward(30)
        store.sweep(1, {})
    samples = statistics.samples(store, began)
    plotted = {"succeeded", "failed", "rejected", "unfinished", "age", "dead"}  # by web/console/overview.py
    assert all(plotted <= sample.keys() for sample in samples)
    assert [(s["at"] - began, s["unfinished"], s["dead"]) for s in samples] == [
        (30_000, 1, 0),
        (60_000, 1, 0),
        (120_000, 1, 0),
    ]
    clock.ms = began
    store.sweep(1, {})  # the clock was set back
    assert statistics.samples(store, began) == samples


def test_arrivals_are_counted_by_their_time(store: Store, clock: Clock) -> None:
    began = clock.ms
    for n in (0, 10, 20, 130):
        clock.ms = began + n * 1000
        store.record(Event("stripe", f"e{n}", "x", b"{}"), [])
    assert statistics.count_arrivals(store, began - 1, began + 179_999, 3) == [3, 0, 1]


def test_a_queue_shows_when_its_oldest_job_became_due(store: Store, clock: Clock) -> None:
    began = clock.ms
    for n in range(3):
        clock.forward(1)
        store.record(Event("stripe", f"e{n}", "x", b"{}"), [NewJob(f"j{n}", "t", "payments")])
    assert statistics.pending_by_queue(store, ("payments", "documents")) == {
        "payments": (3, began + 1000),
        "documents": (0, None),
    }


def dead_letter(store: Store, name: str) -> str:
    job = f"stripe:{name}:payments.paid"
    store.record(Event("stripe", name, "invoice.paid", b'{"email": "ada@example.com"}'), [NewJob(job, "t", "payments")])
    lease = store.lease(job, "w", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "the <b>invoice</b> has no customer", DeadLetter("permanent"))
    return job


def test_a_search_by_a_complete_id_redirects_to_the_event(client: FlaskClient, real_store: Store) -> None:
    dead_letter(real_store, "evt_1")
    assert client.get("/console/events?q=evt_1").location == "/console/events/stripe/evt_1"
    assert "invoice.paid" in client.get("/console/events?q=evt").text


def test_an_event_shows_why_it_failed_and_no_personal_data(client: FlaskClient, real_store: Store) -> None:
    dead_letter(real_store, "evt_1")
    page = client.get("/console/events/stripe/evt_1").text
    assert "the &lt;b&gt;invoice&lt;/b&gt; has no customer" in page
    assert "ada@example.com" not in page


def test_the_next_page_of_a_list_keeps_the_filter(client: FlaskClient, real_store: Store) -> None:
    for n in range(60):
        real_store.record(Event("stripe", f"evt_{n:02}", "invoice.paid", b"{}"), [])
    page = client.get("/console/events?type=invoice.*").text
    older = re.search(r'href="(/console/events\?[^"]+)" rel="next"', page)
    assert older
    rest = client.get(html.unescape(older[1])).text
    assert len(set(re.findall(r"evt_\d\d", page + rest))) == 60
    assert "type=invoice" in older[1]


@pytest.mark.parametrize("query", ["state=odd", "since=soon", "cursor=x", "q=%00"])
def test_an_invalid_search_is_explained(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/console/events?{query}")
    assert (answer.status_code, " must " in answer.text) == (400, True)


def test_selected_dead_letters_are_replayed_and_the_others_are_reported(client: FlaskClient, real_store: Store) -> None:
    jobs = [dead_letter(real_store, f"evt_{n}") for n in range(3)]
    form = {"form_token": token(client), "job": [*jobs[:2], "no such job"], "back": "/console/dead?type=invoice.*"}
    answer = client.post("/console/jobs/replay", data=form)
    assert answer.location == "/console/dead?type=invoice.*&replayed=2&unknown=1"
    page = client.get(answer.location).text
    assert "2 replayed, 1 not found" in page
    back = html.unescape(re.findall(r'name="back" value="([^"]+)"', page)[0])
    once_more = client.post("/console/jobs/replay", data=form | {"job": [jobs[2]], "back": back})
    assert once_more.location == "/console/dead?type=invoice.*&replayed=1", "not the counts of the earlier action"
    assert ("evt_2" in page, "evt_0" in page) == (True, False)
    name = key_name(API_KEY)
    assert client.get("/console/audit").text.count(name) == 4  # three actions, and the page's header


def test_a_replay_of_a_succeeded_job_is_reported_as_having_no_effect(client: FlaskClient, real_store: Store) -> None:
    real_store.record(Event("stripe", "evt_1", "x", b"{}"), [NewJob("j1", "t", "payments")])
    lease = real_store.lease("j1", "w", 60)
    assert isinstance(lease, Lease)
    real_store.finish(lease)
    assert "a replay has no effect" in client.get("/console/events/stripe/evt_1").text
    form = {"form_token": token(client), "job": ["j1"], "back": "/console/events/stripe/evt_1"}
    answer = client.post("/console/jobs/replay", data=form)
    assert "1 replayed with no effect" in client.get(answer.location).text


def test_the_audit_log_can_be_read_page_by_page_to_its_end(client: FlaskClient, real_store: Store) -> None:
    jobs = [dead_letter(real_store, f"evt_{n:02}") for n in range(60)]
    for job in jobs:
        real_store.discard(job, "ada", "a test")
    page = client.get("/console/audit").text
    older = re.search(r'href="(/console/audit\?before=[^"]+)"', page)
    assert older
    rest = client.get(html.unescape(older[1])).text
    assert [len(set(re.findall(r"evt_\d\d", text))) for text in (page, rest)] == [50, 10]
    assert len(set(re.findall(r"evt_\d\d", page + rest))) == 60
    assert client.get("/console/audit?before=x").status_code == 400


def test_an_event_shows_its_last_deliveries_and_their_secrets(store: Store, clock: Clock) -> None:
    began = clock()
    for n in range(8):
        store.record(Event("stripe", "evt_1", "x", b"{}"), [], f"secret{n}")
        clock.forward(60)
    event = queries.find_event(store, "stripe", "evt_1")
    assert event
    assert event["deliveries"] == 8
    assert event["last_deliveries"] == [{"at": began + n * 60_000, "secret": f"secret{n}"} for n in range(3, 8)]
    assert [moment.what for moment in build_timeline(event)] == [
        "received",
        *(f"received again, verified by secret secret{n}" for n in range(3, 8)),
    ]


def test_a_dry_run_changes_nothing_and_its_button_starts_the_replay(client: FlaskClient, real_store: Store) -> None:
    dead_letter(real_store, "evt_1")
    assert "<strong>1</strong> of 1 dead letters" in client.get("/console/replays/new?type=invoice.*").text
    assert queries.stats(real_store)["dead"] == 1
    begun = client.post("/console/replays", data={"form_token": token(client), "type": "invoice.*"})
    assert "Waiting for a worker" in client.get(begun.location).text


@pytest.mark.parametrize("path", ["jobs/replay", "jobs/discard", "replays"])
def test_no_action_is_performed_without_the_form_token(client: FlaskClient, real_store: Store, path: str) -> None:
    job = dead_letter(real_store, "evt_1")
    assert client.post(f"/console/{path}", data={"job": job, "reason": "x"}).status_code == 403
    assert queries.stats(real_store) | {"unfinished": 0, "dead": 1} == queries.stats(real_store)


def test_an_unexpected_error_is_a_page_without_details(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ValueError("ada@example.com")

    monkeypatch.setattr(queries, "stats", breaks)
    answer = client.get("/console/")
    assert (answer.status_code, answer.mimetype, "ada@example.com" in answer.text) == (500, "text/html", False)


def test_the_overview_works_with_a_full_store_and_shows_its_dead_letters(
    visitor: FlaskClient, real_store: Store
) -> None:
    dead_letter(real_store, "evt_1")
    real_store.client.config_set("maxmemory", "1mb")
    try:
        assert enter(visitor, API_KEY).status_code == 302
        page = visitor.get("/console/").text
    finally:
        real_store.client.config_set("maxmemory", "0")
    assert "/console/events/stripe/evt_1" in page


def test_selected_dead_letters_are_discarded_with_a_reason(client: FlaskClient, real_store: Store) -> None:
    jobs = [dead_letter(real_store, f"evt_{n}") for n in range(2)]
    form = {"form_token": token(client), "job": jobs, "back": "/console/dead"}
    assert client.post("/console/jobs/discard", data=form | {"reason": " "}).status_code == 400
    answer = client.post("/console/jobs/discard", data=form | {"reason": "test orders"})
    assert "2 discarded" in client.get(answer.location).text
    assert queries.stats(real_store) | {"dead": 0, "discarded": 2} == queries.stats(real_store)
    assert client.get("/console/audit").text.count("test orders") == 2
    assert "Discarded: test orders" in client.get("/console/events/stripe/evt_0").text
