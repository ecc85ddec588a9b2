"""What stands in front of localstripe plays what localstripe lacks, as the Stripe library asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from dev.simulators.localstripe_client import StripeCustomer
from dev.simulators.stripe import Stripe
from dev.simulators.stripe_objects import line_item
from tests.support.peers import running_stripe


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stripe]:
    folder: Path = tmp_path_factory.mktemp("localstripe")
    with running_stripe(folder, "http://127.0.0.1:9/") as local, Stripe() as made:
        made.localstripe = local.url
        yield made


@pytest.fixture
def library(front: Stripe) -> stripe.StripeClient:
    return stripe.StripeClient("sk_test_1", base_addresses={"api": front.url})


@pytest.fixture
def customer(front: Stripe) -> StripeCustomer:
    return StripeCustomer(front.localstripe, "sk_test_1")


def test_a_sessions_line_items_are_listed(front: Stripe, library: stripe.StripeClient) -> None:
    front.line_items["cs_1"] = [line_item("prod_club", "Club")]
    (item,) = library.v1.checkout.sessions.line_items.list("cs_1").data
    assert item.price is not None
    assert item.price.product == "prod_club"


def test_an_invoice_is_found_by_the_payment_that_paid_it(
    library: stripe.StripeClient, customer: StripeCustomer
) -> None:
    invoice = customer.subscribe(customer.join("ada@example.com"))["latest_invoice"]
    intent = str(customer.get_charge(customer.charge_of(invoice))["payment_intent"])
    asked: Any = {"payment": {"type": "payment_intent", "payment_intent": intent}, "expand": ["data.invoice"]}
    found = library.v1.invoice_payments.list(asked)
    assert [payment.to_dict()["invoice"]["id"] for payment in found.data] == [invoice]
    once = customer.get_charge(customer.buy(customer.join("eve@example.com"), 100))["payment_intent"]
    asked["payment"]["payment_intent"] = once
    assert library.v1.invoice_payments.list(asked).data == []


def test_what_is_fetched_has_the_shape_of_the_newest_version(
    library: stripe.StripeClient, customer: StripeCustomer
) -> None:
    subscription = customer.subscribe(customer.join("ada@example.com"))
    invoice = library.v1.invoices.retrieve(subscription["latest_invoice"]).to_dict()
    assert invoice["parent"]["subscription_details"]["subscription"] == subscription["id"]
    assert not {"subscription", "payment_intent", "charge", "paid"} & set(invoice)
    (payment,) = library.v1.invoice_payments.list({"invoice": invoice["id"]}).data
    paid = library.v1.charges.retrieve(customer.charge_of(invoice["id"])).to_dict()
    assert (payment["payment"]["payment_intent"], payment["invoice"]) == (paid["payment_intent"], invoice["id"])
    assert "invoice" not in paid
    (item,) = library.v1.subscriptions.retrieve(subscription["id"]).to_dict()["items"]["data"]
    assert item["price"]["product"] == subscription["items"]["data"][0]["plan"]["product"]


def test_the_checkout_of_a_subscription_is_found_and_what_nobody_knows_is_not(
    front: Stripe, library: stripe.StripeClient, customer: StripeCustomer
) -> None:
    ada, eve = customer.join("ada@example.com"), customer.join("eve@example.com")
    front.sessions[ada] = {"id": "cs_9", "object": "checkout.session"}
    found = [
        library.v1.checkout.sessions.list({"subscription": customer.subscribe(one)["id"]}).data for one in (ada, eve)
    ]
    assert [[session.id for session in sessions] for sessions in found] == [["cs_9"], []]
    with pytest.raises(stripe.InvalidRequestError):
        library.v1.disputes.retrieve("dp_9")


def test_an_invoice_has_the_number_and_the_page_that_its_customer_needs(
    library: stripe.StripeClient, customer: StripeCustomer
) -> None:
    invoice = library.v1.invoices.retrieve(customer.subscribe(customer.join("ada@example.com"))["latest_invoice"])
    assert invoice.number
    assert str(invoice.hosted_invoice_url).endswith(str(invoice.id))


def test_one_idempotency_key_makes_one_thing(library: stripe.StripeClient) -> None:
    made = [library.v1.customers.create({}, {"idempotency_key": key}).id for key in ("one", "one", "other")]
    assert made[0] == made[1] != made[2]
