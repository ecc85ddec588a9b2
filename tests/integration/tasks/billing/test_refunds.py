"""Refunds, disputes and deleted customers, on both databases; before the order and after it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from dev.simulators.http import Request
from inbox.errors import PermanentError, TransientError
from tasks.billing import customers, disputes, refunds
from tasks.billing.refunds import charge_refunded, refund_changed
from tasks.handler import Handler
from tasks.models import AppMessage, Charge, Dispute, Entitlement, Notification, Order
from tasks.orders.fulfilment import async_payment_failed, async_payment_succeeded, checkout_completed
from tests.integration.tasks.orders.test_fulfilment import UNPAID, checkout
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.lives import T0, invoice
from tests.support.lives import refund as lives_refund
from tests.support.peers import Answer, Peer, Stripe
from tests.support.searching import searching

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
REVOKE = {"ACCESS_AFTER_REFUND": "revoke"}
NEXT = itertools.count(1)


def refund(amount_refunded: int = 4900, created: int = 1_700_000_100, **fields: Any) -> dict[str, Any]:
    charge = {
        "id": "ch_1",
        "object": "charge",
        "amount": 4900,
        "amount_captured": 4900,
        "amount_refunded": amount_refunded,
        "billing_details": {"email": "ada@example.com"},
        "captured": True,
        "created": 1_700_000_000,
        "currency": "usd",
        "customer": "cus_1",
        "disputed": False,
        "payment_intent": "pi_1",
        "refunded": amount_refunded == 4900,
        "status": "succeeded",
        **fields,
    }
    return {"id": "evt", "type": "charge.refunded", "created": created, "data": {"object": charge}}


def dispute(
    status: str | None = "needs_response", created: int = 1_700_000_200, begun: int = 1_700_000_200, **fields: Any
) -> dict[str, Any]:
    about = {
        "id": "dp_1",
        "object": "dispute",
        "amount": 4900,
        "charge": "ch_1",
        "created": begun,
        "currency": "usd",
        "evidence_details": {"due_by": 1_700_600_000, "has_evidence": False, "past_due": False, "submission_count": 0},
        "is_charge_refundable": False,
        "payment_intent": "pi_1",
        "reason": "fraudulent",
        "status": status,
        **fields,
    }
    return {"id": "evt", "type": "charge.dispute.created", "created": created, "data": {"object": about}}


def failed_refund(created: int = 1_700_000_300, **fields: Any) -> dict[str, Any]:
    about = {
        "id": "re_1",
        "object": "refund",
        "amount": 4900,
        "charge": "ch_1",
        "created": 1_700_000_100,
        "currency": "usd",
        "failure_reason": "expired_or_canceled_card",
        "payment_intent": "pi_1",
        "status": "failed",
        **fields,
    }
    return {"id": "evt", "type": "refund.failed", "created": created, "data": {"object": about}}


def deleted(customer: str = "cus_1") -> dict[str, Any]:
    return {"id": "evt", "type": "customer.deleted", "created": 1, "data": {"object": {"id": customer}}}


def run(business: Business, handler: Handler, body: dict[str, Any]) -> list[str]:
    """The follow-ups of one more event."""
    return [owed.effect for owed in business.run(handler, body, event_id=f"evt_{next(NEXT)}")]


def in_force(business: Business) -> bool:
    return business.one(select(Entitlement.revoked_at)) is None


def asking(peer: Peer) -> dict[str, str]:
    return {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}


# --- refunds ----------------------------------------------------------------------------------------------------------


def test_a_full_refund_revokes_and_a_partial_one_does_not(business: Business) -> None:
    business.settings = APP
    run(business, checkout_completed, checkout())
    assert run(business, charge_refunded, refund(1000)) == []
    assert in_force(business)
    assert run(business, charge_refunded, refund(4900, created=1_700_000_101)) == ["access.revoked.cus_1.3"]
    assert not in_force(business)
    charge = business.one(select(Charge))
    assert (charge.amount, charge.amount_refunded, charge.refunded, charge.currency) == (4900, 4900, True, "usd")


def test_refunds_in_any_order_end_with_the_greatest_amount(business: Business) -> None:
    for amount, created in ((4900, 101), (1000, 99), (2000, 101)):
        run(business, charge_refunded, refund(amount, created=created))
    assert business.one(select(Charge.amount_refunded)) == 4900


def test_a_refund_before_its_order_is_known_counts(business: Business) -> None:
    business.settings = APP
    run(business, charge_refunded, refund())
    assert run(business, checkout_completed, checkout()) == ["notify.receipt", "order.fulfilled.cus_1.1"]
    assert not in_force(business)
    assert business.one(select(Order.state)) == "fulfilled"


def test_a_subscriptions_refund_is_found_by_the_invoice_that_an_old_charge_names(business: Business) -> None:
    business.settings = REVOKE
    run(business, checkout_completed, checkout(payment_intent=None, subscription="sub_1", invoice="in_1"))
    run(business, charge_refunded, refund(payment_intent="pi_9", invoice="in_1"))
    assert not in_force(business)


GONE = Answer(404, body=b'{"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "Gone"}}')


def stripe_with_an_invoice(request: Request) -> Answer:
    """pi_9 paid in_9, an invoice of sub_1, with the charge ch_1; another charge belongs to pi_7."""
    if request.path.startswith("/v1/disputes"):
        return GONE
    invoice = {
        "id": "in_9",
        "object": "invoice",
        "customer": "cus_1",
        "status": "paid",
        "amount_due": 4900,
        "currency": "usd",
        "billing_reason": "subscription_cycle",
        "created": 1_700_000_000,
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1", "metadata": {}}},
    }
    payment = {"id": "inpay_1", "object": "invoice_payment", "invoice": invoice}
    found: dict[str, Any] = invoice
    if request.path.startswith("/v1/invoice_payments"):
        data = [payment] if "pi_9" in request.path else []
        found = {"object": "list", "data": data, "has_more": False, "url": "/v1/invoice_payments"}
    if request.path.startswith("/v1/charges"):
        found = refund(payment_intent="pi_9" if "ch_1" in request.path else "pi_7")["data"]["object"]
    return Answer(200, body=json.dumps(found).encode())


def test_a_refund_revokes_the_period_it_paid_for_and_not_a_later_one(business: Business) -> None:
    """A subscription's first charge is refunded in full, and the next period is paid."""
    business.settings = APP | REVOKE
    run(business, checkout_completed, checkout(payment_intent=None, subscription="sub_1", invoice="in_1"))
    invoice("paid", 1, 10, next_payment_attempt=None).to(business)
    revoked = [owed.effect for owed in lives_refund(2, 20, made=1, invoice="in_1").to(business)]
    assert revoked == ["access.revoked.cus_1.3"]
    assert invoice("paid", 3, 60, next_payment_attempt=None).to(business) == [], "of the same invoice, once more"
    assert not in_force(business)
    unpaid = invoice("payment_failed", 4, 70, id="in_2", created=T0 + 69)
    unpaid.to(business)
    assert not in_force(business)
    renewed = invoice("paid", 5, 80, id="in_2", created=T0 + 69).to(business)
    assert "access.granted.cus_1.4" in [owed.effect for owed in renewed]
    assert in_force(business)
    run(business, charge_refunded, refund(id="ch_old", payment_intent=None, invoice="in_1", created=T0 + 90))
    assert in_force(business), "an older charge, refunded after the newer invoice was paid"
    lives_refund(6, 90, made=81, invoice="in_2").to(business)
    assert not in_force(business), "the newest charge too"


