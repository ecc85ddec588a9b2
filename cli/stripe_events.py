"""Events as Stripe sends them, in the formats before and since API version 2025-03-31 (`basil`), and their signature.

tests/unit/tasks/billing/test_stripe_shapes.py compares them with Stripe's library.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

StripeObject = dict[str, Any]
OLD_VERSION = "2024-06-20"
NEW_VERSION = "2026-10-28.endive"


def signature(body: bytes, secret: str, at: int) -> str:
    """The value of Stripe-Signature for this body, signed at this time (seconds since 1970)."""
    digest = hmac.new(secret.encode(), b"%d.%s" % (at, body), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def event(
    number: int, kind: str, thing: StripeObject, created: int, version: str = NEW_VERSION, *, livemode: bool = False
) -> bytes:
    """The raw body of one snapshot event."""
    return json.dumps(
        {
            "id": event_id(number),
            "object": "event",
            "api_version": version,
            "created": created,
            "data": {"object": thing},
            "livemode": livemode,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        },
        indent=2,  # as Stripe does; verifying a re-serialized body instead of the raw one fails
    ).encode()


def event_id(number: int) -> str:
    return _id("evt_1Demo", number)


def failed_invoice(number: int, email: str, attempt: int, created: int, version: str) -> dict[str, Any]:
    """An invoice whose payment failed. Since `basil` the subscription id is in another field."""
    subscription = _id("sub_1Demo", number)
    invoice = {
        "id": _id("in_1Demo", number),
        "object": "invoice",
        "account_country": "US",
        "amount_due": 2500,
        "amount_paid": 0,
        "amount_remaining": 2500,
        "attempt_count": attempt,
        "attempted": True,
        "auto_advance": True,
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "created": created,
        "currency": "usd",
        "customer": _id("cus_Demo", number),
        "customer_email": email,
        "customer_name": "Ada Lovelace",
        "hosted_invoice_url": f"https://invoice.stripe.com/i/acct_1Demo/test_{number}",
        "lines": {"object": "list", "data": [], "has_more": False, "url": f"/v1/invoices/{number}/lines"},
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": created + 3 * 86400,
        "number": f"DEMO-{number:04}",
        "period_end": created,
        "period_start": created - 30 * 86400,
        "status": "open",
        "subtotal": 2500,
        "total": 2500,
    }
    if version == OLD_VERSION:
        old = {"charge": _id("ch_3Demo", number), "payment_intent": _id("pi_3Demo", number), "paid": False}
        return invoice | old | {"subscription": subscription}
    details = {"metadata": {}, "subscription": subscription}
    return invoice | {
        "parent": {"quote_details": None, "subscription_details": details, "type": "subscription_details"}
    }


def checkout_session(
    number: int, email: str, *, paid: bool, created: int, version: str = NEW_VERSION
) -> dict[str, Any]:
    """A completed checkout. An unpaid one waits for a bank transfer and must not be fulfilled yet."""
    return {
        "id": _id("cs_test_a1Demo", number),
        "object": "checkout.session",
        "amount_subtotal": 4900,
        "amount_total": 4900,
        "cancel_url": "https://shop.example.test/cancel",
        "client_reference_id": f"user-{number}",
        "created": created,
        "currency": "eur",
        "customer": _id("cus_Demo", number),
        "customer_details": {
            "email": email,
            "name": "Grace Hopper",
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        },
        "customer_email": None,
        "expires_at": created + 86400,
        "livemode": False,
        "locale": "en",
        "metadata": {"product": "handbook"},
        "mode": "payment",
        "payment_intent": _id("pi_3Demo", number),
        "payment_method_types": ["card"] if paid else ["customer_balance"],
        "payment_status": "paid" if paid else "unpaid",
        "status": "complete",
        "subscription": None,
        "success_url": "https://shop.example.test/thanks",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted" if version == OLD_VERSION else "hosted_page",
        "url": None,
    }


def dispute(number: int, charge: StripeObject, status: str, created: int) -> StripeObject:
    """A dispute of this charge."""
    return {
        "id": _id("dp_1Demo", number),
        "object": "dispute",
        "amount": charge["amount"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": created,
        "currency": charge["currency"],
        "evidence": {},
        "evidence_details": {"due_by": created + 7 * 86400, "has_evidence": False, "submission_count": 0},
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": "product_not_received",
        "status": status,
    }


def customer(number: int, email: str, created: int) -> dict[str, Any]:
    return {
        "id": _id("cus_Demo", number),
        "object": "customer",
        "balance": 0,
        "created": created,
        "email": email,
        "livemode": False,
        "metadata": {},
        "name": "Alan Turing",
    }


def payment_method(number: int, created: int) -> StripeObject:
    """A card of the customer with this number."""
    return {
        "id": _id("pm_1Demo", number),
        "object": "payment_method",
        "card": {"brand": "visa", "country": "US", "exp_month": 8, "exp_year": 2034, "last4": "4242"},
        "created": created,
        "customer": _id("cus_Demo", number),
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def fraud_warning(number: int, created: int) -> StripeObject:
    """A warning about the charge of the checkout with this number."""
    return {
        "id": _id("issfr_1Demo", number),
        "object": "radar.early_fraud_warning",
        "actionable": True,
        "charge": _id("ch_3Demo", number),
        "created": created,
        "fraud_type": "made_with_stolen_card",
        "livemode": False,
    }


def subscription(number: int, status: str, created: int) -> StripeObject:
    """The subscription of the invoice with this number."""
    return {
        "id": _id("sub_1Demo", number),
        "object": "subscription",
        "cancel_at_period_end": False,
        "collection_method": "charge_automatically",
        "created": created - 30 * 86400,
        "currency": "usd",
        "customer": _id("cus_Demo", number),
        "livemode": False,
        "metadata": {},
        "start_date": created - 30 * 86400,
        "status": status,
        "trial_end": created + 3 * 86400 if status == "trialing" else None,
    }


def active_entitlements(number: int, created: int) -> StripeObject:
    """What the customer with this number may use."""
    entitlement = {
        "id": _id("ent_Demo", number),
        "object": "entitlements.active_entitlement",
        "feature": _id("feat_Demo", number),
        "livemode": False,
        "lookup_key": "videos",
    }
    listed = {"object": "list", "data": [entitlement], "has_more": False, "url": "/v1/entitlements/active_entitlements"}
    summary = {"object": "entitlements.active_entitlement_summary", "customer": _id("cus_Demo", number)}
    return summary | {"entitlements": listed, "livemode": False}


def refunded_charge(number: int, created: int) -> StripeObject:
    """The charge of the checkout with this number, fully refunded."""
    return {
        "id": _id("ch_3Demo", number),
        "object": "charge",
        "amount": 4900,
        "amount_captured": 4900,
        "amount_refunded": 4900,
        "captured": True,
        "created": created,
        "currency": "eur",
        "customer": _id("cus_Demo", number),
        "disputed": False,
        "livemode": False,
        "metadata": {},
        "paid": True,
        "payment_intent": _id("pi_3Demo", number),
        "refunded": True,
        "status": "succeeded",
    }


def paid_intent(number: int, created: int) -> StripeObject:
    """The payment of the checkout with this number."""
    return {
        "id": _id("pi_3Demo", number),
        "object": "payment_intent",
        "amount": 4900,
        "amount_received": 4900,
        "created": created,
        "currency": "eur",
        "customer": _id("cus_Demo", number),
        "livemode": False,
        "metadata": {},
        "receipt_email": None,
        "status": "succeeded",
    }


def failed_refund(number: int, created: int) -> StripeObject:
    """A refund that the customer's bank returned."""
    return {
        "id": _id("re_3Demo", number),
        "object": "refund",
        "amount": 4900,
        "charge": _id("ch_3Demo", number),
        "created": created,
        "currency": "eur",
        "failure_reason": "lost_or_stolen_card",
        "metadata": {},
        "payment_intent": _id("pi_3Demo", number),
        "reason": "requested_by_customer",
        "status": "failed",
    }


def failed_payout(number: int, created: int) -> StripeObject:
    """A payout to our bank account that failed."""
    return {
        "id": _id("po_1Demo", number),
        "object": "payout",
        "amount": 250_000,
        "arrival_date": created,
        "automatic": True,
        "created": created,
        "currency": "eur",
        "failure_code": "account_closed",
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "status": "failed",
        "type": "bank_account",
    }


def _id(prefix: str, number: int) -> str:
    """An id as long as Stripe's, and the same in every run."""
    return prefix + hashlib.sha256(f"{prefix}{number}".encode()).hexdigest()[:20]
