"""The receiver against a real Valkey: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs
from werkzeug.test import Client
from werkzeug.wrappers import Request

from dev.stack.servers import Valkey, free_port, wait_until
from inbox import queries
from inbox.job import Lease
from inbox.store import Store
from settings import load
from tests.support.asgi_client import asgi_client
from tests.support.running_receiver import running_receiver
from tests.support.signed_deliveries import (
    DOC_SECRET,
    STRIPE_SECRET,
    signed_by_documents,
    signed_by_stripe,
    stripe_event,
)

OK = {"success": True}
ROOT = Path(__file__).parents[4]


@pytest.fixture(params=["plain ASGI", "uvicorn protocol"])
def client(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Any) -> Iterator[Client]:
    """The receiver by both of its paths, which must behave alike."""
    settings = load(
        {
            "REDIS_URL": valkey.url,
            "STRIPE_WEBHOOK_SECRET": f"{STRIPE_SECRET},whsec_the_next_one_0123456789abcdef",
            "DOC_WEBHOOK_SECRET": DOC_SECRET,
            "DATABASE_URL": f"sqlite:///{tmp_path}/x.db",
            "MAX_BODY_BYTES": "4096",
            "PORT": str(free_port()),
        }
    )
    if request.param == "plain ASGI":
        yield asgi_client(settings)
    else:
        with running_receiver(settings):
            yield Client(Relay(settings.port))


class Relay:
    """A WSGI application that asks the server which listens there."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        request = Request(environ)
        answer = requests.request(
            request.method,
            f"{self._url}{request.full_path}",
            data=request.get_data(),
            headers=dict(request.headers),
            timeout=20,
        )
        start_response(f"{answer.status_code} {answer.reason}", list(answer.headers.items()))
        return [answer.content]


def post(client: Client, path: str, delivery: tuple[bytes, dict[str, str]]) -> tuple[int, Any]:
    body, headers = delivery
    response = client.post(path, data=body, headers=headers)
    return response.status_code, response.json


def test_a_signed_event_is_recorded_with_its_job_and_its_doorbell(client: Client, real_store: Store) -> None:
    event = stripe_event("evt_1", "invoice.payment_failed", id="in_1", customer="cus_1")
    assert post(client, "/stripe-webhook", signed_by_stripe(event)) == (200, OK)
    recorded = queries.find_event(real_store, "stripe", "evt_1")
    assert recorded is not None
    assert [(job["task"], job["state"]) for job in recorded["jobs"]] == [("tasks.payments.payment_failed", "pending")]
    assert real_store.client.llen("payments") == 1


def test_the_bytes_are_kept_as_they_were_signed(client: Client, real_store: Store) -> None:
    body = '{ "id":"evt_1",  "type":"x", "name":"Zoë \\u00e9" }'
    assert post(client, "/stripe-webhook", signed_by_stripe(body)) == (200, OK)
    assert queries.find_body(real_store, "stripe", "evt_1") == body.encode()


def test_a_payload_takes_a_third_of_its_bytes_and_comes_to_its_handler_whole(client: Client, real_store: Store) -> None:
    event = stripe_event("evt_1", "invoice.payment_failed", lines=[{"id": f"il_{n}", "amount": n} for n in range(60)])
    body, headers = signed_by_stripe(event)
    assert post(client, "/stripe-webhook", (body, headers)) == (200, OK)
    assert real_store.client.strlen("{holdfast}:body:stripe:evt_1") < len(body) / 3
    lease = real_store.lease("stripe:evt_1:payments.payment_failed", "me", 60)
    assert (isinstance(lease, Lease) and lease.body) == body


def test_a_duplicate_answers_200_and_changes_nothing(client: Client, real_store: Store) -> None:
    event = stripe_event("evt_1", "invoice.payment_failed", customer="cus_1")
    answers = [post(client, "/stripe-webhook", signed_by_stripe(event)) for _ in range(3)]
    assert answers == [(200, OK)] * 3
    stats = queries.stats(real_store)
    assert stats | {"accepted": 1, "duplicates": 2, "unfinished": 1} == stats
    assert real_store.client.llen("payments") == 1


def test_an_event_nobody_handles_is_recorded_and_counted(client: Client, real_store: Store) -> None:
    assert post(client, "/stripe-webhook", signed_by_stripe(stripe_event("evt_1", "product.updated"))) == (200, OK)
    recorded = queries.find_event(real_store, "stripe", "evt_1")
    assert recorded is not None
    assert (recorded["state"], queries.stats(real_store)["unhandled"]) == ("unhandled", 1)


