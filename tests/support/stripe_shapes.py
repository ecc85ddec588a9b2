"""The shape of Stripe's objects, from the annotations of its library's resource classes.

They are those of one API version, the library's. What older versions had in another place stands in OLDER, with the
changelog that moved it.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

import stripe
from msgspec import Struct
from msgspec.structs import fields
from stripe import ListObject, StripeObject

PARENT = "https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects"
PAYMENTS = "https://docs.stripe.com/changelog/basil/2025-03-31/add-support-for-multiple-partial-payments-on-invoices"
DISCOUNTS = "https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-singular-coupon-promotion-code"
PRICING = "https://docs.stripe.com/changelog/basil/2025-03-31/invoice-pricing-configurations"
PERIODS = "https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-subscription-current-period-start-and-end"
UI_MODES = "https://docs.stripe.com/changelog/dahlia/2026-03-25/updates-available-checkout-session-ui-modes"

# (object, field): its former type, and the changelog that removed it.
OLDER: Mapping[tuple[str, str], tuple[Any, str]] = {
    ("invoice", "subscription"): (str | None, PARENT),
    ("invoice", "charge"): (str | None, PAYMENTS),
    ("invoice", "paid"): (bool, PAYMENTS),
    ("invoice", "payment_intent"): (str | None, PAYMENTS),
    ("charge", "invoice"): (str | None, PAYMENTS),
    ("payment_intent", "invoice"): (str | None, PAYMENTS),
    ("invoice", "subscription_details"): (stripe.Invoice.Parent.SubscriptionDetails | None, PARENT),
    ("line_item", "plan"): (stripe.Plan | None, PRICING),
    ("line_item", "price"): (stripe.Price | None, PRICING),
    ("line_item", "proration"): (bool, PARENT),
    ("line_item", "type"): (Literal["invoiceitem", "subscription"], PARENT),
    ("subscription", "discount"): (dict[str, Any] | None, DISCOUNTS),
    ("subscription", "current_period_end"): (int, PERIODS),
    ("checkout.session", "ui_mode"): (Literal["custom", "embedded", "hosted"] | None, UI_MODES),
}
# (object, field): the changelog that added it: no older version has it.
NEWER: Mapping[tuple[str, str], str] = {("invoice", "parent"): PARENT, ("invoice", "payments"): PAYMENTS}

SHAPES: Mapping[str, type[StripeObject]] = {
    "charge": stripe.Charge,
    "checkout.session": stripe.checkout.Session,
    "customer": stripe.Customer,
    "dispute": stripe.Dispute,
    "entitlements.active_entitlement": stripe.entitlements.ActiveEntitlement,
    "entitlements.active_entitlement_summary": stripe.entitlements.ActiveEntitlementSummary,
    "event": stripe.Event,
    "invoice": stripe.Invoice,
    "invoice_payment": stripe.InvoicePayment,
    "item": stripe.LineItem,
    "line_item": stripe.InvoiceLineItem,
    "payment_intent": stripe.PaymentIntent,
    "payment_method": stripe.PaymentMethod,
    "payout": stripe.Payout,
    "radar.early_fraud_warning": stripe.radar.EarlyFraudWarning,
    "price": stripe.Price,
    "refund": stripe.Refund,
    "subscription": stripe.Subscription,
    "subscription_item": stripe.SubscriptionItem,
}


def misfits(thing: Mapping[str, Any], *, old: bool = False) -> list[str]:
    """Every field of an object that Stripe does not have there, or has in another type.

    `old`: by an API version before all the changelogs above, instead of the library's.
    """
    return list(_of_object(thing, SHAPES[thing["object"]], thing["object"], old))


def misread(ours: type[Struct], theirs: type[StripeObject], name: str) -> list[str]:
    """Every field that we read of Stripe's object `name` and that it never had, or that may be null, but not to us."""
    return list(_of_struct(ours, theirs, name))


def _of_object(thing: Mapping[str, Any], shape: type[StripeObject], path: str, old: bool) -> Iterator[str]:
    for name, value in thing.items():
        place = (path, name)
        hint = OLDER[place][0] if old and place in OLDER else shape.__annotations__.get(name)
        if hint is None or (old and place in NEWER):
            yield f"{path}.{name} is not there"
        else:
            yield from _of_value(value, _choices(hint), f"{path}.{name}", old)


def _of_value(value: Any, choices: tuple[Any, ...], path: str, old: bool) -> Iterator[str]:
    things = value["data"] if isinstance(value, dict) and value.get("object") == "list" else value
    inner = next((get_args(each)[0] for each in choices if get_origin(each) in (list, ListObject)), None)
    shape = _shape(choices, value)
    if isinstance(things, list) and inner is not None:
        for each in things:
            yield from _of_value(each, _choices(inner), path, old)
    elif isinstance(value, dict) and shape:
        yield from _of_object(value, shape, str(value.get("object", path)), old)
    elif not any(_is_plain(value, each) for each in choices):
        yield f"{path} is {value!r}"


def _is_plain(value: Any, choice: Any) -> bool:
    """Whether it is a value of a type without fields. True is not an int here, and metadata may be anything."""
    if get_origin(choice) is Literal:
        return value in get_args(choice)
    return type(value) is choice or choice is Any or (isinstance(value, dict) and get_origin(choice) is not None)


def _of_struct(ours: type[Struct], theirs: type[StripeObject], path: str) -> Iterator[str]:
    for field in fields(ours):
        hint = theirs.__annotations__.get(field.name) or OLDER.get((path, field.name), (None,))[0]
        if hint is None:
            yield f"{path}.{field.name} is not there"
            continue
        mine, choices = _choices(field.type), _choices(hint)
        if type(None) in choices and type(None) not in mine:
            yield f"{path}.{field.name} may be null"
        inner, shape = _inner(mine), _shape(choices)
        if inner and shape:
            yield from _of_struct(inner, shape, f"{path}.{field.name}")


def _inner(choices: tuple[Any, ...]) -> type[Struct] | None:
    return next((each for each in choices if isinstance(each, type) and issubclass(each, Struct)), None)


def _shape(choices: tuple[Any, ...], value: Any = None) -> type[StripeObject] | None:
    """The class of an object here; of an expanded one, by its field `object`."""
    for each in choices:
        if isinstance(each, ForwardRef):
            return SHAPES.get(str(value.get("object"))) if isinstance(value, dict) else None
        if isinstance(each, type) and issubclass(each, StripeObject):
            return each
    return None


def _choices(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union. If the library lists the values of a text, no other value is accepted."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (ForwardRef(hint) if isinstance(hint, str) else hint,)
    flat = [each for part in get_args(hint) for each in _choices(part)]
    worded = any(get_origin(each) is Literal for each in flat)
    return tuple(each for each in flat if not (worded and each is str))
