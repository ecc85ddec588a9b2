"""Sample deliveries: an event of any type of any configured source, signed as its sender signs.

https://docs.stripe.com/webhooks#verify-manually, https://www.standardwebhooks.com; the others: signatures.py.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from standardwebhooks import Webhook

from cli import stripe_events as stripe
from cli.stripe_events import NEW_VERSION, StripeObject
from settings import Settings
from settings.sources import HEADERS
from tasks.documents import callback_url
from tasks.routes import ROUTES

EMAIL = "ada@example.com"  # RFC 2606: nobody's
DOCUMENT, TASK = "doc_sample", "task_sample"

ObjectFactory = Callable[[int, int], StripeObject]  # (which one, when in seconds since 1970) -> the object


@dataclass(frozen=True, slots=True)
class Sample:
    """One delivery: where to, behind the receiver's address, and what."""

    event_id: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def sources(settings: Settings) -> list[str]:
    """Whose events can be signed: those that have a secret."""
    known = {"stripe": settings.stripe_webhook_secret, "documents": settings.doc_webhook_secret}
    return [name for name, secret in known.items() if secret] + list(settings.sources)


def source_of(kind: str) -> str:
    """Who sends events of this type, as the routes have it."""
    return next((source for source, type_ in ROUTES if type_ == kind), "stripe")


def sample(settings: Settings, source: str, kind: str, number: int, now: int) -> Sample:
    """A new event of the type `kind`, about the objects of this number; it is signed with the first secret.

    Raises KeyError for a source that has no secret.
    """
    if source not in sources(settings):
        raise KeyError(source)
    if source == "stripe":
        return _stripe(settings, kind, number, now)
    return _document(settings, kind, number, now) if source == "documents" else _own(settings, source, kind, now)


# --- Stripe -----------------------------------------------------------------------------------------------------------


def _invoice(status: str) -> ObjectFactory:
    def made(number: int, now: int) -> StripeObject:
        invoice = stripe.failed_invoice(number, EMAIL, 1, now, NEW_VERSION)
        if status == "open":
            return invoice
        paid = invoice["total"] if status == "paid" else 0
        settled = {"amount_paid": paid, "amount_remaining": invoice["total"] - paid, "next_payment_attempt": None}
        return invoice | settled | {"status": status}

    return made


def _checkout(status: str, *, paid: bool) -> ObjectFactory:
    return lambda number, now: stripe.checkout_session(number, EMAIL, paid=paid, created=now) | {"status": status}


def _subscription(status: str) -> ObjectFactory:
    return lambda number, now: stripe.subscription(number, status, now)


def _customer(number: int, now: int) -> StripeObject:
    return stripe.customer(number, EMAIL, now)


def _dispute(status: str) -> ObjectFactory:
    return lambda number, now: stripe.dispute(number, stripe.refunded_charge(number, now), status, now)


# What an event is about. A type that nobody handles is about a customer.
OBJECTS: Mapping[str, ObjectFactory] = {
    "invoice.payment_failed": _invoice("open"),
    "invoice.payment_action_required": _invoice("open"),
    "invoice.paid": _invoice("paid"),
    "invoice.payment_succeeded": _invoice("paid"),
    "invoice.voided": _invoice("void"),
    "invoice.marked_uncollectible": _invoice("uncollectible"),
    "customer.subscription.created": _subscription("active"),
    "customer.subscription.updated": _subscription("active"),
    "customer.subscription.deleted": _subscription("canceled"),
    "customer.subscription.paused": _subscription("paused"),
    "customer.subscription.resumed": _subscription("active"),
    "customer.subscription.trial_will_end": _subscription("trialing"),
    "checkout.session.completed": _checkout("complete", paid=True),
    "checkout.session.async_payment_succeeded": _checkout("complete", paid=True),
    "checkout.session.async_payment_failed": _checkout("complete", paid=False),
    "checkout.session.expired": _checkout("expired", paid=False),
    "charge.refunded": stripe.refunded_charge,
    "refund.failed": stripe.failed_refund,
    "refund.updated": stripe.failed_refund,
    "charge.refund.updated": stripe.failed_refund,
    "charge.dispute.created": _dispute("needs_response"),
    "charge.dispute.updated": _dispute("under_review"),
    "charge.dispute.closed": _dispute("lost"),
    "payout.failed": stripe.failed_payout,
}


def _stripe(settings: Settings, kind: str, number: int, now: int) -> Sample:
    made = OBJECTS.get(kind, _customer)
    new = secrets.randbits(64)
    body = stripe.event(new, kind, made(number, now), now, livemode=settings.stripe_mode == "live")
    signed = {"Stripe-Signature": stripe.signature(body, settings.stripe_webhook_secret[0], now)}
    return Sample(stripe.event_id(new), "/stripe-webhook", body, signed)


# --- the document service, and senders of the user's own --------------------------------------------------------------


def _document(settings: Settings, kind: str, number: int, now: int) -> Sample:
    """A callback about a task that nobody has started, unless somebody names one of theirs `task_sample`."""
    told: dict[str, Any] = {"task_id": f"{TASK}_{number}", "status": kind}
    if kind == "completed":
        told["result_url"] = "https://documents.example.com/result.pdf"
    if kind == "failed":
        told["error_message"] = "a sample of a failure"
    body, scheme, secret = json.dumps(told).encode(), settings.doc_webhook_scheme, settings.doc_webhook_secret[0]
    name = f"msg_{secrets.token_hex(12)}" if scheme == "standard" else ""
    path = callback_url.PATH
    if scheme == "token":
        path += "?" + urlencode({"document": DOCUMENT, "token": callback_url.token(secret, DOCUMENT)})
    header = settings.doc_webhook_header or HEADERS.get(scheme, "")
    return Sample(name, path, body, _proof((scheme, header, secret), name, body, now))


def _own(settings: Settings, source: str, kind: str, now: int) -> Sample:
    """With its id and type where SOURCES says that they are."""
    setting, name = settings.sources[source], f"evt_{secrets.token_hex(12)}"
    body: dict[str, Any] = {"sample": name}
    headers: dict[str, str] = {}
    for place, value in ((setting.id, name), (setting.type, kind)):
        where, _, key = place.partition(":")
        if where == "header":
            headers[key] = value
        elif key:
            _put(body, key.split("."), value)
    raw = json.dumps(body).encode()
    proof = _proof((setting.scheme, setting.header, setting.secrets[0]), name, raw, now)
    return Sample(name if setting.id else "", f"/hooks/{source}", raw, headers | proof)


def _put(body: dict[str, Any], path: list[str], value: str) -> None:
    for part in path[:-1]:
        body = body.setdefault(part, {})
    body[path[-1]] = value


def _proof(by: tuple[str, str, str], name: str, body: bytes, now: int) -> dict[str, str]:
    """The headers that prove the sender `by` (scheme, header, secret); the schemes are those of DOC_WEBHOOK_SCHEME."""
    scheme, header, secret = by
    match scheme:
        case "hmac-sha256":
            return {header: "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()}
        case "bearer":
            return {header: f"Bearer {secret}"}
        case "token":
            return {}
    signed = Webhook(secret).sign(name, datetime.fromtimestamp(now, UTC), body.decode())
    return {"webhook-id": name, "webhook-timestamp": str(now), "webhook-signature": signed}
