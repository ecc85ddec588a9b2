"""From a signed HTTP request to its effect, through the real receiver, store, workers, mail server and Flower."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook

from dev.stack.servers import Valkey, free_port, wait_until
from inbox.client import connect
from tasks.documents.callback_url import token
from tests.conftest import fresh_database
from tests.support.peers import Answer, Mailbox, Peer
from tests.support.signed_deliveries import API_KEY, DOC_SECRET, signed_by_stripe, stripe_event
from tests.support.stack import ROOT, Stack

QUEUES = "payments,fulfilment,documents,downloads,notifications,handoffs"
BEARER = {"Authorization": f"Bearer {API_KEY}"}


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, mailbox: Mailbox, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(
        tmp_path,
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": fresh_database(request, "sqlite"),
            "CUSTOMER_NOTIFY_URLS": f"{mailbox.url}&to={{email}}",
            "ADMIN_NOTIFY_URLS": f"{mailbox.url}&to=admin@example.com",
            "LEASE_SECONDS": "30",
            "JOB_TIME_LIMIT_SECONDS": "20",
        },
    )
    yield made
    made.end()


def open_to_others(folder: Path) -> list[Path]:
    """What the user's group or others can open."""
    return [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]


def send(stack: Stack, event: dict[str, Any]) -> requests.Response:
    body, headers = signed_by_stripe(event)
    return requests.post(stack.url("/stripe-webhook"), data=body, headers=headers, timeout=30)


def stats(stack: Stack) -> dict[str, int]:
    """As soon as the API answers: on a busy machine it may say that the store is too slow."""
    answers: list[requests.Response] = []

    def answered() -> bool:
        answers.append(requests.get(stack.url("/api/v1/stats"), headers=BEARER, timeout=30))
        return answers[-1].ok

    wait_until(answered, seconds=30, what="the stats")
    return dict(answers[-1].json())


def settle(stack: Stack) -> dict[str, int]:
    wait_until(lambda: stats(stack)["unfinished"] == 0, seconds=120, what="every job to be done")
    return stats(stack)


def test_a_failed_payment_and_a_checkout_become_rows_and_mails(stack: Stack, mailbox: Mailbox) -> None:
    stack.receiver()
    stack.worker(queues=QUEUES, app="workers.app")
    invoice = {
        "id": "in_1",
        "customer": "cus_1",
        "customer_email": "ada@example.com",
        "parent": {"subscription_details": {"subscription": "sub_1"}},
        "amount_due": 1999,
        "currency": "eur",
        "attempt_count": 1,
        "hosted_invoice_url": "https://invoice.example/in_1",
    }
    session = {
        "id": "cs_1",
        "customer": "cus_2",
        "payment_status": "paid",
        "amount_total": 4200,
        "currency": "usd",
        "customer_details": {"email": "grace@example.com"},
        "metadata": {"product": "pro"},
    }
    for event in (
        stripe_event("evt_1", "invoice.payment_failed", **invoice),
        stripe_event("evt_2", "checkout.session.completed", **session),
        stripe_event("evt_3", "product.updated", id="prod_1"),
    ):
        assert [send(stack, event).json() for _ in range(2)] == [{"success": True}] * 2
    found = settle(stack)
    assert found | {"accepted": 3, "duplicates": 3, "unhandled": 1, "succeeded": 4, "dead": 0} == found
    assert stack.rows("SELECT id, status FROM subscriptions") == [("sub_1", "past_due")]
    assert stack.rows("SELECT invoice, amount_due, currency FROM payment_failures") == [("in_1", 1999, "eur")]
    assert stack.rows("SELECT session_id, state FROM orders") == [("cs_1", "fulfilled")]
    assert stack.rows("SELECT product, revoked_at FROM entitlements") == [("pro", None)]
    assert sorted(to for to, _ in mailbox.mails) == [["ada@example.com"], ["grace@example.com"]]
    for worker_log in stack.folder.glob("*.log"):
        assert "ada@example.com" not in worker_log.read_text(), f"an address in {worker_log.name}"