def test_an_old_invoice_paid_late_is_not_the_latest_renewal(business: Business) -> None:
    """Its charge is the newest, but its period was over before the newest invoice."""
    business.settings = REVOKE
    run(business, checkout_completed, checkout(payment_intent=None, subscription="sub_1", invoice="in_1"))
    invoice("payment_failed", 1, 10).to(business)
    invoice("paid", 2, 40, id="in_2", created=T0 + 39, next_payment_attempt=None).to(business)
    invoice("paid", 3, 50, next_payment_attempt=None).to(business)
    lives_refund(4, 60, made=50, invoice="in_1").to(business)
    assert in_force(business)
    run(business, disputes.dispute_changed, dispute("lost", T0 + 70, begun=T0 + 65, charge="ch_4", payment_intent=None))
    assert in_force(business), "its charge is disputed, too"
    lives_refund(5, 80, made=40, invoice="in_2").to(business)
    assert not in_force(business), "the newest invoice"


@pytest.mark.parametrize("nothing", [{"amount_due": 0, "total": 0}, {"amount_due": 0, "total": -500}])
def test_a_later_invoice_of_zero_restores_nothing(business: Business, nothing: dict[str, int]) -> None:
    """A plan change after the refund creates one, which counts as paid at once."""
    business.settings = REVOKE
    run(business, checkout_completed, checkout(payment_intent=None, subscription="sub_1", invoice="in_1"))
    invoice("paid", 1, 10, next_payment_attempt=None).to(business)
    lives_refund(2, 20, made=1, invoice="in_1").to(business)
    invoice("paid", 3, 30, id="in_2", created=T0 + 29, next_payment_attempt=None, **nothing).to(business)
    assert not in_force(business)
    by_credit = {"amount_due": 0, "total": 1999}
    invoice("paid", 5, 40, id="in_3", created=T0 + 39, next_payment_attempt=None, **by_credit).to(business)
    assert in_force(business), "what the customer's credit has paid is paid for"


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (charge_refunded, refund(payment_intent="pi_9")),
        (charge_refunded, refund(payment_intent="pi_9", invoice="in_9")),
        (disputes.dispute_changed, dispute("lost", payment_intent="pi_9")),
        (disputes.dispute_changed, dispute("lost", payment_intent=None)),
    ],
)
def test_a_renewals_subscription_is_fetched_if_the_event_does_not_name_it(
    business: Business, handler: Handler, body: dict[str, Any]
) -> None:
    run(business, checkout_completed, checkout(payment_intent=None, subscription="sub_1", invoice="in_1"))
    with Peer(stripe_with_an_invoice) as peer:
        business.settings = asking(peer) | REVOKE
        run(business, handler, body)
    assert not in_force(business)


