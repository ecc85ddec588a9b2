"""`holdfast doctor`: a good world is told to be good, and of each broken one what is wrong and how to mend it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cli import checks
from dev.stack.servers import Valkey, free_port
from inbox.errors import StoreUnavailable
from inbox.store import Store, connect
from settings import load
from tests.conftest import fresh_database
from tests.support.peers import Answer, Mailbox, Peer
from tests.support.senders import API_KEY, STRIPE_SECRET
from tests.support.stack import ROOT

EVENTS = json.dumps({"object": "list", "data": [], "has_more": False}).encode()


@pytest.fixture
def good(
    request: pytest.FixtureRequest, valkey: Valkey, real_store: Store, mailbox: Mailbox, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Settings of a world in which everything is as it should be."""
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
    """As every worker does each second."""
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
    """The exit code, the findings and what was told beside them."""
    command = [sys.executable, "-m", "cli", "doctor", "--json"]
    environ = {"PATH": os.environ["PATH"]} | settings
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout)["findings"], done.stderr


def wrong(settings: dict[str, str]) -> dict[str, str]:
    """What there is to mend, and what was found there."""
    code, findings, _ = doctor(settings)
    bad = {finding["what"]: finding["found"] for finding in findings if not finding["ok"]}
    assert code == bool(bad)
    assert all(finding["mend"] for finding in findings if not finding["ok"]), "how is it mended?"
    return bad


def test_a_good_world_is_told_to_be_good(good: dict[str, str]) -> None:
    code, findings, told = doctor(good)
    assert [finding for finding in findings if not finding["ok"]] == []
    assert (code, told) == (0, "")
    assert {"store", "durability", "append-only file", "broker", "database", "sweep", "STRIPE_API_KEY"} <= {
        finding["what"] for finding in findings
    }


NOBODY = f"127.0.0.1:{free_port()}"


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
                "DOC_SERVICE_URL": f"http://{NOBODY}",
                "ADMIN_NOTIFY_URLS": "slack://hidden, nonsense",
                "REPLICAS_ACK": "1",
            },
            {
                "API_KEYS": "0 set",
                "sources": "none",
                "PUBLIC_URL": "http://hooks.example",
                "database": "its file is not there",
                "DOCUMENT_STORE": "/dev/null cannot be written to",
                "DOC_SERVICE_URL": f"{NOBODY} cannot be reached (ConnectionRefusedError)",
                "ADMIN_NOTIFY_URLS": "number 1, 2 of 2 is no Apprise URL",
                "durability": "0 of 1 replicas confirm what is written: senders hear 503",
            },
        ),
        (
            {
                "DATABASE_URL": "postgresql://u:hidden@127.0.0.1:9/x",
                "ADMIN_NOTIFY_URLS": f"mailto://u:hidden@{NOBODY}?from=a@b.de&mode=insecure&smtp=127.0.0.1",
                "BROKER_URL": f"redis://:hidden@{NOBODY}/0",
            },
            {
                "database": "cannot be reached (OperationalError)",
                "ADMIN_NOTIFY_URLS: mail": f"{NOBODY} cannot be reached (ConnectionRefusedError)",
                "broker": "does not answer; jobs wait until it does",
            },
        ),
    ],
)
def test_a_broken_world_is_told_to_be_broken_there_and_nowhere_else(
    good: dict[str, str], changes: dict[str, str], found: dict[str, str]
) -> None:
    assert wrong(good | changes) == found


def test_every_wrong_setting_is_told_not_only_the_first(good: dict[str, str]) -> None:
    _, findings, told = doctor(good | {"PORT": "http", "LEASE_SECONDS": "0"})
    assert [finding["found"].split()[0] for finding in findings] == ["PORT", "LEASE_SECONDS"]
    assert told == "holdfast: 2 of 2 to mend\n"


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
    ("values", "what"),
    [
        ({"appendfsync": "everysec"}, ["durability"]),
        ({"maxmemory-policy": "allkeys-lru"}, ["durability"]),
        ({"maxmemory": "1100000"}, ["durability", "memory"]),  # as /readyz has it, and how to mend it
    ],
)
def test_a_store_that_would_lose_or_is_full_is_told(
    good: dict[str, str], valkey: Valkey, values: dict[str, str], what: list[str]
) -> None:
    with configured(valkey, **values):
        assert list(wrong(good)) == what


def test_a_store_that_is_away_is_told_and_so_is_its_broker(good: dict[str, str], valkey: Valkey) -> None:
    valkey.stop()
    assert list(wrong(good)) == ["store", "broker"]


def test_workers_that_have_never_swept_are_missed(valkey: Valkey) -> None:
    found = {finding.what: finding for finding in checks.store(load({"REDIS_URL": valkey.url}))}
    assert found["sweep"] == checks.Finding(False, "sweep", "no worker has ever swept", found["sweep"].mend)


def test_tables_of_another_revision_are_told(good: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert "tables of revision none" in wrong(good | {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"})["database"]


def test_a_stripe_that_refuses_the_key_is_told(good: dict[str, str]) -> None:
    refusal = json.dumps({"error": {"type": "invalid_request_error", "message": "Invalid API Key"}}).encode()
    with Peer(lambda _: Answer(401, body=refusal)) as peer:
        bad = wrong(good | {"STRIPE_API_BASE": peer.url})
        assert bad == {"STRIPE_API_KEY": "Stripe refused STRIPE_API_KEY"}
        assert len(peer.asked) == 1


@pytest.mark.parametrize(
    ("finding", "ok"),
    [
        (lambda: checks.clock(100.0, 100.1, 100.2), True),
        (lambda: checks.clock(100.0, 104.0, 104.1), True),
        (lambda: checks.clock(100.0, 106.0, 106.1), False),
        (lambda: checks.clock(106.1, 100.0, 100.1), False),
        (lambda: checks.clock(103.0, 100.0, 106.0), True),  # a slow answer is no skew
        (lambda: checks.memory(89, 100), True),
        (lambda: checks.memory(91, 100), False),
        (lambda: checks.memory(91, 0), True),
        (lambda: checks.disk("DOCUMENT_STORE", Path("/x"), 99, 100), False),
        (lambda: checks.disk("DOCUMENT_STORE", Path("/x"), 100, 100), True),
        (lambda: checks.public_url(""), True),
        (lambda: checks.public_url("http://127.0.0.1:8000"), True),
        (lambda: checks.public_url("http://localhost"), True),
        (lambda: checks.public_url("http://10.0.0.1"), False),
        (lambda: checks.public_url("https://hooks.example"), True),
    ],
)
def test_what_is_found_is_judged(finding: Callable[[], checks.Finding], ok: bool) -> None:
    assert finding().ok is ok
