"""Our retries yield to Stripe's own, and to what a retry cannot change: nobody is charged beside Stripe, or in vain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from tasks.billing.payments import retry_payment
from tasks.handler import FollowUp
from tasks.models import Entitlement, Order, PaymentGrace, PaymentRetry
from tasks.orders.fulfilment import complete_order
from tests.support.business import Business
from tests.support.lives import Happened, checkout, invoice, subscription
from tests.support.peers import Answer, Peer, Stripe

HOUR, DAY = 3600, 86400


class Shop:
    """A Stripe with one unpaid invoice, by the newest API version. Every payment method is declined unless `good`."""

    def __init__(self) -> None:
        self.invoice: dict[str, Any] = {"next_payment_attempt": None, "auto_advance": True, "status": "open"}
        self.subscription: dict[str, Any] = {"status": "past_due"}
        self.intent: dict[str, Any] = {"status": "requires_payment_method"}
        self.error: dict[str, Any] = {"code": "card_declined", "decline_code": "insufficient_funds"}
        self.method: dict[str, Any] = {"id": "pm_1", "type": "card", "card": {"last4": "4242", "country": "DE"}}
        self.default = "pm_1"
        self.good: set[str] = set()  # methods that are not declined
        self.may_read_customers = True
        self.payments = [payment("pi_1")]
        self.charged: list[str] = []  # idempotency keys

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST":
            self.charged.append(str(request.headers["Idempotency-Key"]))
            if self.default not in self.good:
                return Answer(402, body=json.dumps({"error": {"type": "card_error", **self.error}}).encode())
            self.invoice["status"], self.subscription["status"] = "paid", "active"
        if "/customers/" in request.path and not self.may_read_customers:
            return Answer(403, body=b'{"error": {"type": "invalid_request_error"}}')
        return Answer(200, body=json.dumps(self._find(request.path)).encode())

    def _find(self, path: str) -> dict[str, Any]:
        last = {"last_payment_error": {**self.error, "payment_method": self.method}}
        objects = {
            "/subscriptions/": {"id": "sub_1", "object": "subscription", "customer": "cus_1", **self.subscription},
            "/invoice_payments": {"object": "list", "data": self.payments},
            "/payment_intents/pi_1": {"id": "pi_1", **last, **self.intent},
            "/payment_intents/": {"id": "pi_2", "status": "canceled"},
            "/customers/": {"id": "cus_1", "invoice_settings": {"default_payment_method": self.default}},
            "/invoices/": invoice("payment_failed", 2, 10, **self.invoice).object,
        }
        return next((found for part, found in objects.items() if part in path), {"object": "list", "data": []})


def payment(intent: str, **fields: Any) -> dict[str, Any]:
    paid_by = {"type": "payment_intent", "payment_intent": intent}
    return {"id": f"inpay_{intent}", "created": 1, "status": "open", "is_default": True, "payment": paid_by, **fields}


@pytest.fixture
def shop(business: Business) -> Iterator[Shop]:
    state = Shop()
    with Peer(state) as peer:
        business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        yield state


def failed(business: Business, number: int = 1, **fields: Any) -> list[FollowUp]:
    event: Happened = invoice("payment_failed", number, 10 * number, attempt_count=number, **fields)
    return event.to(business)


def run_retries(business: Business) -> None:
    """Run every planned retry at its time, until none is planned."""
    while planned := business.all(select(PaymentRetry).filter_by(state="planned")):
        for retry in planned:
            business.now = max(business.now, retry.due_at)
            args = {"invoice": retry.invoice, "number": retry.number}
            business.run(retry_payment, {"id": "evt_1"}, effect=f"retry {retry.number}", args=args)


def states(business: Business) -> list[str]:
    return [row.state for row in business.all(select(PaymentRetry).order_by(PaymentRetry.number))]


def test_by_default_only_stripe_retries(business: Business, shop: Shop) -> None:
    failed(business)
    assert states(business) == []
    assert [row.state for row in business.all(select(PaymentGrace))] == ["planned"]


def test_a_schedule_retries_when_stripe_has_no_attempt_planned(business: Business, shop: Shop) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    failed(business)
    run_retries(business)
    assert shop.charged == ["in_1:retry:1", "in_1:retry:2"]


def test_a_schedule_yields_to_an_attempt_that_stripe_has_planned(business: Business, shop: Shop) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    shop.invoice["next_payment_attempt"] = int(business.now.timestamp()) + 3 * DAY
    failed(business)
    assert states(business) == []
    shop.invoice["next_payment_attempt"] = None  # that attempt was the last
    failed(business, 2)
    run_retries(business)
    assert shop.charged == ["in_1:retry:1", "in_1:retry:2"]


@pytest.mark.parametrize("told", ["by an event", "by the invoice alone"])
def test_a_planned_retry_yields_to_an_attempt_that_stripe_plans_later(
    business: Business, shop: Shop, told: str
) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    failed(business)
    shop.invoice["next_payment_attempt"] = int(business.now.timestamp()) + 3 * DAY
    if told == "by an event":
        failed(business, 2)
    run_retries(business)
    assert (states(business), shop.charged) == (["cancelled"], [])
    shop.invoice["next_payment_attempt"] = None
    failed(business, 3)
    run_retries(business)
    assert shop.charged == ["in_1:retry:2", "in_1:retry:3"]


@pytest.mark.parametrize("when", ["before the failure", "before the retry"])
def test_an_invoice_whose_automatic_collection_is_off_is_not_charged(business: Business, shop: Shop, when: str) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    shop.invoice["auto_advance"] = when == "before the retry"
    failed(business)
    shop.invoice["auto_advance"] = False
    run_retries(business)
    assert shop.charged == []


@pytest.mark.parametrize("when", ["before the failure", "before the retry"])
def test_an_upgrade_that_waits_for_its_payment_is_not_charged(business: Business, shop: Shop, when: str) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    shop.invoice["billing_reason"] = "subscription_update"
    waiting = {"status": "active", "pending_update": {"expires_at": 1}}
    shop.subscription = waiting if when == "before the failure" else {"status": "past_due"}
    failed(business)
    shop.subscription = waiting
    run_retries(business)
    assert shop.charged == []


def test_an_invoice_of_a_subscription_that_has_ended_meanwhile_is_not_charged(business: Business, shop: Shop) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    failed(business)
    shop.subscription["status"] = "canceled"
    run_retries(business)
    assert (states(business), shop.charged) == (["cancelled"], [])


@pytest.mark.parametrize(
    "code",
    [
        *("debit_not_authorized", "bank_account_closed", "bank_account_invalid_details", "bank_account_frozen"),
        *("recipient_deceased", "mandate_invalid", "account_closed", "no_account", "bank_account_unusable"),
    ],
)
def test_a_debit_that_needs_a_new_mandate_or_account_is_not_made_again(
    business: Business, shop: Shop, code: str
) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "3d,3d,3d,3d"
    shop.error = {"code": code}
    shop.method = {"id": "pm_1", "type": "sepa_debit", "sepa_debit": {"last4": "3000"}}
    failed(business)
    run_retries(business)
    assert shop.charged == []


@pytest.mark.parametrize(
    ("schedule", "charges"),
    [("1h,1d,3d,5d", ["3", "4"]), ("3d,3d,3d,3d", ["1", "2"]), ("1h,1h", []), ("1h,1d,1d,1d", ["3"])],
)
@pytest.mark.parametrize("kind", ["sepa_debit", "us_bank_account"])
def test_a_bank_account_is_debited_at_most_twice_and_days_apart(
    business: Business, shop: Shop, kind: str, schedule: str, charges: list[str]
) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = schedule
    business.now = business.now.fromtimestamp(1_772_000_010, business.now.tzinfo)  # when the debit was returned
    shop.error = {"code": "insufficient_funds"}
    shop.method = {"id": "pm_1", "type": kind, kind: {"last4": "3000"}}
    failed(business)
    run_retries(business)
    assert shop.charged == [f"in_1:retry:{number}" for number in charges]


@pytest.mark.parametrize(("country", "charges"), [("IN", 0), ("DE", 2)])
def test_a_card_that_stripe_never_retries_is_not_retried(
    business: Business, shop: Shop, country: str, charges: int
) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    shop.method["card"]["country"] = country
    failed(business)
    run_retries(business)
    assert len(shop.charged) == charges


PAID_OUTSIDE = {"payment": {"type": "payment_record", "payment_record": "pr_1"}, "status": "paid", "created": 9}
CANCELLED = payment("pi_2", is_default=False, status="canceled", created=9)


@pytest.mark.parametrize(
    "payments",
    [
        [*other, payment("pi_1", is_default=default)]
        for other in ([], [payment("", is_default=False) | PAID_OUTSIDE], [CANCELLED])
        for default in (True, False)
    ],
)
@pytest.mark.parametrize(("status", "state"), [("processing", "pending"), ("requires_payment_method", "declined")])
def test_of_several_payments_of_an_invoice_the_one_that_stripe_collects_counts(
    business: Business, shop: Shop, payments: list[dict[str, Any]], status: str, state: str
) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h"
    shop.payments = payments
    shop.error, shop.intent = {"code": "card_declined", "decline_code": "stolen_card"}, {"status": status}
    failed(business)
    run_retries(business)
    assert (states(business), shop.charged) == ([state], [])


def test_a_stolen_card_of_a_customer_that_is_an_account_is_not_charged_again(business: Business, shop: Shop) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d,3d,5d"
    shop.invoice |= {"customer": None, "customer_account": "acct_9"}
    shop.error = {"code": "card_declined", "decline_code": "stolen_card"}
    failed(business, customer=None, customer_account="acct_9")
    run_retries(business)
    assert shop.charged == []


@pytest.mark.parametrize(
    ("code", "method", "charges"),
    [
        ("stolen_card", {"type": "card", "card": {}}, 0),
        ("insufficient_funds", {"type": "sepa_debit", "sepa_debit": {}}, 2),
        ("insufficient_funds", {"type": "card", "card": {}}, 4),
    ],
)
def test_a_key_that_may_not_read_customers_does_not_lift_the_limits_of_a_decline(
    business: Business, shop: Shop, code: str, method: dict[str, Any], charges: int
) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d,3d,5d"
    business.now = business.now.fromtimestamp(1_772_000_010, business.now.tzinfo)
    shop.error, shop.method, shop.may_read_customers = {"code": code}, {"id": "pm_1", **method}, False
    failed(business)
    run_retries(business)
    assert len(shop.charged) == charges


def test_what_another_site_sells_is_neither_retried_nor_suspended(business: Business, shop: Shop) -> None:
    business.settings |= {"PAYMENT_RETRY_SCHEDULE": "1h", "OWN_PRODUCTS": "prod_ours"}
    price = {"id": "price_1", "object": "price", "product": "prod_of_another_site", "type": "recurring"}
    items = {"object": "list", "data": [{"id": "si_1", "price": price, "quantity": 1}], "has_more": False}
    shop.subscription["items"] = items
    failed(business)
    run_retries(business)
    assert (states(business), shop.charged, business.all(select(PaymentGrace))) == ([], [], [])


def test_a_first_invoice_that_our_retry_pays_after_the_checkout_failed_gives_what_was_bought(
    business: Business, shop: Shop
) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h"
    shop.invoice["billing_reason"], shop.good = "subscription_create", {"pm_1"}
    subscription("created", 10, 0, "incomplete").to(business)
    checkout("completed", 11, 1, payment_status="unpaid").to(business)
    checkout("async_payment_failed", 12, 400_000, payment_status="unpaid").to(business)
    (retry,) = [
        job for job in failed(business, billing_reason="subscription_create") if job.task.endswith("retry_payment")
    ]
    owed = business.follow(retry_payment, retry, {"id": "evt_1"})
    assert shop.charged == ["in_1:retry:1"]
    (complete,) = [job for job in owed if job.task == "tasks.fulfilment.complete"]
    business.follow(complete_order, complete, {"id": "evt_1"})
    assert business.one(select(Order.state)) == "fulfilled"
    assert [row.product for row in business.all(select(Entitlement)) if row.revoked_at is None] == ["club"]