def test_for_a_known_order_only_the_charge_is_fetched(business: Business) -> None:
    run(business, checkout_completed, checkout())
    with Peer(lambda _: Answer(200, body=json.dumps(refund()["data"]["object"]).encode())) as peer:
        business.settings = asking(peer)
        run(business, charge_refunded, refund())
    assert [request.path for request in peer.requests] == ["/v1/charges/ch_1"]
    assert not in_force(business)


def test_a_payment_without_invoice_is_recorded_as_in_the_event(business: Business) -> None:
    with Peer(stripe_with_an_invoice) as peer:
        business.settings = asking(peer)
        run(business, charge_refunded, refund(id="ch_7", payment_intent="pi_7"))
    charge = business.one(select(Charge))
    assert (charge.payment_intent, charge.invoice, charge.subscription) == ("pi_7", None, None)


def test_a_charge_unknown_to_stripe_is_recorded_as_in_the_event(business: Business) -> None:
    with Peer(lambda _: GONE) as peer:
        business.settings = asking(peer)
        run(business, charge_refunded, refund())
        run(business, disputes.dispute_changed, dispute(payment_intent=None))
    assert business.one(select(Charge.payment_intent)) == "pi_1"
    assert business.one(select(Dispute.charge)) == "ch_1"


def stripe_with_the_charge(request: Request) -> Answer:
    """The charge as it is after its refund has failed."""
    found = refund(0)["data"]["object"]
    if request.path.startswith("/v1/invoice_payments"):
        found = {"object": "list", "data": [], "has_more": False, "url": "/v1/invoice_payments"}
    return Answer(200, body=json.dumps(found).encode())