def test_the_secret_being_rotated_in_is_taken_too(client: Client) -> None:
    delivery = signed_by_stripe(stripe_event("evt_1"), "whsec_the_next_one_0123456789abcdef")
    assert post(client, "/hooks/stripe", delivery) == (200, OK)


@pytest.mark.parametrize("status", ["completed", "failed", "processing"])
def test_a_document_callback_is_recorded_under_its_webhook_id(client: Client, real_store: Store, status: str) -> None:
    body = {"task_id": "t1", "status": status, "result_url": "https://docs.example/r"}
    assert post(client, "/doc-status-webhook", signed_by_documents(body, "msg_9")) == (200, OK)
    recorded = queries.find_event(real_store, "documents", "msg_9")
    assert recorded is not None
    assert recorded["type"] == status


MakeRequest = Callable[[], tuple[str, bytes, dict[str, str]]]  # made as its test runs: what is signed grows stale


def stripe(body: Any, late: float = 0, **kwargs: Any) -> MakeRequest:
    return lambda: ("/stripe-webhook", *signed_by_stripe(body, at=time.time() - late, **kwargs))


def documents(body: Any, late: float = 0, **kwargs: Any) -> MakeRequest:
    return lambda: ("/doc-status-webhook", *signed_by_documents(body, at=time.time() - late, **kwargs))


def plain(path: str, body: bytes, headers: dict[str, str]) -> MakeRequest:
    return lambda: (path, body, headers)


def header(value: str, body: bytes = b"{}") -> MakeRequest:
    """NOW in the header is the time of its test."""
    return lambda: ("/stripe-webhook", body, {"Stripe-Signature": value.replace("NOW", str(int(time.time())))})


