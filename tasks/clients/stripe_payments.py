"""The payments of an invoice: whether one is in progress, why the last was declined, and what would be charged.

Errors are those of stripe.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote_plus as quote

from tasks.clients.stripe import fetch_customer, fetch_subscription, request
from tasks.handler import Attempt

# Statuses of a payment intent: https://docs.stripe.com/payments/paymentintents/lifecycle
DECLINED = {"requires_payment_method": "declined", "requires_action": "authentication_required"}  # status: our code
IN_PROGRESS = frozenset({"processing", "requires_capture"})
# Countries whose cards Stripe does not retry: https://docs.stripe.com/billing/revenue-recovery/smart-retries
NEVER_RETRIED = frozenset({"IN"})


class Payment(NamedTuple):
    """The latest payment of an invoice: why it was declined, or that it is in progress. Defaults: not known."""

    code: str | None = None  # the bank's decline code, or Stripe's error code
    method: str | None = None  # id of the payment method that was declined
    type: str | None = None  # of that method: card, sepa_debit, …
    last4: str | None = None  # the last four digits of that card or account
    final: bool = False  # the bank advises not to try this payment method again, or Stripe never does
    in_progress: bool = False


def subscription_of(invoice: dict[str, Any]) -> str | None:
    """The subscription id of an invoice in the shape of the library's API version; None if it has none."""
    parent = invoice.get("parent") or {}
    return (parent.get("subscription_details") or {}).get("subscription")


def fetch_payment(attempt: Attempt, invoice: dict[str, Any]) -> Payment:
    """The latest payment of an unpaid invoice, from its payment intent; Payment() if it has none.

    https://docs.stripe.com/payments/paymentintents/lifecycle
    """
    intent = _intent_of(attempt, invoice)
    if intent is None:
        return Payment()
    found = request(attempt, "get", f"/v1/payment_intents/{quote(intent)}")
    error = found.get("last_payment_error") or {}
    status = found.get("status")
    if status not in DECLINED:
        return Payment(in_progress=status in IN_PROGRESS)
    declined = error.get("payment_method") or error.get("source") or {}
    code = error.get("decline_code") or error.get("code") or DECLINED[status]
    type_, details = _details(declined)
    final = error.get("advice_code") == "do_not_try_again" or details.get("country") in NEVER_RETRIED
    return Payment(str(code), declined.get("id") or found.get("payment_method"), type_, details.get("last4"), final)


def _details(method: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """The type of a payment method, or of a source of older integrations, and what is specific to that type."""
    type_ = method.get("type") or method.get("object")
    return type_, method.get(type_ or "") or method


def fetch_payment_method(attempt: Attempt, invoice: dict[str, Any]) -> str | None:
    """Id of the payment method that `pay_invoice` would charge: the invoice's, its subscription's or its customer's.

    https://docs.stripe.com/api/invoices/object#invoice_object-default_payment_method
    """
    subscription = subscription_of(invoice) or invoice.get("subscription")
    method = invoice.get("default_payment_method")
    if not method and subscription:
        method = fetch_subscription(attempt, subscription).get("default_payment_method")
    owner = invoice.get("customer") or invoice.get("customer_account")  # of Accounts v2
    if not method and owner:
        method = default_method(fetch_customer(attempt, owner))
    return str(method) if method else None


def default_method(customer: dict[str, Any]) -> str | None:
    """Id of a customer's default payment method; None if there is none."""
    settings = customer.get("invoice_settings") or {}
    return settings.get("default_payment_method") or customer.get("default_source")


def _intent_of(attempt: Attempt, invoice: dict[str, Any]) -> str | None:
    """Id of the payment intent: a field of the invoice, or (since API version basil) in its list of payments.

    An invoice may have several payments: parts of it, and some made outside Stripe. The default one is what Stripe
    collects; without one it is the newest that is open. https://docs.stripe.com/api/invoice-payment/object
    """
    if "payment_intent" in invoice:
        intent = invoice["payment_intent"]
        return intent if isinstance(intent, str) else None
    found = request(attempt, "get", "/v1/invoice_payments", invoice=str(invoice["id"]))
    intents = [one for one in found.get("data") or [] if (one.get("payment") or {}).get("payment_intent")]
    best = max(intents, key=_relevance, default=None)
    return str(best["payment"]["payment_intent"]) if best else None


def _relevance(payment: dict[str, Any]) -> tuple[bool, bool, int]:
    return bool(payment.get("is_default")), payment.get("status") == "open", payment.get("created") or 0
