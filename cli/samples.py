"""Sample deliveries: an event of any type from any configured source, with the signature that the source would use.

The schemes: https://docs.stripe.com/webhooks#verify-manually, https://www.standardwebhooks.com, and for the others
web/receiver/signatures.py.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from standardwebhooks import Webhook

from cli import stripe_events as stripe
from cli.stripe_events import NEW_VERSION, StripeObject
from settings import Settings
from settings.sources import HEADERS
from tasks.documents import callback_url
from tasks.routes import ROUTES

EMAIL = "ada@example.com"  # RFC 2606: a reserved domain
DOCUMENT, TASK = "doc_sample", "task_sample"

ObjectFactory = Callable[[int, int], StripeObject]  # (number, seconds since 1970) -> the event's object


@dataclass(frozen=True, slots=True)
class Sample:
    """One signed request; `path` is relative to the receiver's URL."""

    event_id: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Auth(NamedTuple):
    """How a source authenticates; the schemes are those of DOC_WEBHOOK_SCHEME."""

    scheme: str
    header: str
    secret: str


def sources(settings: Settings) -> list[str]:
    """The sources that have a secret, so that their events can be signed."""
    known = {"stripe": settings.stripe_webhook_secret, "documents": settings.doc_webhook_secret}
    return [name for name, secret in known.items() if secret] + list(settings.sources)


def source_of(kind: str) -> str:
    """The source whose events of this type are routed; "stripe" if none is."""
    return next((source for source, type_ in ROUTES if type_ == kind), "stripe")


def sample(settings: Settings, source: str, kind: str, number: int, now: int) -> Sample:
    """A new event of type `kind` about the objects with this number, signed with the source's first secret.

    Raises KeyError if the source has no secret.
    """
    if source not in sources(settings):
        raise KeyError(source)
    if source == "stripe":
        return _stripe(settings, kind, number, now)
    return _document(settings, kind, number, now) if source == "documents" else _custom(settings, source, kind, now)


# --- Stripe -----------------------------------------------------------------------------------------------------------


def _invoice(status: str) -> ObjectFactory:
    def create(number: int, now: int) -> StripeObject:
        invoice = stripe.failed_invoice(number, EMAIL, 1, now, NEW_VERSION)
        if status == "open":
            return invoice
        paid = invoice["total"] if status == "paid" else 0
        settled = {"amount_paid": paid, "amount_remaining": invoice["total"] - paid, "next_payment_attempt": None}
        return invoice | settled | {"status": status}

    return create


def _upcoming(number: int, now: int) -> StripeObject:
    """The invoice of a renewal in a week: it has no id yet."""
    invoice = stripe.failed_invoice(number, EMAIL, 0, now, NEW_VERSION) | {"status": "draft", "attempted": False}
    return {name: value for name, value in invoice.items() if name != "id"} | {"next_payment_attempt": now + 7 * 86400}


def _invoice_payment(number: int, now: int) -> StripeObject:
    """How the invoice with this number was paid."""
    invoice = stripe.failed_invoice(number, EMAIL, 1, now, NEW_VERSION)
    paid_by = {"type": "payment_intent", "payment_intent": stripe.paid_intent(number, now)["id"]}
    amounts = {"amount_paid": invoice["total"], "amount_requested": invoice["total"], "currency": invoice["currency"]}
    state = {"created": now, "is_default": True, "livemode": False, "status": "paid"}
    names = {"id": invoice["id"].replace("in_", "inpay_", 1), "object": "invoice_payment", "invoice": invoice["id"]}
    return names | amounts | state | {"payment": paid_by}


def _checkout(status: str, *, paid: bool) -> ObjectFactory:
    return lambda number, now: stripe.checkout_session(number, EMAIL, paid=paid, created=now) | {"status": status}


def _subscription(status: str) -> ObjectFactory:
    return lambda number, now: stripe.subscription(number, status, now)


def _customer(number: int, now: int) -> StripeObject:
    return stripe.customer(number, EMAIL, now)


def _dispute(status: str) -> ObjectFactory:
    return lambda number, now: stripe.dispute(number, stripe.refunded_charge(number, now), status, now)