@pytest.mark.parametrize("late", [False, True])
def test_a_failed_refund_is_announced_and_restores_access(business: Business, *, late: bool) -> None:
    run(business, checkout_completed, checkout())
    both = [(charge_refunded, refund()), (refund_changed, failed_refund())]
    with Peer(stripe_with_the_charge) as peer:
        business.settings = asking(peer)
        owed = [
            effect for handler, body in (reversed(both) if late else both) for effect in run(business, handler, body)
        ]
    assert owed == ["notify.refund_failed"]
    assert in_force(business)
    assert business.one(select(Charge.amount_refunded)) == 0
    words = business.one(select(Notification).filter_by(kind="refund_failed"))
    assert (words.audience, words.params["amount"], words.params["charge"]) == ("admin", "49.00 USD", "ch_1")


def test_the_current_charge_wins_over_the_event(business: Business) -> None:
    """The event's refund has failed since, or the rest of the charge was refunded since."""
    run(business, checkout_completed, checkout())
    with Peer(lambda _: Answer(200, body=json.dumps(now["data"]["object"]).encode())) as peer:
        business.settings = asking(peer)
        for now, told, access in ((refund(4900), refund(1000), False), (refund(0), refund(4900), True)):
            run(business, charge_refunded, told)
            assert in_force(business) is access
            assert business.one(select(Charge.amount_refunded)) == now["data"]["object"]["amount_refunded"]


def test_a_refund_after_the_failed_one_counts(business: Business) -> None:
    run(business, checkout_completed, checkout())
    again = refund(created=1_700_000_400)
    with Peer(lambda _: Answer(200, body=json.dumps(again["data"]["object"]).encode())) as peer:
        business.settings = asking(peer)
        run(business, charge_refunded, again)
        run(business, refund_changed, failed_refund())
    assert not in_force(business)


def test_a_failed_refund_reported_by_three_events_is_announced_once(business: Business) -> None:
    """refund.failed, refund.updated and charge.refund.updated, whichever an API version sends."""
    owed = [run(business, refund_changed, failed_refund(created=1_700_000_300 + number)) for number in range(3)]
    assert owed == [["notify.refund_failed"], [], []]
    assert run(business, refund_changed, failed_refund(id="re_2")) == ["notify.refund_failed"]


def test_a_failed_refund_is_announced_even_if_stripe_fails_between_two_calls(business: Business) -> None:
    """Rows written before a later call would be committed by it, without their follow-ups."""
    away = [True]

    def reply(request: Request) -> Answer:
        if request.path.startswith("/v1/invoice_payments") and away:
            return Answer(500, body=b"{}")
        return stripe_with_the_charge(request)

    with Peer(reply) as peer:
        business.settings = asking(peer)
        with pytest.raises(TransientError):
            business.run(refunds.refund_changed, failed_refund(), event_id="evt_9")
        away.clear()
        owed = business.run(refunds.refund_changed, failed_refund(), event_id="evt_9")
    assert [follow_up.effect for follow_up in owed] == ["notify.refund_failed"]


@pytest.mark.parametrize("status", ["pending", "requires_action", "succeeded"])
def test_a_refund_update_without_failure_does_nothing(business: Business, status: str) -> None:
    with Peer(stripe_with_the_charge) as peer:
        business.settings = asking(peer)
        assert run(business, refund_changed, failed_refund(status=status)) == []
    assert peer.requests == []


