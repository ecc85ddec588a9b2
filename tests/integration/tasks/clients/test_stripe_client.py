"""Calls to Stripe are made for the account that the event came from; the related object of a thin event is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inbox.errors import PermanentError
from tasks.clients import stripe
from tasks.handler import Attempt
from tests.support.business import Business
from tests.support.peers import Answer, Peer, Stripe

INVOICE = b'{"id": "in_1", "object": "invoice", "status": "open"}'


def thin(kind: str = "v1.invoice.payment_failed", **more: Any) -> dict[str, Any]:
    return {"id": "evt_1", "object": "v2.core.event", "type": kind, "created": "2026-03-01T12:00:00Z", **more}


def about(url: Any = "/v1/invoices/in_1") -> dict[str, Any]:
    return {"related_object": {"id": "in_1", "type": "invoice", "url": url}}


def attempt(folder: Path, peer: Peer, body: Any) -> Attempt:
    settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
    return Business(lambda: None, folder, settings).attempt("stripe", "evt_1", body, "x", {})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("origin", "account", "context"),
    [
        ({}, None, None),
        ({"account": None, "context": None}, None, None),
        ({"account": "acct_1"}, "acct_1", None),
        ({"context": "org_1/acct_1"}, None, "org_1/acct_1"),
        ({"account": "acct_1", "context": "acct_1"}, None, "acct_1"),
    ],
)
def test_a_call_is_made_for_the_account_of_the_event(
    tmp_path: Path, origin: dict[str, Any], account: str | None, context: str | None
) -> None:
    with Peer(lambda _: Answer(200, body=INVOICE)) as peer:
        stripe.fetch_invoice(attempt(tmp_path, peer, {"id": "evt_1", **origin}), "in_1")
    (request,) = peer.requests
    assert (request.headers.get("Stripe-Account"), request.headers.get("Stripe-Context")) == (account, context)


@pytest.mark.parametrize("entry", ["default", "machine 127.0.0.1"])
def test_the_key_is_sent_and_not_a_password_from_a_netrc_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    (tmp_path / "netrc").write_text(f"{entry} login anonymous password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Peer(lambda _: Answer(200, body=INVOICE)) as peer:
        stripe.fetch_invoice(attempt(tmp_path, peer, {"id": "evt_1"}), "in_1")
    (request,) = peer.requests
    assert request.headers["Authorization"] == f"Bearer {Stripe.KEY}"


def test_an_account_that_is_not_text_is_never_mistaken_for_our_own(tmp_path: Path) -> None:
    with Peer(lambda _: Answer(200, body=INVOICE)) as peer, pytest.raises(PermanentError, match="account"):
        stripe.fetch_invoice(attempt(tmp_path, peer, {"account": 7}), "in_1")
    assert peer.requests == []


@pytest.mark.parametrize("kind", ["v1.invoice.payment_failed", "v9.of.a.later.library"])
def test_the_related_object_of_a_thin_event_is_fetched(tmp_path: Path, kind: str) -> None:
    with Peer(lambda _: Answer(200, body=INVOICE)) as peer:
        found = stripe.fetch_related(attempt(tmp_path, peer, thin(kind, context="acct_1", **about())))
    (request,) = peer.requests
    assert (request.method, request.path, found["status"]) == ("GET", "/v1/invoices/in_1", "open")
    assert (request.headers["Stripe-Context"], request.headers["Stripe-Request-Trigger"]) == ("acct_1", "event=evt_1")


@pytest.mark.parametrize(
    "body",
    [
        {"id": "evt_1", "object": "event", "type": "invoice.payment_failed", **about()},
        thin("v1.billing.meter.no_meter_found"),
        thin("v9.of.a.later.library"),
        thin(related_object=None),
        thin(**about("@elsewhere.example/v1/invoices/in_1")),
        thin(**about(".elsewhere.example/v1")),
        json.dumps(thin(**about(7))).encode(),
    ],
)
def test_an_event_without_a_related_object_makes_no_call(tmp_path: Path, body: Any) -> None:
    with Peer(lambda _: Answer(200, body=INVOICE)) as peer, pytest.raises(PermanentError):
        stripe.fetch_related(attempt(tmp_path, peer, body))
    assert peer.requests == []


def test_a_response_holds_nothing_that_no_database_stores(tmp_path: Path) -> None:
    lines = {"object": "list", "data": [{"description": "a\0b"}], "has_more": False}
    found = {"id": "in_1", "number": "N \ud83d", "lines": lines, "customer_name": "😀"}
    with Peer(lambda _: Answer(200, body=json.dumps(found).encode())) as peer:
        invoice = stripe.fetch_invoice(attempt(tmp_path, peer, {"id": "evt_1"}), "in_1")
    assert (invoice["number"], invoice["customer_name"]) == ("N \ufffd", "😀")
    assert invoice["lines"]["data"] == [{"description": "a\ufffdb"}]