@pytest.mark.parametrize("scheme", ["standard", "token"])
def test_a_document_is_submitted_called_back_downloaded_and_announced(
    stack: Stack, mailbox: Mailbox, scheme: str
) -> None:
    service = free_port()
    stack.environment |= {
        "DOC_SERVICE_URL": f"http://127.0.0.1:{service}",
        "DOC_SERVICE_API_KEY": "doc-service-key",
        "PUBLIC_URL": stack.url(""),
        "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
        "DOCUMENT_DEADLINE": "10s",
        "DOC_WEBHOOK_SCHEME": scheme,
    }
    stack.part("dev.simulators.document_service", "--port", str(service), name="documents")
    stack.receiver()
    stack.worker(queues=QUEUES, app="workers.app")
    request = requests.post(
        stack.url("/api/v1/documents"),
        headers=BEARER,
        json={"document_id": "contract", "notify": {"email": "ada@example.com"}},
        timeout=30,
    )
    assert (request.status_code, request.json()["status"]) == (202, "submitting")
    address = stack.url(f"/api/v1/documents/{request.json()['id']}")

    def shown() -> dict[str, Any]:
        return dict(requests.get(address, headers=BEARER, timeout=30).json())

    wait_until(lambda: shown()["status"] == "completed", seconds=120, what="the document")
    content = requests.get(f"{address}/content", headers=BEARER, timeout=30).content
    document = shown()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (document["sha256"], document["size"])
    assert [path.name for path in (stack.folder / "documents").glob("doc_*")] == [document["stored_as"]]
    settle(stack)
    assert [to for to, _ in mailbox.mails] == [["ada@example.com"]]
    assert open_to_others(stack.folder / "documents") == []
    for log in stack.folder.glob("*.log"):
        assert token(DOC_SECRET, request.json()["id"]) not in log.read_text(), f"a document's token in {log.name}"


def test_documents_that_nobody_calls_back_for_or_that_fail_once_are_completed_all_the_same(stack: Stack) -> None:
    service = free_port()
    stack.environment |= {
        "DOC_SERVICE_URL": f"http://127.0.0.1:{service}",
        "DOC_SERVICE_API_KEY": "doc-service-key",
        "PUBLIC_URL": stack.url(""),
        "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
        "DOCUMENT_DEADLINE": "3s",
    }
    stack.part("dev.simulators.document_service", "--port", str(service), name="documents")
    stack.receiver()
    stack.worker(queues=QUEUES, app="workers.app")
    for name in ("silent-1.pdf", "lost-1.pdf", "flaky-1.pdf"):
        request = {"document_id": name}
        requests.post(stack.url("/api/v1/documents"), headers=BEARER, json=request, timeout=30).raise_for_status()
    counts = settle(stack)
    found = stack.rows("SELECT document_id, status, start > 1 FROM documents ORDER BY 1")
    assert found[:2] == [("flaky-1.pdf", "completed", True), ("lost-1.pdf", "completed", True)]
    assert found[2][:2] == ("silent-1.pdf", "completed")
    assert counts["dead"] == 0


def test_a_receiver_killed_under_load_has_recorded_all_it_acknowledged(stack: Stack, valkey: Valkey) -> None:
    receiver = stack.receiver(WEB_PROCESSES="2")
    acknowledged: list[str] = []

    def sender(name: int) -> None:
        for n in range(200):
            try:
                if send(stack, stripe_event(f"evt_{name}_{n}")).ok:
                    acknowledged.append(f"evt_{name}_{n}")
            except requests.RequestException:
                return

    senders = [threading.Thread(target=sender, args=(name,)) for name in range(4)]
    for thread in senders:
        thread.start()
    wait_until(lambda: len(acknowledged) > 50, seconds=120, what="some acknowledgements")
    receiver.kill()
    for thread in senders:
        thread.join()
    client = connect(valkey.url)
    lost = [name for name in acknowledged if not client.exists(f"{{holdfast}}:event:stripe:{name}")]
    assert lost == []


def test_a_sender_that_tries_again_after_a_503_loses_nothing(stack: Stack, valkey: Valkey) -> None:
    stack.receiver()
    valkey.kill()
    event = stripe_event("evt_1")
    began = time.monotonic()
    answer = send(stack, event)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert time.monotonic() - began < 2
    valkey.start()
    assert send(stack, event).json() == {"success": True}
    assert stats(stack)["accepted"] == 1


def test_a_chunked_body_over_the_limit_is_refused_without_being_read_whole(stack: Stack) -> None:
    stack.receiver(MAX_BODY_BYTES="2048")
    signature = f"Stripe-Signature: t={int(time.time())},v1=00"  # one that only a body can disprove
    head = f"POST /stripe-webhook HTTP/1.1\r\nHost: x\r\n{signature}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    with socket.create_connection(("127.0.0.1", stack.port), timeout=5) as connection:
        connection.sendall(head.encode() + chunk * 8 + b"0\r\n\r\n")
        answer = connection.recv(4096).decode()
    assert " 413 " in answer.splitlines()[0]


