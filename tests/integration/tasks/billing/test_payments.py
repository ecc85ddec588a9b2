"""Failed payments, on both databases, against a real localstripe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from inbox.errors import PermanentError, TransientError
from tasks.billing.payments import payment_failed, retry_payment
from tasks.handler import FollowUp
from tasks.ingest import identify_stripe_event
from tasks.models import Invoice, Notification, PaymentFailure, PaymentRetry, Subscription
from tasks.notifications.notify import send
from tests.support.business import NOW, Business, at_once
from tests.support.messages import says
from tests.support.peers import Answer, Peer, Stripe

HOURS = (3600, 2 * 3600)


def failure(created: int = 1_700_000_000, **fields: Any) -> dict[str, Any]:
    invoice = {
        "id": "in_1",
        "object": "invoice",
        "customer": "cus_1",
        "customer_email": "ada@example.com",
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1", "metadata": {}}},
        "amount_due": 1999,
        "currency": "eur",
        "attempt_count": 1,
        "hosted_invoice_url": "https://invoice.stripe.com/i/1",
        **fields,
    }
    return {
        "id": "evt",
        "object": "event",
        "type": "invoice.payment_failed",
        "created": created,
        "data": {"object": invoice},
    }


def by_api(business: Business, url: str) -> None:
    business.settings |= {
        "STRIPE_API_KEY": Stripe.KEY,
        "STRIPE_API_BASE": url,
        "PAYMENT_RETRY_SCHEDULE": "1h,2h",
    }


@pytest.fixture
def unknowing() -> Iterator[str]:
    """A Stripe that knows none of our objects: the events are used as they are."""
    missing = b'{"error": {"type": "invalid_request_error", "code": "resource_missing"}}'
    with Peer(lambda _: Answer(404, body=missing)) as peer:
        yield peer.url


def planned(follow_ups: list[FollowUp]) -> list[FollowUp]:
    return [f for f in follow_ups if f.task == "tasks.payments.retry_payment"]


def retries(business: Business) -> list[tuple[int, str, str | None]]:
    rows = business.all(select(PaymentRetry).order_by(PaymentRetry.number))
    return [(row.number, row.state, row.decline_code) for row in rows]


def failed_invoice(business: Business, stripe: Stripe, card: str) -> tuple[str, list[FollowUp]]:
    """A real unpaid invoice, and the jobs planned for its failure event."""
    by_api(business, stripe.url)
    customer = stripe.customer(card)
    invoice = stripe.invoice(customer)
    follow_ups = business.run(payment_failed, failure(id=invoice, customer=customer))
    return invoice, planned(follow_ups)


def test_a_failure_is_recorded_makes_the_subscription_past_due_and_notifies_the_customer(business: Business) -> None:
    follow_ups = business.run(payment_failed, failure())
    row = business.one(select(PaymentFailure))
    assert (row.invoice, row.customer, row.subscription) == ("in_1", "cus_1", "sub_1")
    assert (row.amount_due, row.currency, row.attempt_count) == (1999, "eur", 1)
    assert row.hosted_invoice_url == "https://invoice.stripe.com/i/1"
    assert business.one(select(Subscription.status)) == "past_due"
    notification = business.one(select(Notification))
    assert (notification.kind, notification.about, notification.state) == ("payment_failed", "in_1", "owed")
    assert says(business, "payment_failed")["amount"] == "19.99 EUR"
    args = {"notification": notification.id}
    expected = FollowUp("notify.payment_failed.in_1.1", "tasks.notifications.send", args, ordering_key=notification.id)
    assert follow_ups == [expected]
    assert (notification.id, notification.event) == ("notify:payment_failed:in_1:1", "evt_1")


@pytest.mark.parametrize(("number", "named"), [("SHOP-0007", "SHOP-0007"), (None, "in_1")])
def test_a_message_has_the_number_printed_on_the_invoice(business: Business, number: str | None, named: str) -> None:
    business.run(payment_failed, failure(number=number))
    assert says(business, "payment_failed")["invoice"] == named


def test_no_follow_up_holds_an_address(business: Business, unknowing: str) -> None:
    by_api(business, unknowing)
    follow_ups = business.run(payment_failed, failure())
    assert [follow_up.effect for follow_up in follow_ups] == [
        "notify.payment_failed.in_1.1",
        "payments.retry_payment.in_1.1",
    ]
    assert "ada" not in str(follow_ups)


def test_a_rerun_changes_nothing_and_returns_the_same_jobs(business: Business, unknowing: str) -> None:
    by_api(business, unknowing)
    first = business.run(payment_failed, failure())
    assert business.run(payment_failed, failure()) == first
    assert len(business.all(select(PaymentFailure))) == len(business.all(select(Notification))) == 1


def test_two_concurrent_runs_have_one_effect(business: Business, unknowing: str) -> None:
    by_api(business, unknowing)
    answers = at_once(lambda n: business.run(payment_failed, failure()), 2)
    assert answers[0] == answers[1]
    for table in (PaymentFailure, Notification, PaymentRetry, Subscription):
        assert len(business.all(select(table))) == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"customer": None}, "data.object.customer"),
        ({"id": ""}, "data.object.id"),
        ({"amount_due": None}, "data.object.amount_due"),
        ({"currency": None}, "data.object.currency"),
        ({"amount_due": "1999"}, "amount_due"),
    ],
)
def test_a_payload_without_a_required_field_is_a_dead_letter_and_changes_nothing(
    business: Business, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(PermanentError, match=named):
        business.run(payment_failed, failure(**fields))
    assert business.all(select(PaymentFailure)) == business.all(select(Notification)) == []


@pytest.mark.parametrize("order", [("evt_a", "evt_b"), ("evt_b", "evt_a")])
def test_events_of_one_second_end_in_the_same_row_in_any_order(business: Business, order: tuple[str, str]) -> None:
    for event_id in order:
        business.run(payment_failed, failure(100, hosted_invoice_url=event_id), event_id=event_id)
    row = business.one(select(Invoice))
    assert (row.seen_created, row.seen_event, row.hosted_invoice_url) == (100, "evt_b", "evt_b")


def test_two_failures_of_one_invoice_at_once_plan_one_retry(business: Business, unknowing: str) -> None:
    by_api(business, unknowing)
    body = failure(100, parent=None)  # no subscription: its row would serialize the two
    answers = at_once(lambda n: business.run(payment_failed, {**body, "created": n}, event_id=f"evt_{n}"), 4)
    assert len(planned([follow_up for answer in answers for follow_up in answer])) == 1


def test_a_failure_that_arrives_after_a_newer_one_of_its_invoice_is_recorded_without_a_message(
    business: Business,
) -> None:
    business.run(payment_failed, failure(200, attempt_count=2), event_id="evt_new")
    assert business.run(payment_failed, failure(100), event_id="evt_old") == []
    assert len(business.all(select(Notification))) == 1
    assert len(business.all(select(PaymentFailure))) == 2


def test_an_invoice_without_a_subscription_is_a_failure_too(business: Business) -> None:
    assert len(business.run(payment_failed, failure(parent=None))) == 1
    assert business.all(select(Subscription)) == []


def test_without_an_address_or_an_api_key_the_administrator_is_notified(business: Business) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = "json://127.0.0.1:9/{email}"
    (mail,) = business.run(payment_failed, failure(customer_email=None))
    (told,) = business.follow(send, mail)
    assert told.effect == f"notify.no_address.{mail.args['notification']}"
    (row,) = business.all(select(Notification).filter_by(audience="admin"))
    assert row.params == {"message": "payment_failed", "customer": "cus_1", "event": "evt_1"}


def test_an_unreachable_stripe_is_transient_and_changes_nothing(business: Business) -> None:
    by_api(business, "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="Stripe could not be reached"):
        business.run(payment_failed, failure())
    assert business.all(select(PaymentFailure)) == []


@pytest.mark.parametrize("changed", [{"PAYMENT_RETRY_SCHEDULE": "off"}, {"STRIPE_API_KEY": ""}])
def test_without_a_schedule_or_a_key_no_retry_is_planned(
    business: Business, unknowing: str, changed: dict[str, str]
) -> None:
    by_api(business, unknowing)
    business.settings |= changed
    assert planned(business.run(payment_failed, failure())) == []


def test_a_retry_is_planned_by_the_schedule_once_however_many_events_report_the_failure(
    business: Business, unknowing: str
) -> None:
    by_api(business, unknowing)
    (retry,) = planned(business.run(payment_failed, failure(100), event_id="evt_1"))
    assert (retry.args, retry.delay_seconds) == ({"invoice": "in_1", "number": 1}, 3600)
    assert planned(business.run(payment_failed, failure(200), event_id="evt_2")) == []
    assert retries(business) == [(1, "planned", None)]


@pytest.mark.parametrize("account", [{}, {"account": "acct_1"}, {"context": "acct_1"}])
def test_a_retry_never_runs_beside_an_event_of_the_same_customer(
    business: Business, unknowing: str, account: dict[str, str]
) -> None:
    by_api(business, unknowing)
    body = failure() | account
    (retry,) = planned(business.run(payment_failed, body))
    assert retry.ordering_key == identify_stripe_event(json.dumps(body)).ordering_key != ""


def test_a_retry_charges_the_invoice(business: Business, stripe: Stripe) -> None:
    invoice, (retry,) = failed_invoice(business, stripe, "pm_card_visa")
    assert [owed.effect for owed in business.follow(retry_payment, retry)] == [f"notify.payment_recovered.{invoice}"]
    assert retries(business) == [(1, "paid", None)]
    assert stripe.get(f"invoices/{invoice}")["status"] == "paid"


def test_an_invoice_paid_in_the_meantime_is_not_charged_again(business: Business, stripe: Stripe) -> None:
    invoice, (retry,) = failed_invoice(business, stripe, "pm_card_visa")
    customer = stripe.post(f"invoices/{invoice}/pay")["customer"]
    assert planned(business.follow(retry_payment, retry)) == []
    assert retries(business) == [(1, "paid", None)]
    assert stripe.attempts(customer) == 1


def test_a_declined_card_is_an_outcome_and_the_next_retry_is_planned(business: Business, stripe: Stripe) -> None:
    _, (retry,) = failed_invoice(business, stripe, "pm_card_chargeCustomerFail")
    (second,) = business.follow(retry_payment, retry)
    assert (second.args["number"], second.delay_seconds) == (2, 7200)
    assert second.effect != retry.effect
    assert retries(business) == [(1, "declined", "card_declined"), (2, "planned", None)]


def test_a_rerun_of_a_retry_with_a_recorded_outcome_charges_nothing(business: Business, stripe: Stripe) -> None:
    invoice, (retry,) = failed_invoice(business, stripe, "pm_card_chargeCustomerFail")
    business.follow(retry_payment, retry)
    business.follow(retry_payment, retry)
    assert stripe.attempts(stripe.get(f"invoices/{invoice}")["customer"]) == 1


def as_stripe_has_it(request: Request, status: str = "open") -> dict[str, Any]:
    """What a GET finds, by the newest API version."""
    if "/subscriptions/" in request.path:
        return {"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "past_due"}
    if "/invoice_payments" in request.path:
        payment = {"type": "payment_intent", "payment_intent": "pi_1"}
        return {"object": "list", "data": [{"id": "inpay_1", "created": 1, "status": "open", "payment": payment}]}
    if "/payment_intents/" in request.path:
        error = {"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}
        return {"id": "pi_1", "status": "requires_payment_method", "last_payment_error": error}
    return dict(failure()["data"]["object"]) | {"status": status}


def refusing(status: int, error: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    """A Stripe whose invoices are open and cannot be paid."""

    def reply(request: Request) -> Answer:
        if request.method == "GET":
            return Answer(200, body=json.dumps(as_stripe_has_it(request)).encode())
        return Answer(status, headers or {}, json.dumps({"error": error}).encode())

    return reply


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (
            402,
            {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"},
            "insufficient_funds",
        ),
        (402, {"type": "card_error", "code": "expired_card"}, "expired_card"),
        (400, {"type": "invalid_request_error", "code": "missing"}, "missing"),
    ],
)
def test_a_refusal_is_recorded_with_the_reason_that_stripe_gives(
    business: Business, status: int, error: dict[str, Any], code: str
) -> None:
    with Peer(refusing(status, error)) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        business.follow(retry_payment, retry)
    assert retries(business)[0] == (1, "declined", code)


def test_an_invoice_paid_during_our_attempt_is_no_decline(business: Business) -> None:
    tried: list[str] = []

    def reply(request: Request) -> Answer:
        if request.method == "GET":
            return Answer(200, body=json.dumps(as_stripe_has_it(request, "paid" if tried else "open")).encode())
        tried.append(request.path)
        return Answer(400, body=b'{"error": {"type": "invalid_request_error", "code": "invoice_already_paid"}}')

    with Peer(reply) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        follow_ups = business.follow(retry_payment, retry)
    assert retries(business) == [(1, "paid", None)]
    assert [follow_up.task for follow_up in follow_ups] == ["tasks.notifications.send"]  # the message of recovery


def test_a_payment_whose_response_was_lost_is_recorded_as_paid(business: Business) -> None:
    paid: list[str] = []

    def reply(request: Request) -> Answer:
        if request.method == "GET":
            return Answer(200, body=json.dumps(as_stripe_has_it(request, "paid" if paid else "open")).encode())
        paid.append(request.path)
        return Answer(500, body=b"{}")

    with Peer(reply) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        with pytest.raises(TransientError):
            business.follow(retry_payment, retry)
        business.follow(retry_payment, retry)
    assert retries(business) == [(1, "paid", None)]
    assert len(paid) == 1


@pytest.mark.parametrize("status", ["void", "uncollectible"])
def test_a_retry_of_an_invoice_that_was_written_off_stops(business: Business, status: str) -> None:
    now = ["open"]
    with Peer(lambda request: Answer(200, body=json.dumps(as_stripe_has_it(request, now[-1])).encode())) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        now.append(status)
        business.follow(retry_payment, retry)
        assert not [request for request in peer.requests if request.method == "POST"]
    assert retries(business) == [(1, "stopped", None)]


def test_by_a_new_api_version_the_decline_code_is_found_among_the_payments(business: Business) -> None:
    with Peer(refusing(500, {"type": "api_error"})) as peer:
        by_api(business, peer.url)
        business.run(payment_failed, failure())
    assert business.one(select(PaymentFailure.decline_code)) == "lost_card"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (
            {"last_finalization_error": {"code": "tax_id_invalid"}},
            "tax_id_invalid",
        ),
        ({"last_finalization_error": {"type": "idempotency_error"}, "charge": "ch_1", "payment_intent": "pi_1"}, None),
        ({}, None),
    ],
)
def test_without_an_api_key_the_decline_code_is_that_of_the_event(
    business: Business, fields: dict[str, Any], code: str | None
) -> None:
    business.run(payment_failed, failure(**fields))
    assert business.one(select(PaymentFailure.decline_code)) == code


def keys(peer: Peer) -> list[str]:
    """The idempotency keys of the requests to pay the invoice."""
    return [request.headers["Idempotency-Key"] for request in peer.requests if request.method == "POST"]


def test_every_attempt_of_one_retry_has_the_same_idempotency_key(business: Business) -> None:
    with Peer(refusing(429, {"type": "rate_limit_error"})) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        for _ in range(2):
            with pytest.raises(TransientError, match="Stripe answered 429"):
                business.follow(retry_payment, retry)
        assert keys(peer) == ["in_1:retry:1"] * 2
    assert retries(business) == [(1, "planned", None)]


@pytest.mark.parametrize(("number", "said"), [(1, {}), (4, {}), (14, {"Stripe-Should-Retry": "true"})])
def test_a_temporary_5xx_is_retried_soon_under_the_same_key(
    business: Business, number: int, said: dict[str, str]
) -> None:
    business.number = number
    with Peer(refusing(503, {"type": "api_error"}, said)) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        for _ in range(2):
            with pytest.raises(TransientError, match="Stripe answered 503") as error:
                business.follow(retry_payment, retry)
            assert error.value.retry_after_seconds == 0
        assert keys(peer) == ["in_1:retry:1"] * 2


def test_after_a_lasting_5xx_an_invoice_still_open_a_day_later_is_charged_under_a_new_key(
    business: Business,
) -> None:
    """For a day the old key returns the stored 5xx, and whether there was a charge is unknown."""
    business.number = 5
    with Peer(refusing(500, {"type": "api_error"})) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        for hours, tries in ((0, 1), (0, 1), (24, 1), (26, 2), (50, 2), (52, 3)):
            business.now = NOW + timedelta(hours=hours)
            with pytest.raises(TransientError, match="Stripe answered 5xx") as error:
                business.follow(retry_payment, retry)
            assert len(keys(peer)) == tries
            assert 0 < error.value.retry_after_seconds <= 25 * 3600
        assert keys(peer) == ["in_1:retry:1", "in_1:retry:1:1", "in_1:retry:1:2"]
    assert retries(business) == [(1, "planned", None)]


def test_a_pending_payment_is_not_retried(business: Business) -> None:
    def reply(request: Request) -> Answer:
        found = as_stripe_has_it(request)
        return Answer(
            200,
            body=json.dumps(found | {"status": "processing"} if "payment_intents" in request.path else found).encode(),
        )

    with Peer(reply) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        business.follow(retry_payment, retry)
        assert keys(peer) == []
    assert retries(business) == [(1, "pending", None)]


@pytest.mark.parametrize("where", ["/customers/", "/subscriptions/", "/invoices/"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "card_declined", "decline_code": "stolen_card"}, "stolen_card"),
        ({"code": "authentication_required"}, "authentication_required"),
        (
            {"code": "card_declined", "decline_code": "generic_decline", "advice_code": "do_not_try_again"},
            "generic_decline",
        ),
        ({"code": "card_declined", "decline_code": "do_not_honor"}, None),
    ],
)
@pytest.mark.parametrize("card", ["pm_declined", "pm_new", None])
def test_a_card_with_a_final_decline_is_not_charged_again_until_it_is_replaced(
    business: Business, where: str, error: dict[str, Any], code: str | None, card: str | None
) -> None:
    def reply(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(402, body=b'{"error": {"type": "card_error", "code": "card_declined"}}')
        found = as_stripe_has_it(request)
        if "/payment_intents/" in request.path:
            found["last_payment_error"] = {**error, "payment_method": {"id": "pm_declined"}}
        elif "/customers/" in request.path:
            found["invoice_settings"] = {"default_payment_method": card if where in request.path else "pm_elsewhere"}
        elif where in request.path:
            found["default_payment_method"] = card
        return Answer(200, body=json.dumps(found).encode())

    with Peer(reply) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        (second,) = planned(business.follow(retry_payment, retry))
        hopeless = code is not None and card == "pm_declined"
        assert keys(peer) == ([] if hopeless else ["in_1:retry:1"])
    assert second.args["number"] == 2
    assert retries(business)[0] == (1, "declined", code if hopeless else "card_declined")


def test_a_rate_limit_is_waited_out_as_long_as_stripe_says(business: Business) -> None:
    with Peer(refusing(429, {"type": "rate_limit_error"}, {"Retry-After": "17"})) as peer:
        by_api(business, peer.url)
        (retry,) = planned(business.run(payment_failed, failure()))
        with pytest.raises(TransientError, match="Stripe answered 429") as error:
            business.follow(retry_payment, retry)
    assert error.value.retry_after_seconds == 17


def test_a_rolled_api_key_is_transient_and_the_error_names_the_setting(business: Business, stripe: Stripe) -> None:
    _, (retry,) = failed_invoice(business, stripe, "pm_card_visa")
    business.settings["STRIPE_API_KEY"] = "wrong"
    with pytest.raises(TransientError, match="STRIPE_API_KEY"):
        business.follow(retry_payment, retry)
    business.settings["STRIPE_API_KEY"] = Stripe.KEY
    business.follow(retry_payment, retry)
    assert retries(business) == [(1, "paid", None)]


def test_a_retry_whose_job_was_lost_gets_another_job_a_day_later_and_runs_once(business: Business) -> None:
    with Peer(refusing(402, {"type": "card_error", "code": "card_declined"})) as peer:
        by_api(business, peer.url)
        (lost,) = planned(business.run(payment_failed, failure()))
        for hours, owed in ((2, 0), (26, 1), (27, 0)):
            business.now = NOW + timedelta(hours=hours)
            again = planned(business.run(payment_failed, failure(hours), event_id=f"evt_{hours}"))
            assert [(job.args, job.delay_seconds) for job in again] == [(lost.args, 0)] * owed
        business.run(retry_payment, effect="owed again", args=lost.args)
        business.follow(retry_payment, lost)
        assert keys(peer) == ["in_1:retry:1"]
    assert retries(business)[0] == (1, "declined", "card_declined")