# The object of each event type; other types are about a customer.
OBJECTS: Mapping[str, ObjectFactory] = {
    "invoice.payment_failed": _invoice("open"),
    "invoice.payment_action_required": _invoice("open"),
    "invoice.paid": _invoice("paid"),
    "invoice.payment_succeeded": _invoice("paid"),
    "invoice.voided": _invoice("void"),
    "invoice.marked_uncollectible": _invoice("uncollectible"),
    "invoice.upcoming": _upcoming,
    "invoice.overdue": _invoice("open"),
    "invoice_payment.paid": _invoice_payment,
    "invoice.finalization_failed": _invoice("open"),
    "customer.updated": _customer,
    "payment_method.attached": stripe.payment_method,
    "payment_method.automatically_updated": stripe.payment_method,
    "radar.early_fraud_warning.created": stripe.fraud_warning,
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
    "payment_intent.succeeded": stripe.paid_intent,
    "entitlements.active_entitlement_summary.updated": stripe.active_entitlements,
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
    create = OBJECTS.get(kind, _customer)
    new = secrets.randbits(64)
    body = stripe.event(new, kind, create(number, now), now, livemode=settings.stripe_mode == "live")
    headers = {"Stripe-Signature": stripe.signature(body, settings.stripe_webhook_secret[0], now)}
    return Sample(stripe.event_id(new), "/stripe-webhook", body, headers)


# --- the document service and sources of SOURCES ----------------------------------------------------------------------


def _document(settings: Settings, kind: str, number: int, now: int) -> Sample:
    """A callback about a task id that no document has, unless someone uses `task_sample_<number>`."""
    status: dict[str, Any] = {"task_id": f"{TASK}_{number}", "status": kind}
    if kind == "completed":
        status["result_url"] = "https://documents.example.com/result.pdf"
    if kind == "failed":
        status["error_message"] = "sample failure"
    body, scheme, secret = json.dumps(status).encode(), settings.doc_webhook_scheme, settings.doc_webhook_secret[0]
    name = f"msg_{secrets.token_hex(12)}" if scheme == "standard" else ""
    path = callback_url.PATH
    if scheme == "token":
        path += "?" + urlencode({"document": DOCUMENT, "token": callback_url.token(secret, DOCUMENT)})
    header = settings.doc_webhook_header or HEADERS.get(scheme, "")
    return Sample(name, path, body, _auth_headers(Auth(scheme, header, secret), name, body, now))


def _custom(settings: Settings, source: str, kind: str, now: int) -> Sample:
    """An event with its id and type in the header or body field that SOURCES names."""
    setting, name = settings.sources[source], f"evt_{secrets.token_hex(12)}"
    body: dict[str, Any] = {"sample": name}
    headers: dict[str, str] = {}
    for field_name, value in ((setting.id, name), (setting.type, kind)):
        where, _, key = field_name.partition(":")
        if where == "header":
            headers[key] = value
        elif key:
            _put(body, key.split("."), value)
    raw = json.dumps(body).encode()
    auth = _auth_headers(Auth(setting.scheme, setting.header, setting.secrets[0]), name, raw, now)
    return Sample(name if setting.id else "", f"/hooks/{source}", raw, headers | auth)


def _put(body: dict[str, Any], path: list[str], value: str) -> None:
    for part in path[:-1]:
        body = body.setdefault(part, {})
    body[path[-1]] = value


def _auth_headers(auth: Auth, name: str, body: bytes, now: int) -> dict[str, str]:
    """The headers that authenticate the request."""
    match auth.scheme:
        case "hmac-sha256":
            return {auth.header: "sha256=" + hmac.digest(auth.secret.encode(), body, hashlib.sha256).hex()}
        case "bearer":
            return {auth.header: f"Bearer {auth.secret}"}
        case "token":
            return {}
    signed = Webhook(auth.secret).sign(name, datetime.fromtimestamp(now, UTC), body.decode())
    return {"webhook-id": name, "webhook-timestamp": str(now), "webhook-signature": signed}
