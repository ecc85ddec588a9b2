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
    (asked,) = peer.asked
    assert (asked.headers.get("Stripe-Account"), asked.headers.get("Stripe-Context")) == (account, context)


def test_an_account_that_is_not_text_is_never_mistaken_for_our_own(tmp_path: Path) -> None:
    with Peer(lambda _: Answer(200, body=INVOICE)) as peer, pytest.raises(PermanentError, match="account"):
        stripe.fetch_invoice(attempt(tmp_path, peer, {"account": 7}), "in_1")
    assert peer.asked == []


@pytest.mark.parametrize("kind", ["v1.invoice.payment_failed", "v9.of.a.later.library"])
def test_the_related_object_of_a_thin_event_is_fetched(tmp_path: Path, kind: str) -> None:
    with Peer(lambda _: Answer(200, body=INVOICE)) as peer:
        found = stripe.fetch_related(attempt(tmp_path, peer, thin(kind, context="acct_1", **about())))
    (asked,) = peer.asked
    assert (asked.method, asked.path, found["status"]) == ("GET", "/v1/invoices/in_1", "open")
    assert (asked.headers["Stripe-Context"], asked.headers["Stripe-Request-Trigger"]) == ("acct_1", "event=evt_1")


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
    assert peer.asked == []
