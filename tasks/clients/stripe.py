"""Calls to Stripe, by its official library.

Each call is made for the account that the attempt's event came from: https://docs.stripe.com/connect/webhooks.
Each may raise TransientError (no connection, 401, 429, 5xx), Refused (400, 402, 404) or PermanentError (403, or an
unusable payload). Error texts contain Stripe's error code, never its message, which may contain personal data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import stripe
from msgspec import DecodeError, Raw, Struct, json

from inbox.errors import PermanentError, TransientError
from tasks.clients.responses import retry_after_seconds
from tasks.handler import Attempt
from tasks.payloads import Id, parse
from telemetry import tracing

logging.getLogger("stripe").setLevel(logging.WARNING)  # at INFO it logs Stripe's error messages

TIMEOUT_SECONDS = (5.0, 25.0)  # to connect, to read
PAGE_SIZE = 100  # the most that Stripe allows
MAX_TYPES = 20  # the most types that a list of events can be filtered by
# Statuses of a payment intent: https://docs.stripe.com/payments/paymentintents/lifecycle
DECLINED = {"requires_payment_method": "declined", "requires_action": "authentication_required"}  # status: our code
IN_PROGRESS = frozenset({"processing", "requires_capture"})


class Refused(PermanentError):
    """Stripe refused the call: a declined card, no card, an invoice that is already paid, an unknown id.

    `code` is the bank's decline code, or else Stripe's error code, or else `http_<status>`.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"Stripe refused: {code}")
        self.code = code


class OutcomeUnknown(TransientError):
    """Stripe answered 5xx without Stripe-Should-Retry: the call may or may not have had its effect.

    If the call had begun, the same idempotency key returns the same result for 24 hours.

    https://docs.stripe.com/error-low-level#server-errors
    """


class Origin(Struct):
    """The account of an event: `account` in a Connect event, `context` in a thin event, neither for our own account."""

    account: Id | None = None
    context: Id | None = None


def fetch_invoice(attempt: Attempt, invoice: str) -> dict[str, Any]:
    """The invoice as it is now."""
    return _call(attempt, lambda client: client.v1.invoices.retrieve(invoice))


def fetch_subscription(attempt: Attempt, subscription: str) -> dict[str, Any]:
    """The subscription as it is now, also if it is cancelled."""
    return _call(attempt, lambda client: client.v1.subscriptions.retrieve(subscription))


def fetch_customer(attempt: Attempt, customer: str) -> dict[str, Any]:
    """The customer as it is now; of a deleted customer little more than the id."""
    return _call(attempt, lambda client: client.v1.customers.retrieve(customer))


def fetch_charge(attempt: Attempt, charge: str) -> dict[str, Any]:
    """The charge as it is now."""
    return _call(attempt, lambda client: client.v1.charges.retrieve(charge))


def find_invoice(attempt: Attempt, payment_intent: str | None, invoice: str | None) -> dict[str, Any]:
    """The invoice with this id if one is given, or else the invoice that this payment intent paid; {} if there is none.

    https://docs.stripe.com/api/invoice-payment/list
    """
    if invoice:
        return fetch_invoice(attempt, invoice)
    params: Any = {
        "payment": {"type": "payment_intent", "payment_intent": payment_intent},
        "expand": ["data.invoice"],
        "limit": 1,
    }
    found = _call(attempt, lambda client: client.v1.invoice_payments.list(params))["data"]
    return dict(found[0]["invoice"]) if found else {}


def subscription_of(invoice: dict[str, Any]) -> str | None:
    """The subscription id of an invoice in the shape of the library's API version; None if it has none."""
    parent = invoice.get("parent") or {}
    return (parent.get("subscription_details") or {}).get("subscription")


def list_line_items(attempt: Attempt, session: str) -> list[dict[str, Any]]:
    """All line items of a checkout session, from all pages."""
    return _call_all(attempt, lambda client: client.v1.checkout.sessions.line_items.list(session, {"limit": PAGE_SIZE}))


