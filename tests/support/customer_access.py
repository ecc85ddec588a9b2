"""What each customer must have, as a plain function of the objects at Stripe. It shares no code with the product."""

from __future__ import annotations

from collections.abc import Collection

from tests.support.stripe_world import FAILURES, Object, StripeWorld

Access = dict[str, set[str]]  # products by customer


def access_at_rest(world: StripeWorld, accounts: Collection[str]) -> Access:
    """The products of each customer of these accounts, once all grace periods are over that can be."""
    found: Access = {}
    for customer in world.of_kind("customer", deleted=False):
        if customer["account"] not in accounts:
            continue
        bought = [_bought(world, session) for session in world.of_kind("checkout.session", customer=customer["id"])]
        plans = [_provided(world, one) for one in world.of_kind("subscription", customer=customer["id"])]
        if products := set().union(*bought, *plans):
            account = customer["account"]
            found[customer["id"]] = {f"{account}/{name}" if account else name for name in products}
    return found


def _bought(world: StripeWorld, session: Object) -> set[str]:
    """What was bought outright in a checkout: it stays until all of its money is back."""
    intent = world.objects.get(session["payment_intent"] or "")
    if intent is None or intent["status"] != "succeeded" or _given_back(world, intent, refunds=True):
        return set()
    return _products(session["line_items"])


def _provided(world: StripeWorld, subscription: Object) -> set[str]:
    """What a subscription provides now, by its status."""
    status = subscription["status"]
    entitled = status in ("active", "trialing") or (status == "past_due" and not _given_up(world, subscription))
    return _products(subscription["items"]) - _disputed(world, subscription) if entitled else set()


def _given_up(world: StripeWorld, subscription: Object) -> bool:
    """Whether nobody tries any more to collect its latest invoice: a grace period follows, and then it is suspended."""
    latest = world.objects[subscription["latest_invoice"]]
    if latest["collection_method"] == "send_invoice":
        return bool(latest["due_date"] < world.now)
    return bool(latest["attempt_count"] >= FAILURES)


def _disputed(world: StripeWorld, subscription: Object) -> set[str]:
    """The products whose last paid period, or the change that added them, was taken back by a bank."""
    paid = [one for one in _invoices(world, subscription) if one["status"] == "paid"]
    lost: set[str] = set()
    for invoice in sorted(paid, key=lambda one: int(one["created"])):
        credited = {_product_of(line) for line in invoice["lines"]["data"] if line["amount"] < 0}
        started = {_product_of(line) for line in invoice["lines"]["data"]} - credited
        intents = world.of_kind("payment_intent")
        taken = any(_given_back(world, one, refunds=False) for one in intents if one.get("invoice") == invoice["id"])
        lost = lost | started if taken else lost - started
    return lost


def _given_back(world: StripeWorld, intent: Object, *, refunds: bool) -> bool:
    """Whether disputes were lost, or refunds were made, over all that was paid."""
    back = 0
    for charge in world.of_kind("charge", payment_intent=intent["id"]):
        disputes = world.of_kind("dispute", charge=charge["id"], status="lost")
        back += sum(dispute["amount"] for dispute in disputes)
        back += charge["amount_refunded"] if refunds or disputes else 0
    return bool(back >= intent["amount"])


def _invoices(world: StripeWorld, subscription: Object) -> list[Object]:
    details = {"subscription": subscription["id"], "metadata": {}}
    return world.of_kind("invoice", parent={"type": "subscription_details", "subscription_details": details})


def _products(lines: Object) -> set[str]:
    return {line["price"]["product"] for line in lines["data"]}


def _product_of(line: Object) -> str:
    price = line.get("price") or line["pricing"]["price_details"]
    return str(price["product"])
