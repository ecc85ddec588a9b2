"""What Stripe's API answers, where the simulators of it need more than the sample events of cli/stripe_events.py."""

from __future__ import annotations

from cli.stripe_events import OLD_VERSION, StripeObject

# What `basil` took away: https://docs.stripe.com/changelog/basil
GONE = {"invoice": ("charge", "paid", "payment_intent", "subscription"), "charge": ("invoice",)}


def listed(url: str, things: list[StripeObject], *, more: bool = False) -> StripeObject:
    """A page of a list."""
    return {"object": "list", "data": things, "has_more": more, "url": url}


def line_item(product: str, name: str, kind: str = "recurring") -> StripeObject:
    """What a checkout session sells, once (`one_time`) or again and again."""
    price = {"id": f"price_{product}", "object": "price", "product": product, "type": kind, "unit_amount": 2500}
    item = {"id": f"li_{product}", "object": "item", "currency": "usd", "price": price, "quantity": 1}
    return item | {"description": name}


def as_of_now(found: StripeObject) -> StripeObject:
    """An invoice, charge or subscription of localstripe's, which is as old as its API, as new versions have it.

    An invoice gets the number that its customer sees, and the page where it can be paid.
    """
    kept = {name: value for name, value in found.items() if name not in GONE.get(found["object"], ())}
    if found["object"] == "invoice":
        details = {"metadata": {}, "subscription": found["subscription"]}
        return kept | {
            "number": f"DEMO-{found['id'][-4:].upper()}",
            "hosted_invoice_url": f"https://invoice.stripe.com/i/acct_1Demo/{found['id']}",
            "parent": {"quote_details": None, "subscription_details": details, "type": "subscription_details"},
        }
    if found["object"] == "subscription":
        return kept | {"items": found["items"] | {"data": [_priced(item) for item in found["items"]["data"]]}}
    return kept


def _priced(item: StripeObject) -> StripeObject:
    """A subscription's item with the price that its plan is called since there are prices."""
    plan = item["plan"]
    return item | {"price": {"id": plan["id"], "object": "price", "product": plan["product"], "type": "recurring"}}


def charge(found: StripeObject, version: str, invoice: str | None) -> StripeObject:
    """A charge of localstripe's as an event of Stripe's has it: without its refunds, and since `basil` without the
    invoice that it has paid."""
    thing = {name: value for name, value in found.items() if name not in ("refunds", "invoice")}
    return thing | ({"invoice": invoice} if version == OLD_VERSION else {})