def test_a_cancelled_refund_restores_access_and_is_no_failure(business: Business) -> None:
    business.settings = APP
    run(business, checkout_completed, checkout())
    run(business, charge_refunded, refund())
    with Peer(stripe_with_the_charge) as peer:
        business.settings = APP | asking(peer)
        assert run(business, refund_changed, failed_refund(status="canceled")) == ["access.granted.cus_1.4"]


def test_without_an_api_key_a_failed_refund_is_only_announced(business: Business) -> None:
    run(business, checkout_completed, checkout())
    run(business, charge_refunded, refund())
    assert run(business, refund_changed, failed_refund()) == ["notify.refund_failed"]
    assert not in_force(business)


# --- disputes ---------------------------------------------------------------------------------------------------------


def test_a_dispute_is_announced_when_opened_and_closed_and_revokes_access_if_lost(business: Business) -> None:
    run(business, checkout_completed, checkout())
    assert run(business, disputes.dispute_changed, dispute()) == ["notify.dispute_opened"]
    assert in_force(business)
    assert run(business, disputes.dispute_changed, dispute("under_review", created=1_700_000_300)) == []
    assert run(business, disputes.dispute_changed, dispute("lost", created=1_700_000_400)) == ["notify.dispute_closed"]
    assert run(business, disputes.dispute_changed, dispute("lost", created=1_700_000_400)) == []
    assert not in_force(business)
    words = business.one(select(Notification).filter_by(kind="dispute_opened"))
    assert (words.audience, words.params["due"], words.params["amount"]) == ("admin", "2023-11-21", "49.00 USD")


def test_a_won_dispute_restores_access(business: Business) -> None:
    business.settings = APP | {"ACCESS_WHILE_DISPUTED": "revoke"}
    run(business, checkout_completed, checkout())
    assert "access.revoked.cus_1.3" in run(business, disputes.dispute_changed, dispute())
    assert "access.granted.cus_1.4" in run(business, disputes.dispute_changed, dispute("won", created=1_700_000_400))
    assert in_force(business)


def test_a_dispute_whose_closing_event_came_first_stays_closed(business: Business) -> None:
    run(business, checkout_completed, checkout())
    assert run(business, disputes.dispute_changed, dispute("lost", created=1_700_000_400)) == ["notify.dispute_closed"]
    assert run(business, disputes.dispute_changed, dispute()) == []
    assert business.one(select(Dispute.status)) == "lost"


def test_a_lost_dispute_stays_lost_until_its_appeal_is_won(business: Business) -> None:
    run(business, checkout_completed, checkout())
    run(business, disputes.dispute_changed, dispute("lost", created=1_700_000_400))
    assert run(business, disputes.dispute_changed, dispute("appeal_under_review", created=1_700_000_500)) == []
    assert not in_force(business)
    assert "notify.dispute_closed.dp_1.won" in run(
        business, disputes.dispute_changed, dispute("won", created=1_700_000_600)
    )
    assert in_force(business)
    closed = business.all(select(Notification).filter_by(kind="dispute_closed").order_by(Notification.created_at))
    assert {one.params["status"] for one in closed} == {"lost", "won"}


def test_the_current_dispute_wins_over_the_event(business: Business) -> None:
    run(business, checkout_completed, checkout())
    won = json.dumps(dispute("won")["data"]["object"]).encode()
    with Peer(lambda request: Answer(200, body=won) if request.path.startswith("/v1/disputes/dp_1") else GONE) as peer:
        business.settings = asking(peer) | {"ACCESS_WHILE_DISPUTED": "revoke"}
        assert run(business, disputes.dispute_changed, dispute()) == ["notify.dispute_closed"]
        assert run(business, disputes.dispute_changed, dispute("lost", created=1_700_000_400)) == []
    assert business.one(select(Dispute.status)) == "won"
    assert in_force(business)


def test_an_event_with_fewer_ids_than_the_one_before_still_counts(business: Business) -> None:
    run(business, checkout_completed, checkout())
    run(business, disputes.dispute_changed, dispute())
    run(business, disputes.dispute_changed, dispute("lost", created=1_700_000_400, payment_intent=None))
    assert not in_force(business)


