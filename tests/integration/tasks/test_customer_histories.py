"""Histories of customers at random: whatever happens at Stripe and however its events arrive, each customer has in the
end what the objects at Stripe say, no message was untrue when it was sent, and no one was charged twice.

HYPOTHESIS_PROFILE=deep pytest --timeout 0 tests/integration/tasks/test_customer_histories.py
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy.event import listen

from tasks.db.engine import make_engine, make_sessions
from tests.support.business import Business
from tests.support.customer_access import access_at_rest
from tests.support.databases import fresh_postgres
from tests.support.peers import Peer, Stripe
from tests.support.searching import searching
from tests.support.shop import ACCOUNTS, Shop
from tests.support.stripe_world import DAY, Object, StripeWorld

T0 = 1_772_000_000
PLANS = st.lists(st.sampled_from(["basic", "pro", "seat"]), min_size=1, max_size=2, unique=True)


class CustomerHistory(RuleBasedStateMachine):
    """What happens to a few customers. Events wait in `undelivered` until a rule delivers them, in any order."""

    new_database: Callable[[Path], str]
    peer: Peer
    has_key: bool

    @initialize(data=st.data(), old=st.booleans(), when_unpaid=st.sampled_from(["past_due", "unpaid", "canceled"]))
    def open_shop(self, data: st.DataObject, *, old: bool, when_unpaid: str) -> None:
        self.data = data
        # Without a key the charge of an invoice is known to events of old API versions only.
        self.world = StripeWorld(T0, old or not self.has_key, when_unpaid)
        self.folder = TemporaryDirectory()
        url = self.new_database(Path(self.folder.name))
        self.engine = make_engine(url)
        if url.startswith("sqlite"):
            listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        key = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": self.peer.url} if self.has_key else {}
        notify = {"CUSTOMER_NOTIFY_URLS": f"json://{self.peer.host}/notify/{{email}}"}
        self.shop = Shop(Business(make_sessions(self.engine), Path(self.folder.name), key | notify), self.world)
        self.peer.reply = self.shop.reply
        for account in ("", "", "acct_1", "acct_2"):
            self.world.customer(account)
        self.seen = 0
        self.lost: list[Object] = []
        self.undelivered: list[Object] = []

    def teardown(self) -> None:
        if not hasattr(self, "shop"):
            return
        try:
            self._come_to_rest()
            found, wanted = self.shop.access(), access_at_rest(self.world, ("", *ACCOUNTS))
            assert found == wanted, f"{found} must be {wanted}"
            assert not self.shop.untrue, self.shop.untrue
        finally:
            self.engine.dispose()
            self.folder.cleanup()

    @rule(product=st.sampled_from(["book", "film"]), method=st.sampled_from(["card", "transfer", "capture"]))
    def buy(self, product: str, method: str) -> None:
        self.world.buy(self._one(self._customers()), product, method=method)

    @precondition(lambda self: self._sessions_under_way())
    @rule(paid=st.booleans())
    def settle(self, *, paid: bool) -> None:
        self.world.settle(self._one(self._sessions_under_way()), paid=paid)

    @precondition(lambda self: len(self.world.of_kind("subscription")) < 4)
    @rule(products=PLANS, start=st.sampled_from(["checkout", "debit", "api", "trial"]), sent=st.booleans())
    def subscribe(self, products: list[str], start: str, *, sent: bool) -> None:
        self.world.subscribe(self._one(self._customers()), products, start=start, sent=sent and start == "api")

    @precondition(lambda self: self._live("active", "trialing", "past_due"))
    @rule(free=st.booleans())
    def renew(self, *, free: bool) -> None:
        self.world.renew(self._one(self._live("active", "trialing", "past_due")), free=free)

    @precondition(lambda self: self._live("active", "past_due"))
    @rule()
    def bill_extra(self) -> None:
        self.world.bill_extra(self._one(self._live("active", "past_due")))

    @precondition(lambda self: self._live("active", "trialing") and not self.world.of_kind("dispute"))
    @rule(products=PLANS)
    def change_plan(self, products: list[str]) -> None:
        self.world.change_plan(self._one(self._live("active", "trialing")), products)

    @precondition(lambda self: self._invoices("open"))
    @rule()
    def pay(self) -> None:
        self.world.pay(self._one(self._invoices("open")))

    @precondition(lambda self: self._collected())
    @rule()
    def fail(self) -> None:
        self.world.fail(self._one(self._collected()))

    @precondition(lambda self: self._sent())
    @rule()
    def fall_due(self) -> None:
        self.world.fall_due(self._one(self._sent()))

    @precondition(lambda self: self._invoices("open"))
    @rule(void=st.booleans())
    def write_off(self, *, void: bool) -> None:
        self.world.write_off(self._one(self._invoices("open")), void=void)

    @precondition(lambda self: self._live("active", "trialing"))
    @rule(planned=st.booleans())
    def plan_cancellation(self, *, planned: bool) -> None:
        self.world.plan_cancellation(self._one(self._live("active", "trialing")), planned=planned)

    @precondition(lambda self: self._live("active", "trialing", "past_due", "unpaid", "paused"))
    @rule()
    def cancel(self) -> None:
        self.world.cancel(self._one(self._live("active", "trialing", "past_due", "unpaid", "paused")))

    @precondition(lambda self: self._live("active"))
    @rule()
    def pause(self) -> None:
        self.world.pause(self._one(self._live("active")))

    @precondition(lambda self: self._live("paused"))
    @rule()
    def resume(self) -> None:
        self.world.resume(self._one(self._live("paused")))

    @precondition(lambda self: self._refundable())
    @rule(amount=st.sampled_from([100, 500, 5000]))
    def refund(self, amount: int) -> None:
        self.world.refund(self._one(self._refundable()), amount)

    @precondition(lambda self: self._refundable())
    @rule()
    def dispute(self) -> None:
        self.world.dispute(self._one(self._refundable()))

    @precondition(lambda self: self.world.of_kind("dispute", status="needs_response"))
    @rule(won=st.booleans())
    def close_dispute(self, *, won: bool) -> None:
        self.world.close_dispute(self._one(self.world.of_kind("dispute", status="needs_response")), won=won)

    @precondition(lambda self: len(self._customers()) > 1)
    @rule()
    def delete(self) -> None:
        self.world.delete(self._one(self._customers()))

    @rule(seconds=st.sampled_from([1, 3600, 5 * DAY]))
    def wait(self, seconds: int) -> None:
        self.world.now += seconds
        self.shop.run_due()

    @rule(works=st.booleans())
    def change_card(self, *, works: bool) -> None:
        self.shop.card_works = works

    @precondition(lambda self: self._take_in())
    @rule(again=st.sampled_from(["no", "twice", "under another id"]))
    def deliver(self, again: str) -> None:
        event = self._one(self._take_in())
        if again != "twice":
            self.undelivered.remove(event)
        self.world.now += 1
        self.shop.deliver(event, f"{event['id']}b" if again == "under another id" else "")

    @precondition(lambda self: self.has_key and self._take_in())
    @rule()
    def lose(self) -> None:
        """An event does not arrive. Later reconcile finds it."""
        self.lost.append(self._one(self._take_in()))
        self.undelivered.remove(self.lost[-1])

    def _come_to_rest(self) -> None:
        """Everything that waits arrives, sent invoices fall due, and the planned jobs run."""
        for invoice in self._sent():
            self.world.fall_due(invoice)
        for event in [*self._take_in(), *self.lost]:
            self.world.now += 1
            self.shop.deliver(event)
        self.world.now += 20 * DAY
        self.shop.rest()
        for event in self._take_in():  # what our own payments have changed
            self.shop.deliver(event)
        self.shop.rest()

    def _take_in(self) -> list[Object]:
        self.undelivered += self.world.events[self.seen :]
        self.seen = len(self.world.events)
        return self.undelivered

    def _one(self, found: list[Object]) -> Object:
        self.world.now += 1
        by_id = {one["id"]: one for one in found}
        return by_id[self.data.draw(st.sampled_from(list(by_id)))]

    def _customers(self) -> list[Object]:
        return self.world.of_kind("customer", deleted=False)

    def _live(self, *statuses: str) -> list[Object]:
        return [one for one in self.world.of_kind("subscription") if one["status"] in statuses]

    def _sessions_under_way(self) -> list[Object]:
        found = self.world.of_kind("checkout.session", payment_status="unpaid", mode="payment")
        pending = ("processing", "requires_capture")
        return [one for one in found if self.world.objects[one["payment_intent"]]["status"] in pending]

    def _invoices(self, status: str) -> list[Object]:
        return self.world.of_kind("invoice", status=status)

    def _collected(self) -> list[Object]:
        return [one for one in self._invoices("open") if one["next_payment_attempt"]]

    def _sent(self) -> list[Object]:
        found = [one for one in self._invoices("open") if one["due_date"]]
        return [one for one in found if self.world.objects[_subscription_of(one)]["status"] == "active"]

    def _refundable(self) -> list[Object]:
        disputed = {one["charge"] for one in self.world.of_kind("dispute")}
        return [one for one in self.world.of_kind("charge") if not one["refunded"] and one["id"] not in disputed]


def _subscription_of(invoice: Object) -> str:
    return str(invoice["parent"]["subscription_details"]["subscription"])


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer(lambda request: pytest.fail("no shop is open")) as peer:
        yield peer


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest, migrated_sqlite: Path) -> Callable[[Path], str]:
    """Gives the URL of an empty database; a file is in the folder."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        return lambda _: fresh_postgres(server)
    return lambda folder: f"sqlite:///{shutil.copy(migrated_sqlite, folder / 'test.db')}"


@pytest.mark.slow
@pytest.mark.parametrize("has_key", [False, True], ids=["no key", "key"])
def test_each_customer_has_in_the_end_what_stripe_says(
    peer: Peer, new_database: Callable[[Path], str], *, has_key: bool
) -> None:
    class History(CustomerHistory):
        pass

    History.peer, History.new_database, History.has_key = peer, staticmethod(new_database), has_key
    run_state_machine_as_test(History, settings=searching(quick=40, deep=5000))
