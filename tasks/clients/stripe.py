"""Calls to Stripe, by its official library. The errors name the code, never what Stripe wrote about a person.

Each call is made for the account that the attempt's event came from: https://docs.stripe.com/connect/webhooks.
Each may raise TransientError (no connection, 401, 429, 5xx) or PermanentError (everything else that Stripe refuses).
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

logging.getLogger("stripe").setLevel(logging.WARNING)  # at INFO it writes Stripe's error messages

TIMEOUT_SECONDS = (5.0, 25.0)  # to connect, to read
PAGE_SIZE = 100  # on one page
MAX_TYPES = 20  # to list events of
DECLINED = {"requires_payment_method": "declined", "requires_action": "authentication_required"}  # what a status says
UNDER_WAY = frozenset({"processing", "requires_capture"})


class Refused(PermanentError):
    """Stripe will not do it: a declined card, no card at all, an invoice that is paid already."""

    def __init__(self, code: str) -> None:
        super().__init__(f"Stripe refused: {code}")
        self.code = code


class OutcomeUnknown(TransientError):
    """Stripe answered 5xx, and not that a retry may help: nobody knows what became of the call.

    If it had begun, its idempotency key hears the same for a day.

    https://docs.stripe.com/error-low-level#server-errors
    """


class Origin(Struct):
    """Where an event came from: `account` in a Connect event, `context` in a thin one, neither in one of our own."""

    account: Id | None = None
    context: Id | None = None


def fetch_invoice(attempt: Attempt, invoice: str) -> dict[str, Any]:
    """The invoice as it is now."""
    return _ask(attempt, lambda client: client.v1.invoices.retrieve(invoice))


def fetch_subscription(attempt: Attempt, subscription: str) -> dict[str, Any]:
    """The subscription as it is now; a cancelled one too."""
    return _ask(attempt, lambda client: client.v1.subscriptions.retrieve(subscription))


def fetch_customer(attempt: Attempt, customer: str) -> dict[str, Any]:
    """The customer as it is now; a deleted one has little more than its id."""
    return _ask(attempt, lambda client: client.v1.customers.retrieve(customer))


def fetch_charge(attempt: Attempt, charge: str) -> dict[str, Any]:
    """The charge as it is now."""
    return _ask(attempt, lambda client: client.v1.charges.retrieve(charge))


def find_invoice(attempt: Attempt, payment_intent: str | None, invoice: str | None) -> dict[str, Any]:
    """The invoice of this id, or else the one that this payment intent paid; {} if there is none.

    https://docs.stripe.com/api/invoice-payment/list
    """
    if invoice:
        return fetch_invoice(attempt, invoice)
    params: Any = {
        "payment": {"type": "payment_intent", "payment_intent": payment_intent},
        "expand": ["data.invoice"],
        "limit": 1,
    }
    found = _ask(attempt, lambda client: client.v1.invoice_payments.list(params))["data"]
    return dict(found[0]["invoice"]) if found else {}


def subscription_of(invoice: dict[str, Any]) -> str | None:
    """The subscription of an invoice that we fetched, in the shape of the library's API version."""
    parent = invoice.get("parent") or {}
    return (parent.get("subscription_details") or {}).get("subscription")


def list_line_items(attempt: Attempt, session: str) -> list[dict[str, Any]]:
    """Everything a checkout session sells, over all pages."""
    return _ask_all(attempt, lambda client: client.v1.checkout.sessions.line_items.list(session, {"limit": PAGE_SIZE}))


def list_sessions(attempt: Attempt, subscription: str) -> list[dict[str, Any]]:
    """The checkout sessions that began a subscription: one or none. https://docs.stripe.com/api/checkout/sessions/list"""
    found = _ask(attempt, lambda client: client.v1.checkout.sessions.list({"subscription": subscription}))
    return list(found["data"])


def fetch_dispute(attempt: Attempt, dispute: str) -> dict[str, Any]:
    """The dispute as it is now."""
    return _ask(attempt, lambda client: client.v1.disputes.retrieve(dispute))


def pay_invoice(attempt: Attempt, invoice: str, key: str) -> dict[str, Any]:
    """Try to collect the invoice; once per idempotency `key`, however often it is called. Raises Refused, Broken."""
    return _ask(attempt, lambda client: client.v1.invoices.pay(invoice, options={"idempotency_key": key}))


def fetch_related(attempt: Attempt) -> dict[str, Any]:
    """The object that the attempt's thin event is about, as it is now. Raises PermanentError if it is about none.

    https://docs.stripe.com/event-destinations#fetch-data
    """
    return _ask(attempt, lambda client: _related(client, attempt.event.body))


class Payment(NamedTuple):
    """The last try to pay an invoice: why it was declined, and the payment method that was; or is it under way?"""

    code: str | None = None
    method: str | None = None
    final: bool = False  # the bank says that it will not change its mind
    under_way: bool = False


class EventPage(Struct):
    """One page of events, the newest first, each as Stripe wrote it. `last` is the id to go on after; "": the end."""

    events: list[bytes]
    last: str = ""


