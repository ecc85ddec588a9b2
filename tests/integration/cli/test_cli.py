"""`holdfast`: every command against a real receiver, its output as text and JSON, and its exit codes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from dev.simulators.http import Request
from dev.stack.servers import Valkey, free_port, wait_until
from inbox import find, queries
from inbox.event import Event
from inbox.find import Filter
from inbox.job import Lease, NewJob
from inbox.retry import DeadLetter
from inbox.store import Store
from settings import load
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Document
from tests.conftest import fresh_database
from tests.support.commands import Terminal, receiver, terminal_for
from tests.support.peers import Answer, Peer
from tests.support.running import run
from tests.support.signed_deliveries import API_KEY, STRIPE_SECRET, key_name
from workers.app import HANDLERS
from workers.run import Runner

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JOB = "stripe:evt_1:x"


@pytest.fixture
def environ(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> dict[str, str]:
    return {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": fresh_database(request, "sqlite"),
        "API_KEYS": API_KEY,
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
        "DOCUMENT_STORE": str(tmp_path / "documents"),
    }


@pytest.fixture
def sessions(environ: dict[str, str]) -> Callable[[], Session]:
    return make_sessions(make_engine(environ["DATABASE_URL"]))


@pytest.fixture
def terminal(environ: dict[str, str]) -> Iterator[Terminal]:
    with receiver(environ) as url:
        yield terminal_for(url, STRIPE_WEBHOOK_SECRET=STRIPE_SECRET)


def dead_letter(store: Store, name: str = "evt_1", kind: str = "invoice.paid") -> str:
    job = f"stripe:{name}:x"
    body = b'{"data": {"object": {"email": "ada@example.com", "total": 5}}}'
    store.record(Event("stripe", name, kind, body), [NewJob(job, "tasks.payments.paid", "payments")])
    lease = store.lease(job, "w", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "Stripe answered 500", DeadLetter("permanent"))
    return job


# --- events and dead letters ------------------------------------------------------------------------------------------


def test_events_are_listed_and_shown_without_personal_data(terminal: Terminal, real_store: Store) -> None:
    dead_letter(real_store)
    real_store.record(Event("stripe", "evt_2", "customer.created", b"{}"), [])
    listed = terminal.run("events", "list", "--type", "invoice.*", "--state", "dead")
    assert (listed.code, listed.out.splitlines()[0].split()) == (0, ["RECEIVED", "SOURCE", "ID", "TYPE", "STATE"])
    assert [line.split()[1:] for line in listed.out.splitlines()[1:]] == [["stripe", "evt_1", "invoice.paid", "dead"]]
    assert [row["id"] for row in terminal.run("events", "list", "--json").json["events"]] == ["evt_2", "evt_1"]
    assert len(terminal.run("events", "list", "--json", "--limit", "1").json["events"]) == 1
    shown = terminal.run("events", "show", "stripe", "evt_1").out
    assert "Stripe answered 500" in shown and "tasks.payments.paid" in shown and '"total": 5' in shown
    assert "ada@example.com" not in shown
    assert terminal.run("events", "show", "stripe", "evt_1", "--json").json["jobs"][0]["parent"] is None


def test_replays_and_discards_are_in_the_audit_log_under_the_name_of_the_key(
    terminal: Terminal, real_store: Store
) -> None:
    dead_letter(real_store), dead_letter(real_store, "evt_2"), dead_letter(real_store, "evt_3")
    assert terminal.run("events", "replay", "stripe", "evt_1", "--json").json == {"replayed": {JOB: "replayed"}}
    assert terminal.run("events", "replay", "stripe", "evt_1").code == 1, "it is pending"
    assert "replayed" in terminal.run("dead", "replay", "stripe:evt_2:x").out
    gone = terminal.run("dead", "discard", "stripe:evt_3:x", "stripe:evt_9:x", "--reason", "a test", "--json")
    assert (gone.code, gone.json["stripe:evt_3:x"]) == (1, "discarded"), "one of two does not exist"
    assert terminal.run("dead", "list").out == "none\n"
    entries = terminal.run("audit", "--json").json["audit"]
    assert [(entry["action"], entry["by"]) for entry in entries] == [
        ("discard", key_name(API_KEY)),
        ("replay", key_name(API_KEY)),
        ("replay", key_name(API_KEY)),
    ]
    assert "a test" in terminal.run("audit").out
    assert "a test" in terminal.run("dead", "show", "stripe:evt_3:x").out


def test_matching_dead_letters_are_previewed_by_a_dry_run_and_then_replayed_with_progress(
    terminal: Terminal, real_store: Store, environ: dict[str, str], sessions: Callable[[], Session]
) -> None:
    for number in range(7):
        dead_letter(real_store, f"evt_{number}")
    dead_letter(real_store, "other", "charge.refunded")
    preview = terminal.run("dead", "replay", "--all-matching", "--type", "invoice.*", "--dry-run")
    assert preview.out.splitlines()[0] == "would be replayed: 7"
    assert terminal.run("dead", "replay", "--all-matching", "--dry-run", "--json").json["matching"] == 8
    with working(real_store, environ, sessions):
        done = terminal.run("dead", "replay", "--all-matching", "--type", "invoice.*")
    assert (done.code, done.out) == (0, "replayed: 7, skipped (no longer dead, or payload deleted): 0\n")
    assert "finished: 7 replayed, 8 of 8 checked" in done.err
    (replay,) = terminal.run("dead", "replays", "--json").json["replays"]
    assert (replay["by"], replay["replayed"]) == (key_name(API_KEY), 7)
    requested = terminal.run("dead", "replay", "--all-matching", "--no-wait", "--json").json["id"]
    assert queries.find_event(real_store, "holdfast", requested)


class working:
    """A worker in a thread that runs the jobs of the source "holdfast": bulk replays and reconciles."""

    def __init__(self, store: Store, environ: dict[str, str], sessions: Callable[[], Session]) -> None:
        self._store, self._over = store, threading.Event()
        self._runner = Runner(store, sessions, load(environ), lambda _: None, "test")

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(0.05):
            for row in find.search(self._store, "events", Filter("holdfast"), 100).rows:
                event = queries.find_event(self._store, "holdfast", row["id"])
                for job in event["jobs"] if event else []:
                    if job["state"] in ("pending", "scheduled"):
                        run(self._runner, HANDLERS[job["task"]], job["id"], "", 60)


def test_tail_starts_with_the_last_events_and_prints_each_new_one_once(terminal: Terminal, real_store: Store) -> None:
    for number in range(3):
        real_store.record(Event("stripe", f"evt_{number}", "customer.created", b"{}"), [])
        time.sleep(0.002)  # those of the last one's millisecond are printed, too, so that none is missed
    tail = terminal.start("events", "tail", "--lines", "2", "--json")
    printed: list[str] = []
    assert tail.stdout
    threading.Thread(
        target=lambda: printed.extend(json.loads(line)["id"] for line in tail.stdout or ()), daemon=True
    ).start()
    try:
        wait_until(lambda: printed == ["evt_1", "evt_2"], seconds=60, what=f"the last two: {printed}")
        for number in range(3, 8):
            real_store.record(Event("stripe", f"evt_{number}", "customer.created", b"{}"), [])
        wait_until(lambda: len(printed) >= 7, seconds=60, what=f"the new ones: {printed}")
        real_store.record(Event("stripe", "evt_8", "customer.created", b"{}"), [])
        wait_until(lambda: "evt_8" in printed, seconds=60, what=f"one more: {printed}")
    finally:
        tail.kill()
        tail.wait()
    assert printed == [f"evt_{number}" for number in range(1, 9)]


# --- documents --------------------------------------------------------------------------------------------------------


def document(sessions: Callable[[], Session], **fields: Any) -> None:
    with sessions() as db:
        row = {"id": "doc_1", "document_id": "a.pdf", "status": "processing", "progress": 0, "received_bytes": 0}
        db.merge(Document(**row | {"created_at": NOW, "updated_at": NOW} | fields))
        db.commit()


def test_a_document_is_requested_once_per_idempotency_key(terminal: Terminal, real_store: Store) -> None:
    arguments = ("start", "a.pdf", "--option", "ocr=true", "--option", "format=PDF", "--email", "ada@example.com")
    first, again = (terminal.run("documents", *arguments, "--idempotency-key", "k") for _ in range(2))
    assert (first.code, first.out) == (0, again.out)
    body = queries.find_body(real_store, "api", first.out.strip())
    assert json.loads(body or b"") == {
        "document_id": "a.pdf",
        "options": {"ocr": True, "format": "PDF"},
        "notify": {"email": "ada@example.com", "agents": []},
        "by": key_name(API_KEY),
    }
    assert terminal.run("documents", "start", "a.pdf", "--json").json["status"] == "submitting"
    assert terminal.run("documents", "start", "a.pdf", "--option", "ocr").code == 2


@pytest.mark.parametrize(("end", "code"), [("completed", 0), ("failed", 1)])
def test_watching_a_document_without_a_terminal_prints_a_line_per_change(
    terminal: Terminal, sessions: Callable[[], Session], end: str, code: int
) -> None:
    document(sessions)
    changes: list[dict[str, Any]] = [
        {"progress": 40},
        {"status": "downloading", "received_bytes": 2_500_000, "progress": 90},
        {"status": end},
    ]

    def change() -> None:
        for step in changes:
            threading.Event().wait(1.2)
            document(sessions, error="a reason" if step == {"status": "failed"} else None, **step)

    changer = threading.Thread(target=change)
    changer.start()
    seen = terminal.run("documents", "watch", "doc_1")
    changer.join()
    assert seen.code == code
    lines = ["processing: 0 %", "processing: 40 %", "downloading: 2.5 MB", f"{end}: 0 %"]
    assert seen.err.splitlines()[:4] == lines
    assert seen.err.splitlines()[4:] == (["holdfast: doc_1 failed: a reason"] if code else [])
    assert terminal.run("documents", "list", "--state", end, "--json").json["documents"][0]["id"] == "doc_1"
    assert "a.pdf" in terminal.run("documents", "show", "doc_1").out


# --- agents: the API itself is tested in tests/integration/web --------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "request_made", "answer", "text"),
    [
        (
            ("add", "crm", "https://crm.example", "--rate", "60"),
            ("POST", "/api/v1/agents", {"name": "crm", "url": "https://crm.example", "rate_per_minute": 60}),
            {"id": "ag_1", "name": "crm", "secret": "whsec_x"},
            "whsec_x",
        ),
        (("disable", "crm"), ("POST", "/api/v1/agents/crm/disable", {}), {"id": "ag_1"}, "crm is disabled"),
        (("enable", "a/b"), ("POST", "/api/v1/agents/a%2Fb/enable", {}), {"id": "ag_1"}, "a/b is enabled"),
        (("list",), ("GET", "/api/v1/agents", None), {"agents": []}, "none"),
    ],
)
def test_agent_commands_make_the_requests_of_the_api(
    arguments: tuple[str, ...], request_made: tuple[str, str, Any], answer: dict[str, Any], text: str
) -> None:
    with Peer(lambda _: Answer(201, body=json.dumps(answer).encode())) as peer:
        done, program = (terminal_for(peer.url).run("agents", *arguments, *more) for more in ((), ("--json",)))
    got: Request = peer.requests[0]
    assert (got.method, got.path, json.loads(got.body) if got.body else None) == request_made
    assert got.headers["Authorization"] == f"Bearer {API_KEY}"
    assert (done.code, text in done.out, program.json) == (0, True, answer)


def test_agents_are_listed_with_their_handoffs() -> None:
    agent = {"id": "ag_1", "name": "crm", "url": "https://crm.example", "state": "open", "rate_per_minute": 60}
    agent |= {
        "failures": 3,
        "failing_since": "2026-03-01T12:00",
        "open_until": None,
        "delivered": 7,
        "pending": 1,
        "dead": 2,
    }
    with Peer(lambda _: Answer(body=json.dumps({"agents": [agent]}).encode())) as peer:
        _, row = terminal_for(peer.url).run("agents", "list").out.splitlines()
    assert row.split() == ["crm", "https://crm.example", "open", "60", "7", "1", "2", "2026-03-01T12:00"]


# --- subscriptions: the API itself is tested in tests/integration/web -------------------------------------------------


def test_subscriptions_in_dunning_are_listed_with_each_unpaid_invoice() -> None:
    owes = {
        "invoice": "in_1",
        "amount_due": 1900,
        "currency": "eur",
        "retries": [{"state": "declined", "decline_code": "expired_card", "done_at": "2026-11-24T00:00:00+00:00"}],
        "next_retry_at": "2026-11-25T00:00:00+00:00",
        "access_ends_at": None,
    }
    late = {
        "id": "sub_1",
        "customer": "cus_1",
        "status": "past_due",
        "open_invoices": [owes, owes | {"invoice": "in_2"}],
    }
    bare = {"id": "sub_2", "customer": "cus_2", "status": "unpaid", "open_invoices": []}
    answer = {"subscriptions": [late, bare], "cursor": None}
    with Peer(lambda _: Answer(body=json.dumps(answer).encode())) as peer:
        _, first, second, third = terminal_for(peer.url).run("subscriptions", "list").out.splitlines()
        assert terminal_for(peer.url).run("subscriptions", "list", "--json").json == {"subscriptions": [late, bare]}
    assert first.split() == ["sub_1", "cus_1", "past_due", "in_1", "1900", "eur", "1", "2026-11-25T00:00:00+00:00"]
    assert second.split()[3] == "in_2"
    assert third.split() == ["sub_2", "cus_2", "unpaid"]


# --- stats, sources, reconcile ----------------------------------------------------------------------------------------


def test_counts_and_sources_are_shown(terminal: Terminal, real_store: Store) -> None:
    dead_letter(real_store)
    assert terminal.run("stats", "--json").json["dead"] == 1
    assert ["dead", "1"] in [line.split() for line in terminal.run("stats").out.splitlines()]
    assert terminal.run("sources", "--json").json["sources"][0]["name"] == "stripe"
    assert terminal.run("sources").out.splitlines()[1].startswith("stripe")


def test_a_reconcile_is_requested_and_followed_to_its_end(
    environ: dict[str, str], real_store: Store, sessions: Callable[[], Session]
) -> None:
    empty = json.dumps({"object": "list", "data": [], "has_more": False}).encode()
    with Peer(lambda _: Answer(body=empty)) as stripe:
        environ |= {"STRIPE_API_KEY": "sk_test_1", "STRIPE_API_BASE": stripe.url}
        with receiver(environ) as url, working(real_store, environ, sessions):
            done = terminal_for(url).run("reconcile", "--days", "3", "--json")
    assert (done.code, done.json["state"]) == (0, "ok")
    assert "missed events fetched: 0" in done.err
    assert stripe.requests[0].path.startswith("/v1/events?")


def test_an_import_is_requested_and_followed_to_its_end(
    environ: dict[str, str], real_store: Store, sessions: Callable[[], Session]
) -> None:
    found = [{"id": f"sub_{number}", "customer": "cus_1", "status": "active"} for number in range(3)]
    with Peer(
        lambda _: Answer(body=json.dumps({"object": "list", "data": found, "has_more": False}).encode())
    ) as stripe:
        environ |= {"STRIPE_API_KEY": "sk_test_1", "STRIPE_API_BASE": stripe.url}
        with receiver(environ) as url, working(real_store, environ, sessions):
            done = terminal_for(url).run("import", "stripe", "--dry-run", "--json")
            last = terminal_for(url).run("import", "stripe", "--last", "--json")
    assert (done.code, done.json["state"], done.json["dry_run"]) == (0, "ok", True)
    assert (done.json["listed"], done.json["differing"], done.json["imported_at"]) == (3, 3, None)
    assert "subscriptions listed: 3, to import: 3" in done.err
    assert last.json == done.json


def test_an_import_fails_without_a_stripe_key(terminal: Terminal) -> None:
    assert terminal.run("import", "stripe", "--last", "--json").json["state"] == "off"
    assert terminal.run("import", "stripe").code == 1
    assert terminal.run("import", "stripe", "--last", "--dry-run").code == 2


def test_reconcile_fails_without_a_stripe_key(terminal: Terminal) -> None:
    assert terminal.run("reconcile", "--last", "--json").json["state"] == "off"
    assert terminal.run("reconcile").code == 1
    assert terminal.run("reconcile", "--last", "--days", "1").code == 2


# --- send -------------------------------------------------------------------------------------------------------------


def test_a_sample_is_accepted_by_the_receiver_and_its_id_printed(terminal: Terminal, real_store: Store) -> None:
    sent = terminal.run("send", "payout.failed", "--count", "3")
    assert (sent.code, [line.split()[0] for line in sent.out.splitlines()]) == (0, ["200"] * 3)
    for line in sent.out.splitlines():
        event = queries.find_event(real_store, "stripe", line.split()[-1])
        assert event and event["type"] == "payout.failed"
    assert terminal.run("send", "customer.created", "--json").json["status"] == 200


@pytest.mark.parametrize(
    ("arguments", "more", "code", "text"),
    [
        (
            ("invoice.paid",),
            {"STRIPE_WEBHOOK_SECRET": "whsec_of_another_account_0123456789"},
            1,
            "1 of 1 events were not accepted",
        ),
        (("invoice.paid", "--to", "https://hooks.example/stripe-webhook"), {}, 2, "--yes"),
        (("invoice.paid", "--to", "file:///etc"), {}, 2, "http or https"),
        (("completed",), {}, 2, "source documents has no secret here; sources with a secret: stripe"),
        (("invoice.paid",), {"STRIPE_WEBHOOK_SECRET": "nonsense"}, 2, "STRIPE_WEBHOOK_SECRET is (hidden)"),
    ],
)
def test_an_event_that_is_not_sent_or_not_accepted_is_reported(
    terminal: Terminal, arguments: tuple[str, ...], more: dict[str, str], code: int, text: str
) -> None:
    sent = terminal.run("send", *arguments, **more)
    assert sent.code == code
    assert text in sent.err
    assert "nonsense" not in sent.err


# --- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "more", "code", "text"),
    [
        (("events", "show", "stripe", "none"), {}, 1, "no such event"),
        (("dead", "show", "none"), {}, 1, "no such job"),
        (("events", "list", "--since", "soon"), {}, 2, "since must be a time"),
        (("events", "list", "--colour"), {}, 2, "No such option"),
        (("dead", "replay"), {}, 2, "name one or more jobs, or use --all-matching"),
        (("dead", "replay", "x", "--type", "y"), {}, 2, "require --all-matching"),
        (("stats",), {"HOLDFAST_API_KEY": "wrong-key-0123456789"}, 2, "HOLDFAST_API_KEY"),
        (("stats",), {"HOLDFAST_API_KEY": "", "API_KEYS": ""}, 2, "no valid API key"),
        (("stats",), {"HOLDFAST_URL": "nowhere"}, 2, "HOLDFAST_URL is 'nowhere'"),
        (("stats", "--key-file", "/none"), {}, 2, "--key-file cannot be read"),
        (("stats", "--url", f"http://127.0.0.1:{free_port()}"), {}, 3, "no answer from"),
    ],
)
def test_every_failure_has_its_exit_code_and_one_line_that_says_what_to_do(
    terminal: Terminal, arguments: tuple[str, ...], more: dict[str, str], code: int, text: str
) -> None:
    ended = terminal.run(*arguments, **more)
    assert (ended.code, ended.out) == (code, "")
    assert text in ended.err.splitlines()[-1]


def test_another_server_and_an_unavailable_store_end_with_the_exit_code_for_unavailable() -> None:
    for answer, text in (
        (Answer(200, body=b"<html>"), "is not a Holdfast API"),
        (Answer(302, {"Location": "https://elsewhere.example"}), "is not a Holdfast API"),
        (Answer(503, body=b'{"error": "the store is not available"}'), "the store is not available"),
    ):
        with Peer(lambda _, answer=answer: answer) as peer:  # type: ignore[misc]
            ended = terminal_for(peer.url).run("stats")
        assert (ended.code, len(peer.requests)) == (3, 1), "the key follows no redirect"
        assert text in ended.err


def test_the_key_may_come_from_a_file_or_from_the_receivers_settings(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{API_KEY}\n")
    assert terminal.run("stats", "--key-file", str(tmp_path / "key"), HOLDFAST_API_KEY="").code == 0
    assert terminal.run("stats", HOLDFAST_API_KEY="", API_KEYS=API_KEY).code == 0


def test_control_characters_in_an_event_do_not_reach_the_terminal(terminal: Terminal, real_store: Store) -> None:
    real_store.record(Event("stripe", "evt_1", "\x1b[31mred", '{"a": "\x9b31m"}'.encode()), [])
    seen = terminal.run("events", "list").out + terminal.run("events", "show", "stripe", "evt_1").out
    assert not {"\x1b", "\x9b"} & set(seen)
