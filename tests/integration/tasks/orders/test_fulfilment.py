"""Checkouts, on both databases."""

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
from inbox.errors import PermanentError
from tasks.handler import Handler
from tasks.models import Entitlement, Notification, Order
from tasks.notifications.notify import send
from tasks.orders.fulfilment import async_payment_failed, async_payment_succeeded, checkout_completed, expired
from tasks.orders.product_grants import Price, granted, make_item
from tasks.payloads import Expanded
from tests.support.business import NOW, Business, at_once
from tests.support.messages import says
from tests.support.peers import Answer, Mailbox, Peer, Stripe
from tests.support.searching import searching

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13


def checkout(**fields: Any) -> dict[str, Any]:
    session = {
        "id": "cs_1",
        "object": "checkout.session",
        "mode": "payment",
        "payment_status": "paid",
        "customer": "cus_1",
        "client_reference_id": "user_7",
        "subscription": None,
        "payment_intent": "pi_1",
        "invoice": None,
        "amount_total": 4900,
        "currency": "usd",
        "customer_details": {"email": "ada@example.com", "phone": None, "name": "Ada", "tax_ids": None},
        "customer_email": None,
        "metadata": {"product": "course"},
        **fields,
    }
    return {"id": "evt", "type": "checkout.session.completed", "created": 1_700_000_000, "data": {"object": session}}


def test_a_paid_checkout_is_an_order_with_access_and_a_receipt(business: Business) -> None:
    (receipt,) = business.run(checkout_completed, checkout())
    order = business.one(select(Order))
    assert (order.session_id, order.state, order.fulfilled_at) == ("cs_1", "fulfilled", NOW)
    assert (order.amount_total, order.currency) == (4900, "usd")
    access = business.one(select(Entitlement))
    assert (access.product, access.customer, access.client_reference) == ("course", "cus_1", "user_7")
    assert (access.granted_at, access.revoked_at) == (NOW, None)
    owed = business.one(select(Notification))
    assert (owed.kind, owed.email, owed.about) == ("receipt", "ada@example.com", "cs_1")
    assert says(business, "receipt") == {"amount": "49.00 USD", "order": "cs_1", "products": "course"}
    assert (receipt.task, receipt.args) == ("tasks.notifications.send", {"notification": owed.id})


def test_a_free_checkout_is_fulfilled_too(business: Business) -> None:
    free = checkout(payment_status="no_payment_required", amount_total=None, currency=None)
    business.run(checkout_completed, free)
    assert business.one(select(Order.state)) == "fulfilled"
    assert len(business.all(select(Entitlement))) == 1


@pytest.mark.parametrize("status", ["unpaid", "a word of next year"])
def test_an_unpaid_checkout_gives_no_access_yet(business: Business, status: str) -> None:
    assert business.run(checkout_completed, checkout(payment_status=status)) == []
    assert business.one(select(Order.state)) == "awaiting_payment"
    assert business.all(select(Entitlement)) == business.all(select(Notification)) == []


def test_an_order_that_waited_is_fulfilled_once_it_is_paid(business: Business) -> None:
    business.run(checkout_completed, checkout(payment_status="unpaid"), event_id="evt_1")
    assert len(business.run(checkout_completed, checkout(), event_id="evt_2")) == 1
    assert business.one(select(Order.state)) == "fulfilled"


def test_a_late_unpaid_event_revokes_nothing(business: Business) -> None:
    business.run(checkout_completed, checkout(), event_id="evt_2")
    assert business.run(checkout_completed, checkout(payment_status="unpaid"), event_id="evt_1") == []
    assert business.one(select(Order.state)) == "fulfilled"


def test_events_of_one_session_at_once_make_one_order_and_one_receipt(business: Business) -> None:
    answers = at_once(lambda n: business.run(checkout_completed, checkout(), event_id=f"evt_{n}"), 3)
    assert sorted(len(answer) for answer in answers) == [0, 0, 1]
    for table in (Order, Entitlement, Notification):
        assert len(business.all(select(table))) == 1


def test_events_at_once_fulfil_a_waiting_order_once(business: Business) -> None:
    business.run(checkout_completed, checkout(payment_status="unpaid"), event_id="evt_unpaid")
    answers = at_once(lambda n: business.run(checkout_completed, checkout(), event_id=f"evt_{n}"), 4)
    assert sorted(len(answer) for answer in answers) == [0, 0, 0, 1]


