"""Access in the API, on the command line and in the console: what is in force, and why not the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from cli.__main__ import holdfast
from cli.api import Api
from settings import Settings
from tasks.orders.fulfilment import checkout_completed
from tests.integration.tasks.orders.test_fulfilment import checkout
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.lives import T0, Happened, invoice, subscription
from tests.support.signed_deliveries import API_KEY
from web.application import create_app

BEARER = {"Authorization": f"Bearer {API_KEY}"}
APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}


@pytest.fixture
def client(settings: Settings, sessions: Callable[[], Session], tmp_path: Path) -> FlaskClient:
    """A receiver that knows a customer with a book, a plan that is past due, one that has ended; and a guest."""
    business = Business(sessions, tmp_path, dict(APP))
    fields = {"metadata": {"product": "book", "user": "7"}}
    business.run(checkout_completed, checkout(**fields), event_id="evt_a")
    business.run(
        checkout_completed, checkout(id="cs_2", payment_status="unpaid", payment_intent="pi_2"), event_id="evt_b"
    )
    same = {"customer_details": {"email": "ADA@example.com"}}
    guest = checkout(id="cs_3", customer=None, client_reference_id=None, payment_intent="pi_3", **same)
    business.run(checkout_completed, guest, event_id="evt_c")
    pro = subscription("created", 1, 0, "active", "pro")
    ends = {"current_period_end": T0 + 86_400, "cancel_at_period_end": True}
    Happened(pro.id, pro.type, pro.created, pro.object | ends).to(business)
    invoice("payment_failed", 3, 10, billing_reason="subscription_cycle", next_payment_attempt=None).to(business)
    old = subscription("deleted", 5, 0, "canceled", "old")
    Happened(old.id, old.type, old.created, old.object | {"id": "sub_2"}).to(business)
    return create_app(settings).test_client()


def ask(client: FlaskClient, **query: str) -> Any:
    answer = client.get("/api/v1/access", headers=BEARER, query_string=query)
    assert answer.status_code == 200
    return answer.json


def test_the_api_says_what_a_customer_has_and_why_not_the_rest(client: FlaskClient) -> None:
    found = ask(client, customer="cus_1")
    (customer,) = found["customers"]
    assert customer["client_reference"] == "user_7"
    assert (customer["email"], customer["metadata"]) == ("ada@example.com", {"product": "course", "user": "7"})
    book, pro = found["access"]
    assert (book["entitlement"], book["source"], book["until"], book["past_due"]) == ("book", "cs_1", None, False)
    assert (pro["entitlement"], pro["source"], pro["quantity"], pro["past_due"]) == ("pro", "sub_1", 2, True)
    assert pro["until"] == pro["cancel_at"] == "2026-02-26T06:13:20+00:00"
    assert pro["grace_until"] is not None
    reasons = {(row["entitlement"], row["source"], row["reason"]) for row in found["not_in_force"]}
    assert reasons == {("old", "sub_2", "subscription_canceled"), (None, "cs_2", "awaiting_payment")}


@pytest.mark.parametrize(
    ("query", "customers"),
    [
        ({"client_reference": "user_7"}, ["cus_1"]),
        ({"email": "ada@example.com"}, ["cs_3", "cus_1"]),
        ({"email": "Ada@Example.com"}, ["cs_3", "cus_1"]),
        ({"customer": "cs_3"}, ["cs_3"]),
        ({"customer": "cus_9"}, []),
        ({"customer": "cus_1", "account": "acct_1"}, []),
    ],
)
def test_customers_and_guests_are_found_by_id_reference_or_address(
    client: FlaskClient, query: dict[str, str], customers: list[str]
) -> None:
    assert [one["customer"] for one in ask(client, **query)["customers"]] == customers


@pytest.mark.parametrize(
    "query", [{}, {"account": "acct_1"}, {"customer": "cus_1", "email": "bob@example.com"}, {"customer": "\x00"}]
)
def test_a_question_that_nobody_matches_finds_nobody(client: FlaskClient, query: dict[str, str]) -> None:
    assert ask(client, **query) == {"customers": [], "access": [], "not_in_force": []}
    assert client.get("/api/v1/access", query_string={"customer": "cus_1"}).status_code == 401


def test_many_orders_of_one_customer_hide_no_other(
    client: FlaskClient, sessions: Callable[[], Session], tmp_path: Path
) -> None:
    """A guest is somebody else at each order, and a customer is one however often they buy."""
    business = Business(sessions, tmp_path)
    for number in range(10, 60):
        about = {"id": f"cs_{number}", "payment_intent": f"pi_{number}", "customer": None if number % 2 else "cus_1"}
        business.run(checkout_completed, checkout(**about), event_id=f"evt_{number}")
    guests = [f"cs_{number}" for number in range(11, 60, 2)]
    assert [one["customer"] for one in ask(client, client_reference="user_7")["customers"]] == [*guests, "cus_1"]


def test_the_command_prints_the_same(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Api, "get", lambda _, *path, **query: ask(client, **query))
    monkeypatch.setenv("HOLDFAST_API_KEY", API_KEY)
    printed = CliRunner().invoke(holdfast, ["access", "--client-reference", "user_7"]).output
    assert "cus_1 user_7 ada@example.com" in printed
    assert [line.split()[0] for line in printed.splitlines() if " in force" in line] == ["book", "old", "order"]
    assert "subscription_canceled" in printed
    refused = CliRunner().invoke(holdfast, ["access"])
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("grace_until", "why"),
    [("2026-02-26T06:13:20+00:00", "ends 2026-02-26T06:13:20+00:00 unless it is paid"), (None, "a payment is missing")],
)
def test_the_command_says_what_ends_access_that_is_past_due(
    monkeypatch: pytest.MonkeyPatch, grace_until: str | None, why: str
) -> None:
    row = {"entitlement": "pro", "source": "sub_1", "quantity": 2, "past_due": True, "until": None, "cancel_at": None}
    found = {"customers": [], "access": [row | {"grace_until": grace_until}], "not_in_force": []}
    monkeypatch.setattr(Api, "get", lambda *_, **query: found)
    monkeypatch.setenv("HOLDFAST_API_KEY", API_KEY)
    assert why in CliRunner().invoke(holdfast, ["access", "--customer", "cus_1"]).output


def sign_in(client: FlaskClient) -> str:
    """Sign in; returns the token of the forms."""
    client.post("/console/sign-in", data={"key": API_KEY})
    page = client.get("/console/customers").text
    return page.split('name="form_token" value="')[1].split('"')[0]


def test_the_console_shows_a_customer_with_access_orders_dunning_and_messages(client: FlaskClient) -> None:
    token = sign_in(client)
    found = client.post("/console/customers", data={"form_token": token, "q": "user_7"})
    assert found.location == "/console/customers/cus_1"
    page = client.get(found.location).text
    for text in (
        "book",
        "pro",
        "bought outright",
        "subscription canceled",
        "cs_1",
        "awaiting payment",
        "sub_1",
        "in_1",
    ):
        assert text in page
    for text in ("in_1", "order.fulfilled", "access.granted", "receipt", "access ends at", "user: 7"):
        assert text in page
    both = client.post("/console/customers", data={"form_token": token, "q": "ada@example.com"}).text
    assert "/console/customers/cs_3" in both and "/console/customers/cus_1" in both
    assert "Nobody has this" in client.post("/console/customers", data={"form_token": token, "q": "nobody"}).text
    assert client.get("/console/customers/cus_9").status_code == 404
