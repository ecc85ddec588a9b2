"""`holdfast doctor`: no finding for a correct installation, and for each fault a finding with its fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cli import doctor_checks
from dev.stack.postgres import Postgres
from dev.stack.servers import Valkey, free_port
from inbox.client import connect
from inbox.errors import StoreUnavailable
from inbox.store import Store
from inbox.worker_registry import announce
from settings import load
from tasks.routes import QUEUES
from tests.conftest import Clock, fresh_database
from tests.support.databases import fresh_postgres
from tests.support.peers import Answer, Mailbox, Peer
from tests.support.signed_deliveries import API_KEY, STRIPE_SECRET
from tests.support.stack import ROOT

EVENTS = json.dumps({"object": "list", "data": [], "has_more": False}).encode()


@pytest.fixture
def correct(
    request: pytest.FixtureRequest, valkey: Valkey, real_store: Store, mailbox: Mailbox, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """The settings of an installation without faults, whose services are running."""
    with Peer(lambda _: Answer(body=EVENTS)) as peer, sweeping(real_store):
        yield {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": fresh_database(request, "sqlite"),
            "API_KEYS": API_KEY,
            "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
            "STRIPE_API_KEY": "sk_test_of_the_tests",
            "STRIPE_API_BASE": peer.url,
            "PUBLIC_URL": "https://hooks.example",
            "DOC_SERVICE_URL": peer.url,
            "ADMIN_NOTIFY_URLS": f"{mailbox.url}&to=admin@example.com",
            "CUSTOMER_NOTIFY_URLS": f"{mailbox.url}&to={{email}}",
            "DOCUMENT_STORE": str(tmp_path / "not" / "there" / "yet"),
            "MAX_DOCUMENT_BYTES": "1000000",
        }


@contextmanager
def sweeping(store: Store) -> Iterator[None]:
    """Sweep every second, as a worker does."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            with suppress(StoreUnavailable):
                store.sweep(1, {})
            over.wait(1)

    worker = threading.Thread(target=work)
    worker.start()
    yield
    over.set()
    worker.join()


def doctor(settings: dict[str, str]) -> tuple[int, list[dict[str, str]], str]:
    """The exit code, the findings and stderr."""
    command = [sys.executable, "-m", "cli", "doctor", "--json"]
    environ = {"PATH": os.environ["PATH"]} | settings
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout)["findings"], done.stderr


def failed(settings: dict[str, str]) -> dict[str, str]:
    """The failed checks, with what each found."""
    code, findings, _ = doctor(settings)
    bad = {finding["check"]: finding["found"] for finding in findings if not finding["ok"]}
    assert code == bool(bad)
    assert all(finding["fix"] for finding in findings if not finding["ok"]), "every fault has a fix"
    return bad


def test_a_correct_installation_has_no_faults(correct: dict[str, str]) -> None:
    code, findings, errors = doctor(correct)
    assert [finding for finding in findings if not finding["ok"]] == []
    assert (code, errors) == (0, "")
    assert {"store", "durability", "append-only file", "broker", "database", "workers", "STRIPE_API_KEY"} <= {
        finding["check"] for finding in findings
    }


def test_a_text_that_cannot_be_filled_in_is_a_fault(correct: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "receipt.md").write_text("Hello $nmae\n\nbody")
    found = failed(correct | {"TEMPLATES": str(tmp_path)})
    assert list(found) == ["messages"]
    assert found["messages"].startswith("TEMPLATES: receipt.md uses $nmae")


CLOSED_PORT = f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {
                "API_KEYS": "",
                "STRIPE_WEBHOOK_SECRET": "",
                "PUBLIC_URL": "http://hooks.example",
                "DATABASE_URL": "sqlite:////none/x.db",
                "DOCUMENT_STORE": "/dev/null/documents",
                "DOC_SERVICE_URL": f"http://{CLOSED_PORT}",
                "ADMIN_NOTIFY_URLS": "slack://hidden, nonsense",
                "REPLICAS_ACK": "1",
            },
            {
                "API_KEYS": "not set",
                "sources": "none configured",
                "PUBLIC_URL": "http://hooks.example",
                "database": "the SQLite file does not exist",
                "DOCUMENT_STORE": "/dev/null is not writable",
                "DOC_SERVICE_URL": f"{CLOSED_PORT} cannot be reached (ConnectionRefusedError)",
                "ADMIN_NOTIFY_URLS": "no valid Apprise URL: number 1, 2 of 2",
                "durability": "only 0 of 1 replicas confirm writes: sources receive 503",
            },
        ),
        (
            {
                "DATABASE_URL": "postgresql://u:hidden@127.0.0.1:9/x",
                "ADMIN_NOTIFY_URLS": f"mailto://u:hidden@{CLOSED_PORT}?from=a@b.de&mode=insecure&smtp=127.0.0.1",
                "BROKER_URL": f"redis://:hidden@{CLOSED_PORT}/0",
            },
            {
                "database": "cannot be reached (OperationalError)",
                "ADMIN_NOTIFY_URLS: mail server": f"{CLOSED_PORT} cannot be reached (ConnectionRefusedError)",
                "broker": "does not answer; jobs wait until it does",
            },
        ),
    ],
)
def test_each_fault_is_reported_by_its_check_and_by_no_other(
    correct: dict[str, str], changes: dict[str, str], found: dict[str, str]
) -> None:
    assert failed(correct | changes) == found


def test_every_invalid_setting_is_reported_not_only_the_first(correct: dict[str, str]) -> None:
    _, findings, errors = doctor(correct | {"PORT": "http", "LEASE_SECONDS": "0"})
    assert [finding["found"].split()[0] for finding in findings] == ["PORT", "LEASE_SECONDS"]
    assert errors == "holdfast: 2 of 2 checks failed\n"


