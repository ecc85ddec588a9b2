"""What stands in front of localstripe plays what localstripe lacks, as the Stripe library asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from dev.stripe_customer import StripeCustomer
from dev.stripe_events import line_item
from dev.stripe_front import StripeFront
from tests.peers import running_stripe


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeFront]:
    folder: Path = tmp_path_factory.mktemp("localstripe")
    with running_stripe(folder, "http://127.0.0.1:9/") as local, StripeFront() as made:
        made.localstripe = local.url
        yield made
        made.shutdown()


@pytest.fixture
def library(front: StripeFront) -> stripe.StripeClient:
    return stripe.StripeClient("sk_test_1", base_addresses={"api": front.address})


@pytest.fixture
def customer(front: StripeFront) -> StripeCustomer:
    return StripeCustomer(front.address, "sk_test_1")


def test_a_sessions_line_items_are_listed(front: StripeFront, library: stripe.StripeClient) -> None:
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


def test_an_invoice_has_the_number_and_the_page_that_its_customer_needs(
    library: stripe.StripeClient, customer: StripeCustomer
) -> None:
    invoice = library.v1.invoices.retrieve(customer.subscribe(customer.join("ada@example.com"))["latest_invoice"])
    assert invoice.number
    assert str(invoice.hosted_invoice_url).endswith(str(invoice.id))


def test_one_idempotency_key_makes_one_thing(library: stripe.StripeClient) -> None:
    made = [library.v1.customers.create({}, {"idempotency_key": key}).id for key in ("one", "one", "other")]
    assert made[0] == made[1] != made[2]