REFUSED = {
    "stripe: no signature": (plain("/stripe-webhook", b"{}", {}), "the Stripe-Signature header is missing"),
    "stripe: other secret": (stripe(stripe_event("e"), secret="whsec_evil"), "no signature matches"),
    "stripe: stale": (stripe(stripe_event("e"), late=3600), "the timestamp is more than 300 seconds away"),
    "stripe: from the future": (stripe(stripe_event("e"), late=-3600), "the timestamp is more than 300 seconds"),
    "stripe: no v1": (header("t=1"), "the Stripe-Signature header is not t=<seconds>"),
    "stripe: t is no number": (header("t=now,v1=00"), "the Stripe-Signature header is not t=<seconds>"),
    "stripe: two times": (header("t=1,t=2,v1=00"), "the Stripe-Signature header is not t=<seconds>"),
    "stripe: garbage": (header(",,,==,"), "the Stripe-Signature header is not t=<seconds>"),
    "stripe: a signature of no ASCII": (header("t=NOW,v1=\xe9"), "no signature matches"),
    "stripe: not UTF-8": (header("t=NOW,v1=00", b"\xff\xfe{}"), "the body is not UTF-8"),
    "stripe: not JSON": (stripe("{nope"), "the body is not JSON"),
    "stripe: empty": (stripe(""), "the body is not JSON"),
    "stripe: no object": (stripe("[]"), "the body is not an event of this source: Expected `object`, got `array`"),
    "stripe: no id": (stripe({"type": "x"}), "the body is not an event of this source: Object missing required field"),
    "stripe: id is a number": (
        stripe({"id": 7, "type": "x"}),
        "the body is not an event of this source: Expected `str`",
    ),
    "stripe: id is empty": (stripe({"id": "", "type": "x"}), "id must be 1 to 255 printable"),
    "stripe: id is too long": (stripe({"id": "e" * 256, "type": "x"}), "id must be 1 to 255 printable"),
    "stripe: type is null": (stripe({"id": "e", "type": None}), "the body is not an event of this source: Expected"),
    "stripe: deep nesting": (stripe('{"id":"e","type":"x","data":' + "[" * 2000), "the body is not"),
    "documents: no headers": (plain("/doc-status-webhook", b"{}", {}), "one of the headers webhook-id"),
    "documents: other secret": (
        documents({"task_id": "t", "status": "x"}, secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSv"),
        "no signature matches",
    ),
    "documents: stale": (documents({"task_id": "t", "status": "x"}, late=3600), "the timestamp is more than"),
    "documents: no task": (documents({"status": "failed"}), "the body is not an event of this source: Object missing"),
    "documents: status is a number": (documents({"task_id": "t", "status": 1}), "the body is not an event of this"),
    "documents: completed without result": (
        documents({"task_id": "t", "status": "completed"}),
        "status is completed, and result_url is missing",
    ),
}


@pytest.mark.parametrize(("request_of", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_signed_event_is_refused_in_words_and_counted(
    client: Client, real_store: Store, request_of: MakeRequest, words: str
) -> None:
    path, body, headers = request_of()
    status, answer = post(client, path, (body, headers))
    assert (status, list(answer)) == (400, ["error"])
    assert answer["error"].startswith(words)
    wait_until(lambda: queries.stats(real_store)["rejected"] == 1, seconds=30, what="the refusal to be counted")
    assert queries.stats(real_store)["accepted"] == 0


def test_a_body_over_the_limit_is_413(client: Client) -> None:
    body, headers = signed_by_stripe(json.dumps(stripe_event("evt_1", pad="x" * 5000)))
    assert post(client, "/stripe-webhook", (body, headers)) == (413, {"error": "the body is larger than 4096 bytes"})


def test_an_unknown_source_is_404_and_a_wrong_method_405(client: Client) -> None:
    assert post(client, "/hooks/nobody", (b"{}", {}))[0] == 404
    response = client.get("/stripe-webhook")
    assert (response.status_code, "POST" in response.headers["Allow"]) == (405, True)


def test_a_source_without_a_secret_is_unknown(valkey: Valkey) -> None:
    client = asgi_client(load({"REDIS_URL": valkey.url, "DOC_WEBHOOK_SECRET": DOC_SECRET}))
    with capture_logs() as lines:
        for _ in range(3):
            status, answer = post(client, "/stripe-webhook", signed_by_stripe(stripe_event("evt_1")))
            assert (status, answer) == (404, {"error": "no such source"}), "strangers are not told more"
    assert [line["configured"] for line in lines] == [["documents"]]


@pytest.fixture
def away(valkey: Valkey) -> Iterator[Valkey]:
    yield valkey
    valkey.resume()


@pytest.mark.parametrize("trouble", ["kill", "freeze"])
def test_without_redis_the_answer_is_503_within_two_seconds_and_the_receiver_recovers(
    client: Client, away: Valkey, trouble: str
) -> None:
    body, headers = signed_by_stripe(stripe_event("evt_1"))
    assert post(client, "/stripe-webhook", (body, headers)) == (200, OK)
    getattr(away, trouble)()
    began = time.monotonic()
    response = client.post("/stripe-webhook", data=body, headers=headers)
    assert (response.status_code, time.monotonic() - began < 2) == (503, True)
    assert int(response.headers["Retry-After"]) > 0
    away.resume()
    assert post(client, "/stripe-webhook", signed_by_stripe(stripe_event("evt_2"))) == (200, OK)


def test_a_full_store_is_503_and_nothing_is_half_recorded(client: Client, real_store: Store) -> None:
    real_store.client.config_set("maxmemory", "1mb")
    try:
        status, _ = post(client, "/stripe-webhook", signed_by_stripe(stripe_event("evt_1", "invoice.payment_failed")))
    finally:
        real_store.client.config_set("maxmemory", "0")
    assert (status, real_store.client.keys("*evt_1*")) == (503, [])


def test_refusals_are_logged_once_with_their_reason_and_nothing_of_the_body(client: Client, valkey: Valkey) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            event = stripe_event("evt_1", email="ada@example.com")
            assert post(client, "/stripe-webhook", signed_by_stripe(event, secret="whsec_wrong"))[0] == 400
        valkey.kill()
        for _ in range(2):
            assert post(client, "/stripe-webhook", signed_by_stripe(event))[0] == 503
    refused = {"event": "rejected", "log_level": "warning", "source": "stripe", "count": 1}
    assert lines == [refused | {"reason": "signature"}, refused | {"reason": "unavailable"}]


def test_the_receiver_starts_without_the_stripe_library() -> None:
    """It would cost each process 8 MB and 0.12 s."""
    code = """
import sys
from settings import load
from web.application import create_asgi_app
import web.__main__, web.receiver.protocol
create_asgi_app(load({"STRIPE_WEBHOOK_SECRET": "whsec_the_next_one_0123456789abcdef"}))
print("stripe" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