def list_sessions(attempt: Attempt, subscription: str) -> list[dict[str, Any]]:
    """The checkout sessions that created a subscription: one or none. https://docs.stripe.com/api/checkout/sessions/list"""
    found = _call(attempt, lambda client: client.v1.checkout.sessions.list({"subscription": subscription}))
    return list(found["data"])


def fetch_dispute(attempt: Attempt, dispute: str) -> dict[str, Any]:
    """The dispute as it is now."""
    return _call(attempt, lambda client: client.v1.disputes.retrieve(dispute))


def pay_invoice(attempt: Attempt, invoice: str, key: str) -> dict[str, Any]:
    """Charge the invoice, once per idempotency `key`. Returns the invoice. Raises Refused or OutcomeUnknown, too."""
    return _call(attempt, lambda client: client.v1.invoices.pay(invoice, options={"idempotency_key": key}))


def fetch_related(attempt: Attempt) -> dict[str, Any]:
    """The related object of the attempt's thin event, as it is now. Raises PermanentError if the event has none.

    https://docs.stripe.com/event-destinations#fetch-data
    """
    return _call(attempt, lambda client: _related(client, attempt.event.body))


class Payment(NamedTuple):
    """The latest payment of an invoice: why it was declined, or that it is in progress. Defaults: not known."""

    code: str | None = None  # the bank's decline code, or Stripe's error code
    method: str | None = None  # id of the payment method that was declined
    final: bool = False  # the bank advises not to try this payment method again
    in_progress: bool = False


class EventPage(Struct):
    """A page of events, the newest first, each as Stripe's JSON. `last` is the id to continue after; "" at the end."""

    events: list[bytes]
    last: str = ""


def list_events(
    attempt: Attempt, types: Sequence[str], since: int, until: int, after: str, *, everything: bool
) -> EventPage:
    """A page of the events created from `since` to `until` (Unix seconds), after the event `after` ("" for the first).

    Only the events that an endpoint of ours has not received, unless `everything`. With more than MAX_TYPES types the
    page has events of all types, and the caller must filter. https://docs.stripe.com/api/events/list
    """
    params: dict[str, Any] = {"limit": PAGE_SIZE, "created": {"gte": since, "lte": until}}
    if len(types) <= MAX_TYPES:
        params["types"] = list(types)
    if after:
        params["starting_after"] = after
    if not everything:
        params["delivery_success"] = False
    client = _client(attempt)
    with _translate_errors(attempt):
        response = client.raw_request("get", "/v1/events", **params)
    try:
        page = json.decode(str(response.body), type=_EventList)
        last = json.decode(page.data[-1], type=_EventId).id if page.has_more and page.data else ""
        return EventPage([bytes(raw) for raw in page.data], last)
    except DecodeError:
        raise TransientError("Stripe's response is not a list of events") from None


class _EventList(Struct):
    data: list[Raw]
    has_more: bool = False


class _EventId(Struct):
    id: Id


def fetch_payment(attempt: Attempt, invoice: dict[str, Any]) -> Payment:
    """The latest payment of an unpaid invoice, from its payment intent; Payment() if it has none.

    https://docs.stripe.com/payments/paymentintents/lifecycle
    """
    intent = _intent_of(attempt, invoice)
    if intent is None:
        return Payment()
    found = _call(attempt, lambda client: client.v1.payment_intents.retrieve(intent))
    error = found.get("last_payment_error") or {}
    status = found.get("status")
    if status not in DECLINED:
        return Payment(in_progress=status in IN_PROGRESS)
    method = (error.get("payment_method") or error.get("source") or {}).get("id") or found.get("payment_method")
    code = error.get("decline_code") or error.get("code") or DECLINED[status]
    return Payment(str(code), method, final=error.get("advice_code") == "do_not_try_again")