def test_an_older_state_of_an_open_dispute_changes_nothing(business: Business) -> None:
    run(business, disputes.dispute_changed, dispute("needs_response", created=300))
    run(business, disputes.dispute_changed, dispute("warning_needs_response", created=200))
    assert business.one(select(Dispute.status)) == "needs_response"


def test_a_lost_dispute_revokes_the_period_it_paid_for_and_not_a_later_one(business: Business) -> None:
    """Without an API key: the dispute names the payment intent of the checkout, whose session names the invoice."""
    business.settings = APP
    run(business, checkout_completed, checkout(payment_intent="pi_1", subscription="sub_1", invoice="in_1"))
    invoice("paid", 1, 10, next_payment_attempt=None).to(business)
    owed = run(business, disputes.dispute_changed, dispute("lost", T0 + 30, begun=T0 + 20))
    assert owed == ["notify.dispute_closed", "access.revoked.cus_1.3"]
    invoice("paid", 3, 40, id="in_2", created=T0 + 39, next_payment_attempt=None).to(business)
    assert in_force(business)
    run(business, disputes.dispute_changed, dispute("lost", T0 + 60, begun=T0 + 50, id="dp_2"))
    assert in_force(business), "the first payment once more"
    lives_refund(5, 70, made=40, invoice="in_2", amount_refunded=1, refunded=False).to(business)
    run(business, disputes.dispute_changed, dispute("lost", T0 + 80, id="dp_3", charge="ch_5", payment_intent="pi_2"))
    assert not in_force(business), "the renewal was disputed too"


def test_a_dispute_of_an_old_charge_after_the_renewal_revokes_nothing(business: Business) -> None:
    """With an API key the charge's own creation time counts, not the dispute's."""
    run(business, checkout_completed, checkout(payment_intent="pi_1", subscription="sub_1", invoice="in_1"))
    invoice("paid", 1, 10, next_payment_attempt=None).to(business)
    invoice("paid", 3, 40, id="in_2", created=T0 + 39, next_payment_attempt=None).to(business)
    charge = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1", "created": T0 + 1}
    found = Answer(200, body=json.dumps(charge).encode())
    with Peer(lambda request: GONE if request.path.startswith("/v1/disputes") else found) as peer:
        business.settings = asking(peer) | {"ACCESS_WHILE_DISPUTED": "revoke"}
        for status in ("needs_response", "lost"):
            run(business, disputes.dispute_changed, dispute(status, T0 + 60, begun=T0 + 50))
            assert in_force(business)
    business.settings = {}
    run(business, disputes.dispute_changed, dispute("lost", T0 + 70, begun=T0 + 50))
    assert business.one(select(Dispute.charge_created)) == T0 + 1, "what is known of the charge stays known"


# --- deleted customers ------------------------------------------------------------------------------------------------


def test_a_deleted_customer_has_no_access(business: Business) -> None:
    run(business, checkout_completed, checkout())
    run(business, customers.customer_deleted, deleted("cus_2"))
    assert in_force(business)
    run(business, customers.customer_deleted, deleted())
    assert not in_force(business)


# --- any order ---------------------------------------------------------------------------------------------

STORY: Mapping[str, tuple[Handler, dict[str, Any]]] = {
    "1 unpaid": (checkout_completed, checkout(**UNPAID)),
    "2 failed": (async_payment_failed, checkout(**UNPAID)),
    "3 paid": (async_payment_succeeded, checkout()),
    "4 partly refunded": (charge_refunded, refund(1000, created=1_700_000_150)),
    "5 disputed": (disputes.dispute_changed, dispute(created=1_700_000_200)),
    "6 won": (disputes.dispute_changed, dispute("won", created=1_700_000_300)),
    "7 disputed again": (disputes.dispute_changed, dispute(created=1_700_000_400, id="dp_2")),
    "8 lost": (disputes.dispute_changed, dispute("lost", created=1_700_000_500, id="dp_2")),
    "9 refunded": (charge_refunded, refund(4900, created=1_700_000_600)),
}


