"""A new payment method of a customer pays what is open at once, and once; never beside an attempt of Stripe's."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from tasks.billing import payment_methods
from tasks.billing.payments import end_grace_period, retry_payment
from tasks.handler import FollowUp
from tasks.models import PaymentGrace, PaymentRetry, Subscription
from tests.integration.tasks.billing.test_our_retries import HOUR, Shop, failed, run_retries, shop, states
from tests.support.business import Business
from tests.support.lives import T0, Happened, invoice, subscription

assert shop
CARD = {"exp_month": 1, "exp_year": 2030, "last4": "4444"}


def attached(number: int = 20, method: str = "pm_2") -> Happened:
    about = {"id": method, "object": "payment_method", "customer": "cus_1", "type": "card", "card": CARD}
    return Happened(f"evt_{number}", "payment_method.attached", T0 + number, about)


def now_default(business: Business, method: str = "pm_2", number: int = 21, **previous: Any) -> list[FollowUp]:
    """customer.updated, after a change of the default payment method, unless other `previous` attributes are given."""
    about = {"id": "cus_1", "object": "customer", "invoice_settings": {"default_payment_method": method}}
    before = previous or {"invoice_settings": {"default_payment_method": "pm_1"}}
    data = {"object": about, "previous_attributes": before}
    body = {"id": f"evt_{number}", "type": "customer.updated", "created": T0 + number, "data": data}
    return business.run(payment_methods.customer_updated, body, event_id=f"evt_{number}")


def test_a_new_default_method_pays_the_open_invoice_at_once_and_once(business: Business, shop: Shop) -> None:
    failed(business)
    shop.default = "pm_2"
    (job,) = now_default(business)
    assert (job.task, job.delay_seconds) == ("tasks.payments.retry_payment", 0)
    assert job.ordering_key == "stripe:cus_1"
    run_retries(business)
    assert now_default(business, number=22) == attached().to(business) == []
    assert shop.charged == ["in_1:retry:1"]


def test_a_method_that_is_attached_pays_when_it_becomes_the_default(business: Business, shop: Shop) -> None:
    failed(business)
    attached().to(business)
    run_retries(business)
    assert (states(business), shop.charged) == (["cancelled"], [])
    shop.default = "pm_2"
    now_default(business)
    run_retries(business)
    assert (states(business), shop.charged) == (["cancelled", "declined"], ["in_1:retry:2"])


def test_a_card_that_its_bank_has_renewed_pays_again_under_its_id(business: Business, shop: Shop) -> None:
    failed(business)
    about = {"id": "pm_1", "object": "payment_method", "customer": "cus_1", "card": CARD}
    for number in (20, 21):
        event = Happened(f"evt_{number}", "payment_method.automatically_updated", T0 + number, about)
        event.to(business)
        run_retries(business)
    assert shop.charged == ["in_1:retry:1"]


def test_the_card_that_was_declined_is_no_new_one(business: Business, shop: Shop) -> None:
    failed(business)
    now_default(business, "pm_1", invoice_settings={"default_payment_method": "pm_0"})
    run_retries(business)
    assert (states(business), shop.charged) == (["cancelled"], [])


def test_another_change_of_the_customer_pays_nothing(business: Business, shop: Shop) -> None:
    failed(business)
    assert now_default(business, email="old@example.com") == []


@pytest.mark.parametrize(("in_seconds", "charges"), [(HOUR // 2, 0), (3 * HOUR, 1)])
def test_an_attempt_of_stripes_that_is_due_within_the_hour_is_waited_for(
    business: Business, shop: Shop, in_seconds: int, charges: int
) -> None:
    shop.invoice["next_payment_attempt"] = int(business.now.timestamp()) + in_seconds
    failed(business)
    shop.default = "pm_2"
    now_default(business)
    run_retries(business)
    assert len(shop.charged) == charges


@pytest.mark.parametrize("status", ["canceled", "incomplete", "incomplete_expired"])
def test_nothing_is_paid_for_a_subscription_that_is_over_or_was_never_begun(
    business: Business, shop: Shop, status: str
) -> None:
    failed(business)
    shop.subscription["status"], shop.default = status, "pm_2"
    subscription("updated", 4, 20, status).to(business)
    now_default(business)
    run_retries(business)
    assert shop.charged == []


def test_after_the_suspension_a_new_card_restores_the_subscription(business: Business, shop: Shop) -> None:
    failed(business)
    grace = business.one(select(PaymentGrace))
    business.now = grace.due_at
    args: dict[str, str | int] = {"invoice": "in_1", "number": 1}
    business.run(end_grace_period, {"id": "evt_1"}, effect="end", args=args)
    assert business.one(select(Subscription.status)) == "suspended"
    shop.default, shop.good = "pm_2", {"pm_2"}
    (job,) = now_default(business)
    business.follow(retry_payment, job, {"id": "evt_21"}, event_id="evt_21")
    assert (shop.charged, states(business)) == (["in_1:retry:1"], ["paid"])
    assert business.one(select(Subscription.status)) == "active"


def test_a_schedule_goes_on_after_a_new_card_was_declined(business: Business, shop: Shop) -> None:
    business.settings["PAYMENT_RETRY_SCHEDULE"] = "1h,1d"
    failed(business)
    shop.default = "pm_2"
    now_default(business)
    run_retries(business)
    assert shop.charged == ["in_1:retry:1", "in_1:retry:2", "in_1:retry:3"]
    rows = business.all(select(PaymentRetry).order_by(PaymentRetry.number))
    assert [(row.state, row.method) for row in rows] == [
        ("declined", None),
        ("declined", "pm_2"),
        ("declined", None),
    ]


def test_without_a_key_nothing_is_paid(business: Business) -> None:
    invoice("payment_failed", 1, 10).to(business)
    assert now_default(business) == attached().to(business) == []


def test_an_invoice_that_is_paid_by_hand_is_not_charged(business: Business, shop: Shop) -> None:
    shop.invoice |= {"collection_method": "send_invoice", "due_date": T0}
    failed(business, collection_method="send_invoice", due_date=T0)
    shop.default = "pm_2"
    assert now_default(business) == []
    assert shop.charged == []
