"""Stripe Entitlements: the access of subscriptions is what Stripe lists, in any order of events."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from inbox.errors import PermanentError
from tasks.billing.customers import customer_deleted
from tasks.billing.stripe_entitlements import summary_updated
from tasks.db.engine import make_engine, make_sessions
from tasks.models import AppMessage, Entitlement, EntitlementSummary
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.lives import T0, Happened, checkout, subscription
from tests.support.peers import Answer, Peer, Stripe

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}


def entitlement(key: str) -> dict[str, Any]:
    about = {"id": f"ent_{key}", "object": "entitlements.active_entitlement", "feature": f"feat_{key}"}
    return {**about, "livemode": False, "lookup_key": key}


def summary(business: Business, number: int, at: int, *keys: str, more: bool = False, customer: str = "cus_1") -> None:
    """The event that lists these features as those that the customer may use."""
    listed = {"object": "list", "data": [entitlement(key) for key in keys], "has_more": more}
    about = {"object": "entitlements.active_entitlement_summary", "customer": customer, "entitlements": listed}
    body = {"id": f"evt_{number}", "created": T0 + at, "livemode": False, "data": {"object": about}}
    business.run(summary_updated, body, event_id=f"evt_{number}")


def in_force(business: Business) -> list[str]:
    return sorted(business.all(select(Entitlement.product).where(Entitlement.revoked_at.is_(None))))


@dataclass
class Account:
    """A Stripe account with active entitlements and one subscription, sub_1 to `club`."""

    keys: list[str] = field(default_factory=list)
    lists: int = 0

    def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        if parts.path == "/v1/entitlements/active_entitlements":
            self.lists += 1
            return Answer(200, body=json.dumps(self._page(parse_qs(parts.query))).encode())
        if parts.path == "/v1/subscriptions/sub_1":
            return Answer(200, body=json.dumps(subscription("updated", 1, 0, "active", "club").object).encode())
        return Answer(200, body=b'{"object": "list", "data": [], "has_more": false}')

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Pages of two."""
        first = self.keys.index(query["starting_after"][0].removeprefix("ent_")) + 1 if "starting_after" in query else 0
        data = [entitlement(key) for key in self.keys[first : first + 2]]
        url = "/v1/entitlements/active_entitlements"
        return {"object": "list", "url": url, "data": data, "has_more": first + 2 < len(self.keys)}


@pytest.fixture
def with_stripe(business: Business) -> Business:
    business.settings |= {"ENTITLEMENTS": "stripe", **APP}
    return business


@pytest.fixture
def account(with_stripe: Business) -> Iterator[Account]:
    account = Account()
    with Peer(account.answer) as peer:
        with_stripe.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        yield account


def test_the_features_that_stripe_lists_are_the_access_of_a_subscription(with_stripe: Business) -> None:
    subscription("created", 1, 1, "active", "club").to(with_stripe)
    summary(with_stripe, 2, 2, "forum", "videos")
    assert in_force(with_stripe) == ["forum", "videos"]
    summary(with_stripe, 3, 3, "videos")
    assert in_force(with_stripe) == ["videos"]
    message = with_stripe.all(select(AppMessage).order_by(AppMessage.created_at, AppMessage.id))[-1]
    assert (message.type, message.data["entitlements"]) == ("access.revoked", ["forum"])
    assert [(one["entitlement"], one["source"]) for one in message.data["access"]] == [("videos", "cus_1")]


EVENTS: dict[str, Callable[[Business], Any]] = {
    "subscription": lambda b: subscription("created", 1, 1, "active", "club").to(b),
    "checkout": lambda b: checkout("completed", 2, 2, metadata={}).to(b),
    "old list": lambda b: summary(b, 3, 3, "forum"),
    "new list": lambda b: summary(b, 4, 4, "videos"),
    "part": lambda b: summary(b, 5, 5, "a", "b", more=True),
}


def test_events_in_any_order_end_with_the_newest_complete_list(tmp_path: Path, migrated_sqlite: Path) -> None:
    for number, order in enumerate(permutations(EVENTS)):
        path = tmp_path / f"{number}.db"
        shutil.copy(migrated_sqlite, path)
        engine = make_engine(f"sqlite:///{path}")
        business = Business(make_sessions(engine), tmp_path, {"ENTITLEMENTS": "stripe", **APP})
        for name in order:
            EVENTS[name](business)
        assert in_force(business) == ["videos"], order
        engine.dispose()


def test_what_was_bought_once_is_still_named_by_fulfilment(with_stripe: Business) -> None:
    with_stripe.settings["FULFILMENT"] = 'book = ["reading"]'
    once = {"mode": "payment", "subscription": None, "invoice": None, "metadata": {"product": "book"}}
    checkout("completed", 1, 1, **once).to(with_stripe)
    summary(with_stripe, 2, 2, "videos")
    assert in_force(with_stripe) == ["reading", "videos"]