def test_one_event_at_once_twice_has_one_effect(business: Business) -> None:
    answers = at_once(lambda _: business.run(checkout_completed, checkout()), 2)
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(business.all(select(Order))) == 1


def test_each_product_of_the_line_items_is_granted(business: Business) -> None:
    items = {"data": [{"price": {"product": "prod_1"}}, {"price": {"product": "prod_2"}}]}
    business.run(checkout_completed, checkout(metadata={}, line_items=items))
    assert sorted(business.all(select(Entitlement.product))) == ["prod_1", "prod_2"]


def test_a_receipt_names_products_as_the_customer_saw_them(business: Business) -> None:
    items = [{"price": {"product": "prod_1"}, "description": "T-shirt"}, {"description": "Mug"}, {"description": None}]
    business.run(checkout_completed, checkout(metadata={}, line_items={"data": items}))
    assert business.one(select(Notification)).params["products"] == "T-shirt, Mug"


def test_a_receipt_is_in_the_language_that_stripe_knows(business: Business, mailbox: Mailbox, stripe: Stripe) -> None:
    customer = stripe.customer("pm_card_visa", **{"preferred_locales[0]": "de-AT"})
    business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": stripe.url}
    business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}&to={{email}}"
    (receipt,) = business.run(checkout_completed, checkout(customer=customer, line_items={"data": []}))
    business.follow(send, receipt)
    ((recipients, mail),) = mailbox.mails
    assert (recipients, mail["Subject"]) == (["ada@example.com"], "Ihre Bestellung: 49,00 USD")


@pytest.mark.parametrize(("locale", "subject"), [("de", "Ihre"), ("fr-CA", "Votre"), ("auto", "Your"), (None, "Your")])
def test_a_guest_is_answered_in_the_language_of_the_checkout(
    business: Business, mailbox: Mailbox, locale: str | None, subject: str
) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}&to={{email}}"
    (receipt,) = business.run(checkout_completed, checkout(customer=None, locale=locale))
    business.follow(send, receipt)
    ((_, mail),) = mailbox.mails
    assert mail["Subject"].split()[0] == subject


def test_a_customer_whose_language_stripe_does_not_know_is_answered_in_that_of_the_checkout(
    business: Business, mailbox: Mailbox, stripe: Stripe
) -> None:
    business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": stripe.url}
    business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}&to={{email}}"
    bought = checkout(customer=stripe.customer("pm_card_visa"), line_items={"data": []}, locale="de")
    (receipt,) = business.run(checkout_completed, bought)
    business.follow(send, receipt)
    ((_, mail),) = mailbox.mails
    assert mail["Subject"] == "Ihre Bestellung: 49,00 USD"