def fetch_payment_method(attempt: Attempt, invoice: dict[str, Any]) -> str | None:
    """Id of the payment method that `pay_invoice` would charge: the invoice's, its subscription's or its customer's.

    https://docs.stripe.com/api/invoices/object#invoice_object-default_payment_method
    """
    subscription = subscription_of(invoice) or invoice.get("subscription")
    method = invoice.get("default_payment_method")
    if not method and subscription:
        method = fetch_subscription(attempt, subscription).get("default_payment_method")
    if not method and invoice.get("customer"):
        customer = fetch_customer(attempt, invoice["customer"])
        method = (customer.get("invoice_settings") or {}).get("default_payment_method") or customer.get(
            "default_source"
        )
    return str(method) if method else None


def _intent_of(attempt: Attempt, invoice: dict[str, Any]) -> str | None:
    """Id of the payment intent: a field of the invoice, or (since API version basil) in its list of payments."""
    intent = invoice.get("payment_intent")
    if "payment_intent" not in invoice:
        found = _call(attempt, lambda client: client.v1.invoice_payments.list({"invoice": str(invoice["id"])}))
        newest: dict[str, Any] = max(found.get("data") or [{}], key=lambda payment: payment.get("created") or 0)
        intent = (newest.get("payment") or {}).get("payment_intent")
    return intent if isinstance(intent, str) else None


def _related(client: stripe.StripeClient, body: bytes) -> stripe.StripeObject:
    try:
        notice: Any = client.parse_event_notification_without_verification(body)  # the receiver did
        url = notice.related_object.url
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PermanentError("the payload must be a thin event with a related object") from None
    if not str(url).startswith("/"):  # it is appended to the API's address, and our key is sent there
        raise PermanentError("related_object.url must be a path")
    found: stripe.StripeObject = notice.fetch_related_object()
    return found


def _client(attempt: Attempt) -> stripe.StripeClient:
    origin = parse(attempt.event.body, Origin)
    return stripe.StripeClient(
        attempt.settings.stripe_api_key,
        stripe_account=None if origin.context else origin.account,  # a Connect event may have both
        stripe_context=origin.context,
        base_addresses={"api": attempt.settings.stripe_api_base},
        http_client=_Client(timeout=TIMEOUT_SECONDS),
        max_network_retries=0,  # the durable record retries
    )


class _Client(stripe.RequestsClient):
    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        with tracing.call(method.upper(), url) as span:
            response = super().request(method, url, *args, **kwargs)
            span.answered(response[1])
            return response


def _call(attempt: Attempt, call: Callable[[stripe.StripeClient], stripe.StripeObject]) -> dict[str, Any]:
    client = _client(attempt)
    with _translate_errors(attempt):
        found: dict[str, Any] = call(client).to_dict()
        return found


def _call_all(attempt: Attempt, call: Callable[[stripe.StripeClient], stripe.ListObject[Any]]) -> list[dict[str, Any]]:
    client = _client(attempt)
    with _translate_errors(attempt):
        return [one.to_dict() for one in call(client).auto_paging_iter()]


@contextmanager
def _translate_errors(attempt: Attempt) -> Iterator[None]:
    """Raise our errors in place of the library's."""
    try:
        yield
    except stripe.APIConnectionError:
        raise TransientError("Stripe could not be reached") from None
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        raise Refused(_code(error)) from None
    except stripe.AuthenticationError:  # transient: the key was rotated, and a person can set the new one
        raise TransientError("Stripe refused STRIPE_API_KEY") from None
    except stripe.PermissionError:
        raise PermanentError("Stripe refused STRIPE_API_KEY") from None
    except stripe.StripeError as error:
        headers: Mapping[str, str] = error.headers or {}
        message = f"Stripe answered {error.http_status or 'with an unreadable response'}"
        unknown = (error.http_status or 0) >= 500 and headers.get("Stripe-Should-Retry") != "true"
        error_class = OutcomeUnknown if unknown else TransientError
        raise error_class(message, retry_after_seconds(headers, attempt.now)) from None


def _code(error: stripe.StripeError) -> str:
    """See Refused.code."""
    decline = getattr(error.error, "decline_code", None)
    return str(decline or error.code or f"http_{error.http_status}")
