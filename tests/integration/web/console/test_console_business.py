"""The console's pages about documents, subscriptions and sources, against a real Valkey and both databases."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from dev.stack.servers import Valkey
from inbox.event import Event
from inbox.store import Store
from settings import Settings, load
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Document, DocumentStep, Invoice, PaymentGrace, PaymentRetry, Reconcile, Subscription
from tests.support.asgi_client import asgi_client
from tests.support.sample_data import fill_database
from tests.support.signed_deliveries import API_KEY, STRIPE_SECRET, signed_by_stripe, stripe_event
from web.application import create_app

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def settings(valkey: Valkey, database: str) -> Settings:
    return load(
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": database,
            "API_KEYS": API_KEY,
            "STRIPE_WEBHOOK_SECRET": f"whsec_the_new_one_0123456789abcdef,{STRIPE_SECRET}",
            "STRIPE_API_KEY": "sk_test_1",
        }
    )


@pytest.fixture
def sessions(settings: Settings) -> Callable[[], Session]:
    return make_sessions(make_engine(settings.database_url))


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    made = create_app(settings).test_client()
    made.post("/console/sign-in", data={"key": API_KEY})
    return made


def insert(sessions: Callable[[], Session], *rows: Any) -> None:
    with sessions() as db:
        for row in rows:
            db.add(row)
            db.flush()
        db.commit()


def document(name: str, status: str = "processing", progress: int = 0, **more: Any) -> Document:
    times = {"created_at": NOW, "updated_at": NOW} | more
    return Document(id=name, document_id=f"{name}.pdf", status=status, progress=progress, **times)


def bars(page: str) -> list[str]:
    return re.findall(r'<progress max="100" value="(\d+)"', page)


def test_documents_show_their_progress_newest_first(client: FlaskClient, sessions: Callable[[], Session]) -> None:
    rows = [document(f"doc_{n}", progress=10 * n, created_at=NOW + timedelta(hours=n)) for n in range(3)]
    insert(sessions, *rows, document("doc_9", "completed", created_at=NOW - timedelta(1)))
    page = client.get("/console/documents").text
    assert bars(page) == ["20", "10", "0", "100"]
    assert bars(client.get("/console/documents?state=completed").text) == ["100"]
    assert bars(client.get("/console/documents?q=doc_2.pdf").text) == ["20"]
    assert client.get("/console/documents?q=doc_2").location == "/console/documents/doc_2"


def test_pages_of_documents_with_equal_times_skip_none(client: FlaskClient, sessions: Callable[[], Session]) -> None:
    insert(sessions, *(document(f"doc_{n:03}") for n in range(120)))
    seen, path = [], "/console/documents"
    while path:
        page = client.get(path).text
        seen += re.findall(r">(doc_\d{3})\.pdf<", page)
        older = re.search(r'href="([^"]+)" rel="next"', page)
        path = html.unescape(older[1]) if older else ""
    assert seen == [f"doc_{n:03}" for n in reversed(range(120))]


def test_a_document_shows_its_timeline_and_progress(client: FlaskClient, sessions: Callable[[], Session]) -> None:
    steps = [DocumentStep(document="doc_1", status="processing", progress=p, at=NOW) for p in (10, 70)]
    insert(sessions, document("doc_1", progress=70), *steps)
    page = client.get("/console/documents/doc_1").text
    assert (bars(page), re.findall(r"processing (\d+) %", page)) == (["70"], ["70", "10"])
    assert 'data-live="1"' in page  # it refreshes itself


@pytest.mark.parametrize(
    ("total", "bar", "text"),
    [(4_000_000, 'max="4000000" value="1000000"', " of "), (None, 'aria-label="Downloaded"></progress>', " so far")],
)
def test_a_download_shows_the_received_bytes_and_the_total_if_known(
    client: FlaskClient, sessions: Callable[[], Session], total: int | None, bar: str, text: str
) -> None:
    insert(sessions, document("doc_1", status="downloading", progress=100, received_bytes=1_000_000, total_bytes=total))
    page = client.get("/console/documents/doc_1").text
    assert bar in page
    assert text in page.partition("</progress>")[2].partition("</small>")[0]
    answer = client.get("/api/v1/documents/doc_1", headers={"Authorization": f"Bearer {API_KEY}"}).get_json()
    assert (answer["received_bytes"], answer["total_bytes"]) == (1_000_000, total)


def test_a_requested_document_has_a_page_before_a_worker_starts(client: FlaskClient, real_store: Store) -> None:
    real_store.record(Event("api", "doc_1", "document.requested", b"{}"), [])
    assert "A worker will submit it" in client.get("/console/documents/doc_1").text


@pytest.mark.parametrize("path", ["doc_0", "a%00b"])
def test_an_unknown_document_is_404(client: FlaskClient, path: str) -> None:
    assert client.get(f"/console/documents/{path}").status_code == 404


@pytest.mark.parametrize("query", ["cursor=x", "cursor=2026-11-24_", "cursor=2026-11-24_%00", "q=%00"])
def test_an_invalid_document_list_query_is_400(client: FlaskClient, query: str) -> None:
    assert client.get(f"/console/documents?{query}").status_code == 400


def unpaid(name: str, status: str, amount: int) -> list[Any]:
    seen = {"seen_created": 1, "seen_event": "e"}
    invoice = {"currency": "eur", "sent": False, "last_try": False, "created": 1, "email": "ada@example.com"}
    return [
        Subscription(id=f"sub_{name}", customer=f"cus_{name}", status=status, updated_at=NOW, **seen),
        Invoice(
            id=f"in_{name}",
            customer=f"cus_{name}",
            subscription=f"sub_{name}",
            state="open",
            amount_due=amount,
            amount_remaining=amount,
            renews=True,
            **invoice,
            **seen,
        ),
    ]


def test_subscriptions_show_the_amount_due_and_the_next_step(
    client: FlaskClient, sessions: Callable[[], Session]
) -> None:
    due = {"due_at": NOW + timedelta(days=1)}
    insert(
        sessions,
        *unpaid("a", "past_due", 1900),
        PaymentRetry(invoice="in_a", number=1, state="declined", decline_code="expired_card", due_at=NOW, done_at=NOW),
        PaymentRetry(invoice="in_a", number=2, state="planned", **due),
        *unpaid("b", "suspended", 700),
        PaymentGrace(invoice="in_b", number=1, state="over", due_at=NOW),
        *unpaid("c", "past_due", 500),
        PaymentGrace(invoice="in_c", number=1, state="planned", **due),
        *unpaid("d", "active", 300),
    )
    page = re.sub(r"<[^>]+>|\s+", " ", client.get("/console/subscriptions").text)
    page = re.sub(" +", " ", page)
    assert (
        "sub_a cus_a past due 19.00 EUR declined expired_card 2026-11-24 00:00:00 retry 2 at 2026-11-25 00:00" in page
    )
    assert "suspended 7.00 EUR access ended" in page
    assert "5.00 EUR access ends at 2026-11-25 00:00:00" in page
    assert "sub_d" not in page
    assert "ada@example.com" not in page


def test_the_pages_can_show_the_rows_of_the_page_benchmark(client: FlaskClient, settings: Settings) -> None:
    fill_database(settings.database_url, documents=3, debtors=2)
    page = client.get("/console/subscriptions").text
    assert ("sub_0" in page, "sub_1" in page, page.count("19.00")) == (True, True, 2)
    assert client.get("/console/documents").text.count("<progress") == 3


def test_the_api_lists_subscriptions_in_dunning_page_by_page(
    client: FlaskClient, sessions: Callable[[], Session]
) -> None:
    tomorrow = NOW + timedelta(days=1)
    insert(
        sessions,
        *unpaid("a", "past_due", 1900),
        PaymentRetry(invoice="in_a", number=1, state="declined", decline_code="expired_card", due_at=NOW, done_at=NOW),
        PaymentRetry(invoice="in_a", number=2, state="planned", due_at=tomorrow),
        *unpaid("b", "suspended", 700),
        PaymentGrace(invoice="in_b", number=1, state="over", due_at=NOW),
        *unpaid("d", "active", 300),
    )

    def ask(query: str) -> Any:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        return client.get(f"/api/v1/subscriptions?limit=1&{query}", headers=headers).get_json()

    first = ask("")
    second = ask(f"cursor={quote(first['cursor'])}")
    (suspended,), (late,) = first["subscriptions"], second["subscriptions"]
    assert late | {"id": "sub_a", "customer": "cus_a", "status": "past_due"} == late
    assert late["open_invoices"] == [
        {
            "invoice": "in_a",
            "amount_due": 1900,
            "currency": "eur",
            "retries": [{"state": "declined", "decline_code": "expired_card", "done_at": NOW.isoformat()}],
            "next_retry_at": tomorrow.isoformat(),
            "access_ends_at": None,
        }
    ]
    assert (suspended["id"], suspended["open_invoices"][0]["access_ends_at"]) == ("sub_b", NOW.isoformat())
    assert ask(f"cursor={quote(second['cursor'])}") == {"subscriptions": [], "cursor": None}
    assert ask("cursor=x") == {"error": "cursor must be one from an earlier page"}


def test_sources_show_the_use_of_each_secret_and_rejected_deliveries(client: FlaskClient, settings: Settings) -> None:
    receiver = asgi_client(settings)
    for secret, status in ((STRIPE_SECRET, 200), ("whsec_evil", 400)):
        body, headers = signed_by_stripe(stripe_event("evt_1"), secret)
        assert receiver.post("/stripe-webhook", data=body, headers=headers).status_code == status
    page = re.sub(r"<[^>]+>|\s+", " ", client.get("/console/sources").text)
    assert re.search(r"signature +matches no secret: compare the secret here with the sender&#39;s +1 ", page)
    assert re.search(r"[0-9a-f]{8} +0 +– .*[0-9a-f]{8} +1 +\d{4}-", page)


def test_sources_show_the_last_reconcile(client: FlaskClient, sessions: Callable[[], Session]) -> None:
    assert "never" in client.get("/console/sources").text
    row = Reconcile(
        source="stripe", request_id="x", after="", everything=False, tried_at=NOW, failure="Stripe answered 500"
    )
    insert(sessions, row)
    page = client.get("/console/sources").text
    assert "failing" in page
    assert "Stripe answered 500" in page


def test_missed_events_are_counted_and_can_be_listed(client: FlaskClient, real_store: Store) -> None:
    for name, counted in (("evt_sent", "accepted"), ("evt_lost", "missed"), ("evt_gone", "missed")):
        real_store.record(Event("stripe", name, "invoice.paid", b"{}"), (), counted=counted)
    page = client.get("/console/sources").text
    (address, number) = re.findall(r'<a href="([^"]*state=missed[^"]*)">(\d+) events</a>', page)[0]
    assert number == "2"
    found = client.get(html.unescape(address)).text
    assert [name in found for name in ("evt_sent", "evt_lost", "evt_gone")] == [False, True, True]


def test_a_completed_document_can_be_downloaded_after_signing_in(
    settings: Settings, sessions: Callable[[], Session], tmp_path: Path
) -> None:
    (tmp_path / "doc_1").write_bytes(b"%PDF-1.7")
    insert(sessions, document("doc_1", "completed", stored_as="doc_1", size=8), document("doc_2"))
    client = create_app(replace(settings, document_store=str(tmp_path))).test_client()
    assert client.get("/console/documents/doc_1/content").status_code == 302
    client.post("/console/sign-in", data={"key": API_KEY})
    assert "/console/documents/doc_1/content" in client.get("/console/documents/doc_1").text
    assert client.get("/console/documents/doc_1/content").data == b"%PDF-1.7"
    assert client.get("/console/documents/doc_2/content").status_code == 404