def test_for_a_guest_without_an_address_the_administrator_is_notified_and_access_is_granted(business: Business) -> None:
    guest = checkout(customer=None, client_reference_id=None, customer_details=None)
    business.settings["CUSTOMER_NOTIFY_URLS"] = "json://127.0.0.1:9/{email}"
    (receipt,) = business.run(checkout_completed, guest)
    business.follow(send, receipt)
    assert business.one(select(Entitlement.source)) == "cs_1"
    assert sorted(business.all(select(Notification.kind))) == ["no_address", "receipt"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"payment_status": None}, "data.object.payment_status"),
        ({"id": None}, "data.object.id"),
        ({"amount_total": "4900"}, "amount_total"),
    ],
)
def test_a_payload_without_a_required_field_changes_nothing(
    business: Business, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(PermanentError, match=named):
        business.run(checkout_completed, checkout(**fields))
    assert business.all(select(Order)) == []


# --- paid later, or never -------------------------------------------------------------------------------------

UNPAID = {"payment_status": "unpaid"}


def test_an_order_is_fulfilled_when_its_payment_has_arrived(business: Business) -> None:
    assert business.run(checkout_completed, checkout(**UNPAID), event_id="evt_1") == []
    (receipt,) = business.run(async_payment_succeeded, checkout(), event_id="evt_2")
    assert (receipt.effect, business.one(select(Order.state))) == ("notify.receipt", "fulfilled")
    assert business.one(select(Entitlement.revoked_at)) is None


def test_a_customer_whose_payment_failed_is_notified_once_and_gets_no_access(business: Business) -> None:
    business.run(checkout_completed, checkout(**UNPAID), event_id="evt_1")
    (told,) = business.run(async_payment_failed, checkout(**UNPAID), event_id="evt_2")
    assert business.run(async_payment_failed, checkout(**UNPAID), event_id="evt_3") == []
    assert business.one(select(Order.state)) == "payment_failed"
    owed = business.one(select(Notification))
    assert (told.args["notification"], owed.kind, owed.email) == (owed.id, "order_payment_failed", "ada@example.com")
    assert business.all(select(Entitlement)) == []


def test_a_failure_that_a_payment_has_overtaken_sends_no_message(business: Business) -> None:
    business.run(async_payment_succeeded, checkout(), event_id="evt_2")
    assert business.run(async_payment_failed, checkout(**UNPAID), event_id="evt_1") == []
    assert business.one(select(Order.state)) == "fulfilled"


@pytest.mark.parametrize("status", ["unpaid", "no_payment_required", "paid"])
def test_a_session_that_expired_gives_nothing_whatever_its_payment_status(business: Business, status: str) -> None:
    assert business.run(expired, checkout(payment_status=status)) == []
    assert business.one(select(Order.state)) == "expired"
    assert business.all(select(Entitlement)) == []


def test_a_session_that_only_saves_a_card_is_no_order(business: Business) -> None:
    card = checkout(mode="setup", payment_status="no_payment_required", payment_intent=None, amount_total=None)
    assert business.run(checkout_completed, card) == []
    assert business.all(select(Order)) == []


def test_an_order_learns_ids_that_only_a_later_event_has(business: Business) -> None:
    business.run(expired, checkout(payment_intent=None, customer=None, **UNPAID), event_id="evt_1")
    business.run(checkout_completed, checkout(subscription={"id": "sub_1"}, invoice="in_1"), event_id="evt_2")
    order = business.one(select(Order))
    assert (order.payment_intent, order.customer, order.subscription) == ("pi_1", "cus_1", "sub_1")
    assert (order.invoice, business.one(select(Entitlement.customer))) == ("in_1", "cus_1")


STORY: Mapping[str, tuple[Handler, dict[str, Any]]] = {
    "expired": (expired, UNPAID),
    "unpaid": (checkout_completed, UNPAID),
    "failed": (async_payment_failed, UNPAID),
    "succeeded": (async_payment_succeeded, {}),
    "paid": (checkout_completed, {}),
}
SESSIONS = itertools.count(1)


def play(business: Business, story: Sequence[str]) -> tuple[Any, ...]:
    """The rows of a new session after these events, and the number of receipts."""
    session = f"cs_{next(SESSIONS)}"
    for number, name in enumerate(story):
        handler, fields = STORY[name]
        business.run(handler, checkout(id=session, **fields), event_id=f"evt_{session}_{number}")
    order = business.one(select(Order).filter_by(session_id=session))
    access = business.all(select(Entitlement).filter_by(source=session))
    receipts = business.all(select(Notification.id).filter_by(kind="receipt", about=session))
    found = [(row.product, row.customer, row.granted_at, row.revoked_at) for row in access]
    return order.state, order.fulfilled_at, order.payment_intent, order.amount_total, found, len(receipts)


@pytest.mark.slow
@searching(quick=40, deep=2000)
@given(story=st.lists(st.sampled_from(sorted(STORY)), min_size=1, max_size=6), data=st.data())
def test_any_order_of_a_sessions_events_ends_in_the_same_rows(
    business: Business, story: list[str], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(story))
    rows = play(business, shuffled)
    assert rows == play(business, sorted(story))
    paid = bool({"paid", "succeeded"} & set(story))
    assert (rows[0] == "fulfilled") == paid
    assert (len(rows[4]), rows[5]) == (int(paid), int(paid))


# --- items --------------------------------------------------------------------------------------------------

GRANTS = {"prod_1": ("course", "forum"), "price_9": ("coaching", "course"), "prod_paper": (), "pro_monthly": ("pro",)}


@pytest.mark.parametrize(
    ("bought", "names"),
    [
        ([Price("price_1", "prod_1")], ["course", "forum"]),
        ([Price("price_9", "prod_1")], ["coaching", "course"]),
        ([Price("price_1", Expanded("prod_1"))], ["course", "forum"]),
        ([Price("price_1", "prod_1"), Price("price_9", "prod_1")], ["coaching", "course", "forum"]),
        ([Price("price_1", "prod_1"), Price("price_1", "prod_1")], ["course", "forum"]),
        ([Price("price_3", "prod_3")], ["prod_3"]),
        ([Price("price_3", "prod_1", lookup_key="pro_monthly")], ["pro"]),
        ([Price("price_9", "prod_1", lookup_key="pro_monthly")], ["coaching", "course"]),
        ([Price("price_3", "prod_1", lookup_key="pro_yearly")], ["course", "forum"]),
        ([Price("price_3", None, lookup_key="pro_monthly")], ["pro"]),
        ([Price("price_4", "prod_paper")], []),
        ([Price()], []),
        ([None], []),
        ([], []),
    ],
)
def test_a_purchase_grants_what_its_prices_and_products_are_mapped_to(
    bought: list[Price | None], names: list[str]
) -> None:
    assert list(granted(GRANTS, [make_item(price, 1) for price in bought])) == names


def test_without_a_mapping_each_product_grants_itself() -> None:
    assert granted({}, [make_item(Price("price_1", "prod_1"), 1)]) == {"prod_1": 1}
    assert granted({}, []) == {}


def test_a_lookup_key_of_a_connected_account_is_named_with_that_account() -> None:
    item = make_item(Price("price_3", "prod_1", lookup_key="pro_monthly"), 1)
    assert list(granted(GRANTS, [item], "acct_1")) == ["acct_1/prod_1"]
    assert list(granted({"acct_1/pro_monthly": ("theirs",)}, [item], "acct_1")) == ["theirs"]


def test_an_item_that_was_stored_before_lookup_keys_still_grants() -> None:
    item = {"price": "price_9", "product": "prod_1", "quantity": 1, "renews": True}
    assert list(granted(GRANTS, [item])) == ["coaching", "course"]


def test_the_mapping_of_the_settings_is_used(business: Business) -> None:
    business.settings = {"FULFILMENT": 'course = ["videos", "forum"]'}
    business.run(checkout_completed, checkout())
    assert sorted(business.all(select(Entitlement.product))) == ["forum", "videos"]


def page(request: Request) -> Answer:
    """Two pages of line items, as Stripe returns them."""
    second = "starting_after=li_1" in request.path
    number = 2 if second else 1
    item = {
        "id": f"li_{number}",
        "object": "item",
        "price": {"id": f"price_{number}", "product": f"prod_{number}"},
    }
    found = {
        "object": "list",
        "data": [item],
        "has_more": not second,
        "url": "/v1/checkout/sessions/cs_1/line_items",
    }
    return Answer(200, body=json.dumps(found).encode())


def test_line_items_are_fetched_over_all_pages(business: Business) -> None:
    with Peer(page) as peer:
        business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        business.run(checkout_completed, checkout(metadata={}))
    assert sorted(business.all(select(Entitlement.product))) == ["prod_1", "prod_2"]
    assert [request.path.partition("?")[0] for request in peer.requests] == [
        "/v1/checkout/sessions/cs_1/line_items"
    ] * 2


def test_line_items_of_an_unpaid_session_are_not_fetched(business: Business) -> None:
    with Peer(page) as peer:
        business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        business.run(checkout_completed, checkout(metadata={}, **UNPAID), event_id="evt_1")
        business.run(async_payment_failed, checkout(metadata={}, **UNPAID), event_id="evt_2")
    assert peer.requests == []


def test_an_order_whose_line_items_stripe_refuses_is_a_dead_letter_and_not_fulfilled(business: Business) -> None:
    gone = b'{"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such session"}}'
    with Peer(lambda _: Answer(404, body=gone)) as peer:
        business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        with pytest.raises(PermanentError, match="resource_missing"):
            business.run(checkout_completed, checkout(metadata={}))
    assert business.all(select(Order)) == []