def test_flower_shows_a_failed_attempt_as_failed_with_its_reason(stack: Stack) -> None:
    port = free_port()
    where = ("--conf=workers/flowerconfig.py", f"--port={port}", "--address=127.0.0.1", "--basic-auth=a:b")
    stack.part("celery", "-A", "workers.flower_app", "flower", *where, name="flower")

    def get(path: str, **how: Any) -> requests.Response:
        try:
            return requests.get(f"http://127.0.0.1:{port}/{path}", timeout=30, **how)
        except requests.ConnectionError:
            return requests.Response()  # it is not up yet

    def tasks() -> dict[str, Any]:
        return dict(get("api/tasks", auth=("a", "b")).json())

    stack.receiver()
    wait_until(lambda: get("").status_code == 401, seconds=120, what="Flower to ask for its password")
    stack.worker(app="workers.app")
    broken = stripe_event("evt_1", "invoice.payment_failed", id="in_1", customer_email="ada@example.com")
    assert send(stack, broken).ok
    wait_until(lambda: any(t["state"] == "FAILURE" for t in tasks().values()), seconds=120, what="Flower's failed task")
    (task,) = (t for t in tasks().values() if t["state"] == "FAILURE")
    assert task["name"] == "tasks.payments.payment_failed"
    assert "data.object.customer" in task["exception"]
    assert task["args"] == "['stripe:evt_1:payments.payment_failed']"  # of which event
    assert "ada@example.com" not in json.dumps(tasks())
    columns = re.findall(r'<th data-column="([a-z]+)"', get("tasks", auth=("a", "b")).text)
    assert f'tasks_columns = "{",".join(columns)}"' in (ROOT / "workers/flowerconfig.py").read_text()
    columns = re.findall(r'data-column="(\w+)"', get("tasks", auth=("a", "b")).text)
    assert columns == ["name", "args", "state", "exception", "received", "runtime", "worker", "uuid"]


def start(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *command]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "command",
    [["-m", "web"], ["-m", "celery", "-A", "workers.app", "worker"], ["-m", "tasks.upgrade"]],
    ids=["receiver", "worker", "migrations"],
)
def test_a_wrong_setting_stops_every_part_with_one_line(stack: Stack, command: list[str]) -> None:
    done = start(command, {**stack.environment, "PORT": "http"})
    assert done.returncode != 0
    assert done.stderr.strip() == "holdfast: PORT is 'http'; it must be a whole number from 1 to 65535"


def test_a_receiver_without_any_secret_does_not_start(stack: Stack) -> None:
    environment = {**stack.environment, "STRIPE_WEBHOOK_SECRET": "", "DOC_WEBHOOK_SECRET": ""}
    done = start(["-m", "web"], environment)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    words = "no source is configured; set STRIPE_WEBHOOK_SECRET, DOC_WEBHOOK_SECRET or SOURCES"
    assert done.stderr == f"holdfast: {words}\n"
    assert DOC_SECRET not in done.stderr


def test_a_receiver_whose_port_is_taken_says_so_in_one_line(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        done = start(["-m", "web"], stack.environment)
    assert done.returncode == 1
    assert done.stderr == f"holdfast: cannot listen on BIND=127.0.0.1 PORT={stack.port}: Address already in use\n"


def test_an_application_that_was_away_is_told_of_each_sale_and_of_its_end(stack: Stack) -> None:
    """One order's payment was disputed and lost before anybody knew the order; the other's is refunded after it."""
    answers = itertools.chain([503], itertools.repeat(200))
    paid = {"payment_status": "paid", "metadata": {"product": "club"}}
    lost = {"charge": "ch_1", "payment_intent": "pi_1", "status": "lost"}
    refunded = {"payment_intent": "pi_2", "amount": 4900, "amount_refunded": 4900, "refunded": True}
    with Peer(lambda _: Answer(next(answers))) as app:
        stack.environment |= {"APP_WEBHOOK_URL": app.url, "APP_WEBHOOK_SECRET": DOC_SECRET}
        stack.receiver()
        stack.worker(queues=QUEUES, app="workers.app")
        for event in (
            stripe_event("evt_1", "charge.dispute.closed", id="dp_1", **lost),
            stripe_event("evt_2", "checkout.session.completed", id="cs_1", payment_intent="pi_1", **paid),
            stripe_event("evt_3", "checkout.session.completed", id="cs_2", payment_intent="pi_2", **paid),
            stripe_event("evt_4", "charge.refunded", id="ch_2", **refunded),
        ):
            send(stack, event)
            assert settle(stack)["dead"] == 0
    told = [Webhook(DOC_SECRET).verify(request.body, dict(request.headers)) for request in app.requests]
    assert sorted(one["type"] for one in told) == [
        *("access.granted", "access.revoked", "order.fulfilled", "order.fulfilled", "order.fulfilled")
    ]
    fulfilled = [one["data"]["order"]["id"] for one in told if one["type"] == "order.fulfilled"]
    assert sorted(fulfilled) == ["cs_1", "cs_1", "cs_2"]
    assert app.requests[0].headers["webhook-id"] == app.requests[1].headers["webhook-id"]
