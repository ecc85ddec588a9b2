"""What a collector gets: one trace from the request to the calls out, by real processes; and what it does not get."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from dev.simulators.http import Request
from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.store import Store
from tests.conftest import fresh_database
from tests.support.business import HANDOFF_SECRET
from tests.support.peers import Answer, Mailbox, Peer
from tests.support.signed_deliveries import signed_by_stripe, stripe_event
from tests.support.stack import ROOT, Stack

QUEUES = "payments,fulfilment,notifications,handoffs"
NEVER_MS = "600000"  # so that what a collector has was sent at the stop
SENDERS_OWN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHECKOUT = {
    "id": "cs_1",
    "object": "checkout.session",
    "mode": "payment",
    "payment_status": "paid",
    "customer": "cus_1",
    "customer_details": {"email": "ada@example.com", "name": "Ada Lovelace"},
    "amount_total": 4900,
    "currency": "eur",
    "metadata": {},
    "line_items": {"data": [{"price": {"id": "price_1", "product": "course"}, "quantity": 1}]},
}


class Collector(Peer):
    """An OTLP/HTTP collector."""

    def __init__(self) -> None:
        super().__init__(lambda _: Answer(200))

    @property
    def spans(self) -> list[Span]:
        found = [ExportTraceServiceRequest.FromString(request.body) for request in self.requests]
        groups = [group for request in found for part in request.resource_spans for group in part.scope_spans]
        return [span for group in groups for span in group.spans]


@pytest.fixture
def app() -> Iterator[Peer]:
    with Peer(lambda _: Answer(204)) as peer:
        yield peer


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, app: Peer, tmp_path: Path) -> Iterator[Stack]:
    with Mailbox() as mailbox:
        made = Stack(
            tmp_path,
            {
                "REDIS_URL": valkey.url,
                "DATABASE_URL": fresh_database(request, "sqlite"),
                "CUSTOMER_NOTIFY_URLS": f"{mailbox.url}&to={{email}}",
                "APP_WEBHOOK_URL": f"{app.url}/in?token=a-secret",
                "APP_WEBHOOK_SECRET": HANDOFF_SECRET,
                "LEASE_SECONDS": "30",
                "JOB_TIME_LIMIT_SECONDS": "20",
                "OTEL_BSP_SCHEDULE_DELAY": NEVER_MS,
            },
        )
        yield made
        made.end()


def deliver(stack: Stack, event_id: str) -> None:
    body, headers = signed_by_stripe(stripe_event(event_id, "checkout.session.completed", **CHECKOUT))
    heard = requests.post(
        stack.url("/stripe-webhook"), data=body, headers={**headers, "traceparent": SENDERS_OWN}, timeout=30
    )
    assert heard.status_code == 200, heard.text


def done(store: Store) -> bool:
    stats = queries.stats(store)
    return stats["succeeded"] >= 4 and stats["unfinished"] == 0


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes}


def of(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


@pytest.mark.slow
def test_one_trace_links_the_request_its_attempts_the_follow_ups_and_outgoing_calls(
    stack: Stack, real_store: Store, app: Peer
) -> None:
    with Collector() as collector:
        stack.environment["TRACES_URL"] = f"{collector.url}/v1/traces"
        receiver, worker = stack.receiver(), stack.worker(queues=QUEUES, app="workers.app")
        deliver(stack, "evt_1")
        deliver(stack, "evt_1")
        wait_until(lambda: done(real_store), seconds=60, what="every job to be done")
        assert collector.requests == []
        assert [worker.stop(), receiver.stop()] == [0, 0]
        spans = collector.spans
    assert len({span.trace_id for span in spans}) == 1

    first, again = sorted(of(spans, "receive"), key=lambda span: span.start_time_unix_nano)
    assert (first.parent_span_id, again.parent_span_id) == (b"", first.span_id)
    assert [attributes(span)["outcome"] for span in (first, again)] == ["recorded", "duplicate"]
    assert first.links[0].trace_id.hex() in SENDERS_OWN

    attempts = {span.span_id: span for span in spans if span.name.startswith("attempt ")}
    assert {span.parent_span_id for span in attempts.values()} == {first.span_id}
    (fulfilment,) = of(spans, "attempt tasks.fulfilment.checkout_completed")
    about = {"source": "stripe", "event_id": "evt_1", "task": "tasks.fulfilment.checkout_completed", "attempt": 1}
    assert attributes(fulfilment) == {**about, "job": attributes(fulfilment)["job"], "outcome": "succeeded"}

    calls = of(spans, "POST")
    host, port = app.host.split(":")
    place = {"url.scheme": "http", "server.address": host, "server.port": int(port)}
    assert [attributes(call) for call in calls] == [{**place, "http.response.status_code": 204}] * len(app.requests)
    assert {attempts[call.parent_span_id].name for call in calls} == {"attempt tasks.app_webhook.deliver"}
    joined = {request.headers["traceparent"].split("-")[2] for request in app.requests}
    assert joined == {call.span_id.hex() for call in calls}
    (mail,) = of(spans, "notify")
    assert attempts[mail.parent_span_id].name == "attempt tasks.notifications.send"

    sent = b"".join(request.body for request in collector.requests)
    assert b"evt_1" in sent
    assert not [word for word in (b"ada@", b"Ada", b"a-secret", b"/in", b"whsec_", b"mailbox") if word in sent]


def hangs(_: Request) -> Answer:
    time.sleep(20)
    return Answer(503)


@pytest.mark.slow
def test_a_collector_that_hangs_delays_no_job_and_no_shutdown(stack: Stack, real_store: Store) -> None:
    with Peer(hangs) as collector:
        stack.environment |= {"TRACES_URL": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        receiver, worker = stack.receiver(), stack.worker(queues=QUEUES, app="workers.app")
        deliver(stack, "evt_1")
        wait_until(lambda: done(real_store), seconds=60, what="every job to be done")
        began = time.monotonic()
        assert [worker.stop(), receiver.stop()] == [0, 0]
        assert time.monotonic() - began < 30
        assert collector.requests


LOADED = """
import sys
import web.serving, workers.app
web.serving.application()
workers.app.runner(1)
ours = ("telemetry.otlp", "opentelemetry.exporter", "opentelemetry.sdk.trace", "google.protobuf")
print(sorted(name for name in sys.modules if name.startswith(ours)))
"""


@pytest.mark.parametrize(("url", "loaded"), [("", False), ("http://127.0.0.1:9/v1/traces", True)])
def test_without_tracing_opentelemetry_is_not_loaded(stack: Stack, url: str, loaded: bool) -> None:
    environment: Mapping[str, str] = {**stack.environment, "TRACES_URL": url}
    run = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert (run.stdout.strip() != "[]") is loaded