@contextmanager
def configured(valkey: Valkey, **values: str) -> Iterator[None]:
    client = connect(valkey.url)
    before: dict[str, Any] = {name: client.config_get(name)[name] for name in values}
    for name, value in values.items():
        client.config_set(name, value)
    yield
    for name, value in before.items():
        client.config_set(name, value)


@pytest.mark.parametrize(
    ("values", "checks_failed"),
    [
        ({"appendfsync": "everysec"}, ["durability"]),
        ({"maxmemory-policy": "allkeys-lru"}, ["durability"]),
        ({"maxmemory": "1100000"}, ["durability", "memory"]),  # /readyz counts it as durability; memory has the fix
    ],
)
def test_a_store_that_may_lose_data_or_is_full_is_reported(
    correct: dict[str, str], valkey: Valkey, values: dict[str, str], checks_failed: list[str]
) -> None:
    with configured(valkey, **values):
        assert list(failed(correct)) == checks_failed


def test_an_unavailable_store_is_reported_and_so_is_the_broker_on_it(correct: dict[str, str], valkey: Valkey) -> None:
    valkey.stop()
    assert list(failed(correct)) == ["store", "broker"]


def test_a_queue_without_a_worker_is_reported_and_the_fix_names_all_queues(
    correct: dict[str, str], store: Store, clock: Clock
) -> None:
    clock.ms = int(time.time() * 1000) - 61_000
    announce(store, "payments@host", "host/1", ["payments"], QUEUES)
    clock.forward(61)
    announce(store, "payments@host", "host/1", ["payments"], QUEUES)
    _, findings, _ = doctor(correct)
    (found,) = [finding for finding in findings if not finding["ok"]]
    others = "fulfilment, documents, downloads, notifications, handoffs"
    assert (found["check"], found["found"]) == ("workers", f"no worker consumes {others}; jobs wait there")
    command = "celery -A workers.app worker -Q payments,fulfilment,documents,downloads,notifications,handoffs"
    assert found["fix"] == f"start a worker: {command}"


def test_workers_that_never_reported_are_reported(valkey: Valkey) -> None:
    found = {finding.check: finding for finding in doctor_checks.store(load({"REDIS_URL": valkey.url}))}
    assert found["workers"] == doctor_checks.Finding(False, "workers", "no worker has ever swept", found["workers"].fix)


def test_another_schema_revision_is_reported(correct: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert "schema revision none" in failed(correct | {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"})["database"]


def test_a_standby_of_postgres_is_reported(correct: dict[str, str], postgres: Postgres) -> None:
    database = fresh_postgres(postgres)
    postgres.refuse_writes()
    try:
        assert failed(correct | {"DATABASE_URL": database}) == {"database": "is read-only"}
    finally:
        postgres.accept_writes()


@pytest.mark.parametrize(
    ("schedule", "invoice", "reported"),
    [
        ("1d", {"attempted": True, "next_payment_attempt": 1}, True),
        ("1d", {"attempted": True, "next_payment_attempt": None}, False),
        ("1d", {"attempted": False, "next_payment_attempt": 1}, False),  # its first attempt, no retry
        ("off", {"attempted": True, "next_payment_attempt": 1}, False),
    ],
)
def test_retries_of_stripes_beside_our_schedule_are_reported(
    correct: dict[str, str], schedule: str, invoice: dict[str, Any], reported: bool
) -> None:
    listed = {"object": "list", "data": [invoice], "has_more": False}
    with Peer(lambda _: Answer(200, body=json.dumps(listed).encode())) as stripe:
        bad = failed(correct | {"STRIPE_API_BASE": stripe.url, "PAYMENT_RETRY_SCHEDULE": schedule})
    told = {"PAYMENT_RETRY_SCHEDULE": "Stripe retries 1 of 1 failed invoices by itself"}
    assert bad == (told if reported else {})


def test_a_key_that_stripe_refuses_is_reported(correct: dict[str, str]) -> None:
    refusal = json.dumps({"error": {"type": "invalid_request_error", "message": "Invalid API Key"}}).encode()
    with Peer(lambda _: Answer(401, body=refusal)) as peer:
        bad = failed(correct | {"STRIPE_API_BASE": peer.url})
        assert bad == {"STRIPE_API_KEY": "Stripe refused STRIPE_API_KEY"}
        assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("finding", "ok"),
    [
        (lambda: doctor_checks.clock(100.0, 100.1, 100.2), True),
        (lambda: doctor_checks.clock(100.0, 104.0, 104.1), True),
        (lambda: doctor_checks.clock(100.0, 106.0, 106.1), False),
        (lambda: doctor_checks.clock(106.1, 100.0, 100.1), False),
        (lambda: doctor_checks.clock(103.0, 100.0, 106.0), True),  # a slow answer is not a skew
        (lambda: doctor_checks.memory(89, 100), True),
        (lambda: doctor_checks.memory(91, 100), False),
        (lambda: doctor_checks.memory(91, 0), True),
        (lambda: doctor_checks.disk("DOCUMENT_STORE", Path("/x"), 99, 100), False),
        (lambda: doctor_checks.disk("DOCUMENT_STORE", Path("/x"), 100, 100), True),
        (lambda: doctor_checks.public_url(""), True),
        (lambda: doctor_checks.public_url("http://127.0.0.1:8000"), True),
        (lambda: doctor_checks.public_url("http://localhost"), True),
        (lambda: doctor_checks.public_url("http://10.0.0.1"), False),
        (lambda: doctor_checks.public_url("https://hooks.example"), True),
    ],
)
def test_checks_decide_by_their_limits(finding: Callable[[], doctor_checks.Finding], ok: bool) -> None:
    assert finding().ok is ok
