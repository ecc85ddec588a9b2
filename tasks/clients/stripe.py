"""Calls to Stripe, by its official library. The errors name the code, never what Stripe wrote about a person.

Each call may raise TransientError (no connection, 429, 5xx) or PermanentError (everything that Stripe refuses).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import stripe

from inbox.errors import PermanentError, TransientError
from settings import Settings
from tasks.clients.answers import retry_after_seconds

logging.getLogger("stripe").setLevel(logging.WARNING)  # at INFO it writes Stripe's error messages

TIMEOUT_SECONDS = (5.0, 25.0)  # to connect, to read


class Refused(PermanentError):
    """Stripe will not do it: a declined card, no card at all, an invoice that is paid already."""

    def __init__(self, code: str) -> None:
        super().__init__(f"Stripe refused: {code}")
        self.code = code


def fetch_invoice(settings: Settings, invoice: str, now: datetime) -> dict[str, Any]:
    """The invoice as it is now."""
    return _ask(now, lambda: _client(settings).v1.invoices.retrieve(invoice))


def fetch_customer(settings: Settings, customer: str, now: datetime) -> dict[str, Any]:
    """The customer as it is now; a deleted one has little more than its id."""
    return _ask(now, lambda: _client(settings).v1.customers.retrieve(customer))


def pay_invoice(settings: Settings, invoice: str, now: datetime, key: str) -> dict[str, Any]:
    """Try to collect the invoice; once per `key`, however often it is called. Raises Refused."""
    return _ask(now, lambda: _client(settings).v1.invoices.pay(invoice, options={"idempotency_key": key}))


def decline_of(settings: Settings, invoice: dict[str, Any], now: datetime) -> str | None:
    """Why an unpaid invoice was declined, where its payment intent tells; None while the payment is still under way.

    By Stripe's newer API versions an invoice has no `payment_intent`, and a decline is always Refused.
    """
    intent = invoice.get("payment_intent")
    if not isinstance(intent, str):
        return None
    state = _ask(now, lambda: _client(settings).v1.payment_intents.retrieve(intent))
    if state.get("status") != "requires_payment_method":
        return None
    return str((state.get("last_payment_error") or {}).get("code") or "declined")


def _client(settings: Settings) -> stripe.StripeClient:
    return stripe.StripeClient(
        settings.stripe_api_key,
        base_addresses={"api": settings.stripe_api_base},
        http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
        max_network_retries=0,  # the durable record retries
    )


def _ask(now: datetime, call: Callable[[], stripe.StripeObject]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = call().to_dict()
        return answer
    except stripe.APIConnectionError:
        raise TransientError("Stripe could not be reached") from None
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        raise Refused(_code(error)) from None
    except (stripe.AuthenticationError, stripe.PermissionError):
        raise PermanentError("Stripe refused STRIPE_API_KEY") from None
    except stripe.StripeError as error:
        headers: Mapping[str, str] = error.headers or {}
        what = f"Stripe answered {error.http_status or 'nothing that can be read'}"
        raise TransientError(what, retry_after_seconds(headers, now)) from None


def _code(error: stripe.StripeError) -> str:
    """What people can look up: the bank's reason, or else Stripe's code, or else the status."""
    decline = getattr(error.error, "decline_code", None)
    return str(decline or error.code or f"http_{error.http_status}")