def list_events(
    attempt: Attempt, types: Sequence[str], since: int, until: int, after: str, *, everything: bool
) -> EventPage:
    """The page behind the event `after` of those created from `since` to `until`, in seconds since 1970.

    Those that were not delivered everywhere, or `everything`. https://docs.stripe.com/api/events/list
    """
    asked: dict[str, Any] = {"limit": PAGE_SIZE, "created": {"gte": since, "lte": until}}
    if len(types) <= MAX_TYPES:  # or all of them come, and the caller picks
        asked["types"] = list(types)
    if after:
        asked["starting_after"] = after
    if not everything:
        asked["delivery_success"] = False
    client = _client(attempt)
    with _named_errors(attempt):
        answer = client.raw_request("get", "/v1/events", **asked)
    try:
        page = json.decode(str(answer.body), type=_Listed)
        more = page.has_more and page.data
        return EventPage([bytes(raw) for raw in page.data], json.decode(page.data[-1], type=_Named).id if more else "")
    except DecodeError:
        raise TransientError("Stripe's answer is not a list of events") from None


class _Listed(Struct):
    data: list[Raw]
    has_more: bool = False


class _Named(Struct):
    id: Id


def fetch_payment(attempt: Attempt, invoice: dict[str, Any]) -> Payment:
    """How the payment of an unpaid invoice stands, as its payment intent tells. Nothing of it is known where none does.

    https://docs.stripe.com/payments/paymentintents/lifecycle
    """
    intent = _intent_of(attempt, invoice)
    if intent is None:
        return Payment()
    state = _ask(attempt, lambda client: client.v1.payment_intents.retrieve(intent))
    error = state.get("last_payment_error") or {}
    status = state.get("status")
    if status not in DECLINED:
        return Payment(under_way=status in UNDER_WAY)
    method = (error.get("payment_method") or error.get("source") or {}).get("id") or state.get("payment_method")
    code = error.get("decline_code") or error.get("code") or DECLINED[status]
    return Payment(str(code), method, final=error.get("advice_code") == "do_not_try_again")


def fetch_payment_method(attempt: Attempt, invoice: dict[str, Any]) -> str | None:
    """The payment method that `pay_invoice` would charge: the invoice's own, its subscription's, or its customer's.

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
    """The payment intent: on the invoice by old API versions, among its payments by new ones (since basil)."""
    intent = invoice.get("payment_intent")
    if "payment_intent" not in invoice:
        found = _ask(attempt, lambda client: client.v1.invoice_payments.list({"invoice": str(invoice["id"])}))
        newest: dict[str, Any] = max(found.get("data") or [{}], key=lambda payment: payment.get("created") or 0)
        intent = (newest.get("payment") or {}).get("payment_intent")
    return intent if isinstance(intent, str) else None


def _related(client: stripe.StripeClient, body: bytes) -> stripe.StripeObject:
    try:
        notice: Any = client.parse_event_notification_without_verification(body)  # the receiver has verified it
        url = notice.related_object.url
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PermanentError("the payload is no thin event with a related object") from None
    if not str(url).startswith("/"):  # it is put behind the address, and the key goes with it
        raise PermanentError("related_object.url takes a path")
    found: stripe.StripeObject = notice.fetch_related_object()
    return found


def _client(attempt: Attempt) -> stripe.StripeClient:
    origin = parse(attempt.event.body, Origin)
    return stripe.StripeClient(
        attempt.settings.stripe_api_key,
        stripe_account=None if origin.context else origin.account,  # a Connect event may name both
        stripe_context=origin.context,
        base_addresses={"api": attempt.settings.stripe_api_base},
        http_client=_Client(timeout=TIMEOUT_SECONDS),
        max_network_retries=0,  # the durable record retries
    )


class _Client(stripe.RequestsClient):
    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        with tracing.call(method.upper(), url) as span:
            answer = super().request(method, url, *args, **kwargs)
            span.answered(answer[1])
            return answer


def _ask(attempt: Attempt, call: Callable[[stripe.StripeClient], stripe.StripeObject]) -> dict[str, Any]:
    client = _client(attempt)
    with _named_errors(attempt):
        answer: dict[str, Any] = call(client).to_dict()
        return answer


def _ask_all(attempt: Attempt, call: Callable[[stripe.StripeClient], stripe.ListObject[Any]]) -> list[dict[str, Any]]:
    client = _client(attempt)
    with _named_errors(attempt):
        return [one.to_dict() for one in call(client).auto_paging_iter()]


@contextmanager
def _named_errors(attempt: Attempt) -> Iterator[None]:
    """Our errors in place of the library's."""
    try:
        yield
    except stripe.APIConnectionError:
        raise TransientError("Stripe could not be reached") from None
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        raise Refused(_code(error)) from None
    except stripe.AuthenticationError:  # a key that was rolled: whoever did it will tell us the new one
        raise TransientError("Stripe refused STRIPE_API_KEY") from None
    except stripe.PermissionError:
        raise PermanentError("Stripe refused STRIPE_API_KEY") from None
    except stripe.StripeError as error:
        headers: Mapping[str, str] = error.headers or {}
        what = f"Stripe answered {error.http_status or 'nothing that can be read'}"
        broken = (error.http_status or 0) >= 500 and headers.get("Stripe-Should-Retry") != "true"
        kind = OutcomeUnknown if broken else TransientError
        raise kind(what, retry_after_seconds(headers, attempt.now)) from None


def _code(error: stripe.StripeError) -> str:
    """What people can look up: the bank's reason, or else Stripe's code, or else the status."""
    decline = getattr(error.error, "decline_code", None)
    return str(decline or error.code or f"http_{error.http_status}")