def ends(business: Business, story: Sequence[str]) -> tuple[Any, ...]:
    """The rows after these events of a new order, and the last webhook to the application."""
    n = str(next(NEXT))
    for number, name in enumerate(story):
        handler, body = STORY[name]
        own = json.loads(json.dumps(body).replace('_1"', f'_{n}_1"').replace('"dp_2"', f'"dp_{n}_2"'))
        business.run(handler, own, event_id=f"evt_{n}_{number}")
    session, intent = f"cs_{n}_1", f"pi_{n}_1"
    states = business.all(select(Order.state).filter_by(session_id=session))
    access = [row is None for row in business.all(select(Entitlement.revoked_at).filter_by(source=session))]
    refunded = business.all(select(Charge.amount_refunded).filter_by(payment_intent=intent))
    disputes = business.all(select(Dispute.status).filter_by(payment_intent=intent).order_by(Dispute.id))
    said = business.all(select(AppMessage).filter_by(customer=f"cus_{n}_1"))
    kinds = [row.type for row in sorted(said, key=lambda row: row.data["sequence"])]
    assert kinds.count("order.fulfilled") == len(access)
    last = [kind for kind in kinds if kind != "order.fulfilled"][-1:] == ["access.granted"]
    assert last == any(access), "the newest message is what holds"
    return states, access, refunded, disputes


@pytest.mark.slow
@searching(quick=40, deep=2000)
@given(
    story=st.lists(st.sampled_from(sorted(STORY)), min_size=1, max_size=9),
    disputed=st.sampled_from(["keep", "revoke"]),
    data=st.data(),
)
def test_any_order_of_an_orders_events_ends_in_the_same_state(
    business: Business, story: list[str], disputed: str, data: st.DataObject
) -> None:
    business.settings = APP | {"ACCESS_WHILE_DISPUTED": disputed}
    shuffled = data.draw(st.permutations(story))
    ended = ends(business, shuffled)
    assert ended == ends(business, sorted(story))
    against = {"8 lost", "9 refunded"} & set(story)
    open_now = ("5 disputed" in story and "6 won" not in story) or "7 disputed again" in story
    expected = not against and not (disputed == "revoke" and open_now)
    assert ended[1] == ([expected] if "3 paid" in story else [])


@pytest.mark.parametrize(
    ("handler", "body", "named"),
    [
        (charge_refunded, refund(id=None), "data.object.id"),
        (charge_refunded, refund(amount=None), "data.object.amount"),
        (charge_refunded, refund() | {"created": None}, "created"),
        (refund_changed, failed_refund(id=None), "data.object.id"),
        (refund_changed, failed_refund(status=None), "data.object.status"),
        (refund_changed, failed_refund(amount=None), "data.object.amount"),
        (refund_changed, failed_refund(currency=None), "data.object.currency"),
        (refund_changed, failed_refund() | {"created": None}, "created"),
        (disputes.dispute_changed, dispute(id=None), "data.object.id"),
        (disputes.dispute_changed, dispute(charge=None), "data.object.charge"),
        (disputes.dispute_changed, dispute(status=None), "data.object.status"),
        (disputes.dispute_changed, dispute(evidence_details={"due_by": 10**15}), "due_by"),
        (customers.customer_deleted, deleted(""), "data.object.id"),
    ],
)
def test_a_payload_without_a_required_field_changes_nothing(
    business: Business, handler: Handler, body: dict[str, Any], named: str
) -> None:
    with pytest.raises(PermanentError, match=named):
        run(business, handler, body)
    assert business.all(select(Charge)) == business.all(select(Dispute)) == []
