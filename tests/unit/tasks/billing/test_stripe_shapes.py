"""Our events, those of the simulators and those of the tests, have the shape of Stripe's library."""

from __future__ import annotations

import json
from typing import Any

import pytest
import stripe
from msgspec import Struct
from stripe import StripeObject

from cli import stripe_events
from cli.stripe_events import NEW_VERSION, OLD_VERSION
from dev.simulators import stripe_objects as simulated
from tasks.billing import (
    admin_notices,
    charges,
    customers,
    disputes,
    invoice_lines,
    invoices,
    payment_methods,
    payouts,
    refunds,
    subscriptions,
)
from tasks.connected_accounts import Origin
from tasks.notifications import notify
from tasks.orders import fulfilment, sales_without_session
from tests.integration.tasks import test_handler_example as handler_example
from tests.integration.tasks.billing import test_payments as handlers_payments
from tests.integration.tasks.billing import test_refunds as handlers_refunds
from tests.integration.tasks.orders import test_fulfilment as handlers_fulfilment
from tests.support import lives
from tests.support.signed_deliveries import stripe_event
from tests.support.stripe_shapes import NEWER, OLDER, SHAPES, misfits, misread

CHARGE = {"object": "charge", "id": "ch_1", "amount": 4900, "currency": "usd", "payment_intent": "pi_1"}
OF_LOCALSTRIPE = {
    **{"object": "invoice", "id": "in_1", "subscription": "sub_1", "charge": "ch_1", "payment_intent": "pi_1"},
    **{"paid": True, "status": "paid"},
}
REFUNDS = {"object": "list", "data": [{"object": "refund", "id": 1}]}


def thing(event: dict[str, Any]) -> dict[str, Any]:
    return dict(event["data"]["object"])


@pytest.mark.parametrize(
    "made",
    [
        stripe_events.failed_invoice(1, "ada@example.com", 1, 1, NEW_VERSION),
        stripe_events.checkout_session(1, "ada@example.com", paid=True, created=1),
        stripe_events.checkout_session(1, "ada@example.com", paid=False, created=1),
        simulated.charge(CHARGE, NEW_VERSION, "in_1"),
        stripe_events.dispute(1, CHARGE, "won", 1),
        simulated.line_item("prod_club", "Club"),
        stripe_events.customer(1, "ada@example.com", 1),
        stripe_events.subscription(1, "trialing", 1),
        stripe_events.refunded_charge(1, 1),
        stripe_events.failed_refund(1, 1),
        stripe_events.failed_payout(1, 1),
        json.loads(stripe_events.event(1, "customer.created", {}, 1)),
        stripe_event("evt_1"),
        lives.invoice("paid", 2, 1).object,
        lives.subscription("created", 1, 1, "active").object,
        lives.subscription("created", 1, 1, "active", "prod_1").object,
        lives.item("item", "prod_1"),
        simulated.as_of_now(OF_LOCALSTRIPE),
        lives.dispute("created", 1, 1, "won").object,
        lives.checkout("completed", 1, 1).object,
        {"object": "payout"} | thing(handler_example.failed()),
        thing(handlers_fulfilment.checkout()),
        thing(handlers_payments.failure()),
        thing(handlers_refunds.refund()),
        thing(handlers_refunds.failed_refund()),
        thing(handlers_refunds.dispute()),
    ],
    ids=lambda made: str(made["object"]),
)
def test_an_object_of_ours_fits_the_librarys_api_version(made: dict[str, Any]) -> None:
    assert misfits(made) == []


@pytest.mark.parametrize(
    "made",
    [
        stripe_events.failed_invoice(1, "ada@example.com", 1, 1, OLD_VERSION),
        stripe_events.checkout_session(1, "ada@example.com", paid=True, created=1, version=OLD_VERSION),
        simulated.charge(CHARGE, OLD_VERSION, "in_1"),
        lives.invoice("paid", 1, 1).object,
        lives.refund(1, 1, 1, "in_1").object,
    ],
    ids=lambda made: str(made["object"]),
)
def test_an_object_of_an_old_version_has_what_the_changelogs_took_away_and_not_what_they_brought(
    made: dict[str, Any],
) -> None:
    assert misfits(made, old=True) == []
    assert misfits(made), "it has nothing that a new version lacks"


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (Origin, "event"),
        (charges.ChargeObject, "charge"),
        (customers.CustomerObject, "customer"),
        (disputes.DisputeObject, "dispute"),
        (fulfilment.CheckoutSession, "checkout.session"),
        (fulfilment.LineItem, "item"),
        (invoices.InvoiceObject, "invoice"),
        (invoice_lines.InvoiceLine, "line_item"),
        (notify.Customer, "customer"),
        (payment_methods.CustomerObject, "customer"),
        (payment_methods.PaymentMethod, "payment_method"),
        (admin_notices.FraudWarning, "radar.early_fraud_warning"),
        (payouts.Payout, "payout"),
        (refunds.RefundObject, "refund"),
        (sales_without_session.PaymentIntentObject, "payment_intent"),
        (subscriptions.SubscriptionObject, "subscription"),
    ],
)
def test_every_field_that_we_read_is_stripes_and_may_be_null_where_theirs_may(ours: type[Struct], name: str) -> None:
    assert [line for line in misread(ours, SHAPES[name], name) if not of_the_merchant(line)] == []


def of_the_merchant(line: str) -> bool:
    """Metadata belongs to the user."""
    return ".metadata." in line


def test_the_library_has_what_is_new_and_not_what_is_old() -> None:
    assert stripe.api_version == NEW_VERSION, "compare once more, by the changelogs since"
    assert [place for place in NEWER if place[1] not in SHAPES[place[0]].__annotations__] == []
    still = [place for place in OLDER if place[1] in SHAPES[place[0]].__annotations__]
    assert still == [("checkout.session", "ui_mode")], "which took other words"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"object": "charge", "invented": 1}, ["charge.invented is not there"]),
        ({"object": "charge", "amount": "4900"}, ["charge.amount is '4900'"]),
        ({"object": "charge", "amount": True}, ["charge.amount is True"]),
        ({"object": "charge", "amount": None}, ["charge.amount is None"]),
        ({"object": "charge", "status": "won"}, ["charge.status is 'won'"]),
        ({"object": "charge", "billing_details": {"email": 1}}, ["charge.billing_details.email is 1"]),
        ({"object": "charge", "customer": {"object": "customer", "id": 1}}, ["customer.id is 1"]),
        (
            {"object": "charge", "refunds": REFUNDS},
            ["refund.id is 1"],
        ),
        ({"object": "charge", "invoice": "in_1"}, ["charge.invoice is not there"]),
        ({"object": "invoice", "subscription": "sub_1"}, ["invoice.subscription is not there"]),
    ],
)
def test_a_field_of_the_wrong_type_is_found(made: dict[str, Any], said: list[str]) -> None:
    assert misfits(made) == said


def test_a_field_that_we_would_misread_is_found() -> None:
    class Wrong(Struct):
        amount: int
        invented: int | None = None
        description: str = ""

    theirs: type[StripeObject] = SHAPES["charge"]
    assert misread(Wrong, theirs, "charge") == ["charge.invented is not there", "charge.description may be null"]