def test_with_a_key_the_whole_list_is_fetched(with_stripe: Business, account: Account) -> None:
    account.keys = ["a", "b", "c", "d", "e"]
    summary(with_stripe, 1, 1, "a", "b", more=True)
    assert in_force(with_stripe) == ["a", "b", "c", "d", "e"]


def test_a_customer_of_whom_no_list_has_arrived_is_asked_for_before_access_is_given(
    with_stripe: Business, account: Account
) -> None:
    account.keys = ["videos"]
    checkout("completed", 1, 1, metadata={}).to(with_stripe)
    assert in_force(with_stripe) == []
    subscription("created", 2, 2, "active", "club").to(with_stripe)
    assert in_force(with_stripe) == ["videos"]
    subscription("updated", 3, 3, "active", "club").to(with_stripe)
    assert account.lists == 1
    granted = [one.data["entitlements"] for one in with_stripe.all(select(AppMessage).filter_by(type="access.granted"))]
    assert granted == [["videos"]]


def test_until_the_first_list_a_known_subscription_keeps_what_fulfilment_names(business: Business) -> None:
    subscription("created", 1, 1, "active", "club").to(business)
    business.settings |= {"ENTITLEMENTS": "stripe"}
    subscription("updated", 3, 2, "active", "club").to(business)
    assert in_force(business) == ["club"]


def test_switching_back_gives_what_fulfilment_names(with_stripe: Business) -> None:
    subscription("created", 1, 1, "active", "club").to(with_stripe)
    summary(with_stripe, 2, 2, "videos")
    with_stripe.settings["ENTITLEMENTS"] = "fulfilment"
    summary(with_stripe, 4, 4, "forum")  # not read
    subscription("updated", 5, 5, "active", "club").to(with_stripe)
    assert in_force(with_stripe) == ["club"]


def test_without_the_setting_the_event_changes_nothing(business: Business) -> None:
    subscription("created", 1, 1, "active", "club").to(business)
    summary(business, 2, 2, "videos")
    assert (in_force(business), business.all(select(EntitlementSummary))) == (["club"], [])


def test_a_deleted_customer_has_no_entitlements(with_stripe: Business) -> None:
    summary(with_stripe, 1, 1, "videos")
    with_stripe.run(customer_deleted, {"data": {"object": {"id": "cus_1"}}}, event_id="evt_2")
    assert in_force(with_stripe) == []


def test_entitlements_of_a_customer_of_another_site_are_not_ours(with_stripe: Business) -> None:
    with_stripe.settings["OWN_PRODUCTS"] = "club"
    summary(with_stripe, 1, 1, "videos")
    subscription("created", 3, 2, "active", "theirs").to(with_stripe)
    assert in_force(with_stripe) == []
    subscription("updated", 5, 3, "active", "club").to(with_stripe)
    assert in_force(with_stripe) == ["videos"]


def test_the_product_that_the_shop_names_in_the_metadata_makes_entitlements_ours(with_stripe: Business) -> None:
    with_stripe.settings["OWN_PRODUCTS"] = "club"
    summary(with_stripe, 1, 1, "videos")
    subscription("created", 3, 2, "active", "prod_1", metadata={"product": "club"}).to(with_stripe)
    assert in_force(with_stripe) == ["videos"]


def test_a_subscription_without_items_does_not_make_entitlements_ours(with_stripe: Business) -> None:
    with_stripe.settings["OWN_PRODUCTS"] = "club"
    summary(with_stripe, 1, 1, "videos")
    nothing = {"object": "list", "data": [], "has_more": False}
    subscription("created", 3, 2, "active", items=nothing).to(with_stripe)
    assert in_force(with_stripe) == []


def test_entitlements_of_a_connected_account_are_named_with_that_account(with_stripe: Business) -> None:
    listed = {"object": "list", "data": [entitlement("videos")], "has_more": False}
    about = {"customer": "cus_1", "entitlements": listed}
    body = {"id": "evt_1", "created": T0, "account": "acct_1", "data": {"object": about}}
    with_stripe.run(summary_updated, body)
    row = with_stripe.one(select(Entitlement))
    assert (row.product, row.holder, row.account) == ("acct_1/videos", "acct_1/cus_1", "acct_1")


def test_a_list_without_a_customer_is_a_dead_letter_that_names_the_field(with_stripe: Business) -> None:
    event = Happened("evt_1", "entitlements.active_entitlement_summary.updated", T0, {"customer": None})
    with pytest.raises(PermanentError, match=r"data\.object\.customer"):
        with_stripe.run(summary_updated, {"created": event.created, "data": {"object": event.object}})
