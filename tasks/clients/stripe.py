"""Calls to Stripe, by its official library.

Each call is made for the account that the attempt's event came from: https://docs.stripe.com/connect/webhooks.
Each may raise TransientError (no connection, 401, 429, 5xx, the attempt's deadline), Refused (400, 402, 404) or
PermanentError (403, or an unusable payload). Error texts contain Stripe's error code, never its message, which may
contain personal data.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus as quote

import stripe
from msgspec import DecodeError, Raw, Struct, json

from inbox.errors import PermanentError, TransientError
from tasks.clients.responses import retry_after_seconds
from tasks.clients.stripe_http import HttpClient
from tasks.connected_accounts import Origin
from tasks.handler import Attempt
from tasks.payloads import Id, parse

logging.getLogger("stripe").setLevel(logging.WARNING)  # at INFO it logs Stripe's error messages

PAGE_SIZE = 100  # the most that Stripe allows
MAX_TYPES = 20  # the most types that a list of events can be filtered by


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


def fetch_invoice(attempt: Attempt, invoice: str) -> dict[str, Any]:
    """The invoice as it is now, with all its lines."""
    path = f"/v1/invoices/{quote(invoice)}"
    found = request(attempt, "get", path)
    if (found.get("lines") or {}).get("has_more"):
        found["lines"] = _whole(attempt, f"{path}/lines")
    return found


def list_open_invoices(attempt: Attempt) -> list[dict[str, Any]]:
    """The newest invoices that are not paid yet. https://docs.stripe.com/api/invoices/list"""
    return list(request(attempt, "get", "/v1/invoices", status="open", limit=PAGE_SIZE)["data"])


def fetch_subscription(attempt: Attempt, subscription: str) -> dict[str, Any]:
    """The subscription as it is now, also if it is cancelled, with all its items."""
    found = request(attempt, "get", f"/v1/subscriptions/{quote(subscription)}")
    if (found.get("items") or {}).get("has_more"):
        found["items"] = _whole(attempt, "/v1/subscription_items", subscription=subscription)
    return found


def list_subscriptions(attempt: Attempt, after: str) -> tuple[list[dict[str, Any]], bool]:
    """A page of the subscriptions that have not ended, after this one ("" for the first), and whether more follow.

    Each with its latest invoice. https://docs.stripe.com/api/subscriptions/list
    """
    start = {"starting_after": after} if after else {}
    expand = ["data.latest_invoice"]
    page = request(attempt, "get", "/v1/subscriptions", limit=PAGE_SIZE, expand=expand, **start)
    return list(page["data"]), bool(page["has_more"])


def list_active_entitlements(attempt: Attempt, customer: str) -> list[dict[str, Any]]:
    """All features that a customer may use now. https://docs.stripe.com/api/entitlements/active-entitlement/list"""
    return _list_all(attempt, "/v1/entitlements/active_entitlements", customer=customer)


def fetch_customer(attempt: Attempt, customer: str) -> dict[str, Any]:
    """The customer as it is now; of a deleted customer little more than the id."""
    return request(attempt, "get", f"/v1/customers/{quote(customer)}")


def fetch_charge(attempt: Attempt, charge: str) -> dict[str, Any]:
    """The charge as it is now."""
    return request(attempt, "get", f"/v1/charges/{quote(charge)}")


def find_invoice(attempt: Attempt, payment_intent: str | None, invoice: str | None) -> dict[str, Any]:
    """The invoice with this id if one is given, or else the invoice that this payment intent paid; {} if there is none.

    https://docs.stripe.com/api/invoice-payment/list
    """
    if invoice:
        return fetch_invoice(attempt, invoice)
    payment = {"type": "payment_intent", "payment_intent": payment_intent}
    found = request(attempt, "get", "/v1/invoice_payments", payment=payment, expand=["data.invoice"], limit=1)["data"]
    paid = dict(found[0]["invoice"]) if found else {}
    return fetch_invoice(attempt, paid["id"]) if (paid.get("lines") or {}).get("has_more") else paid


def preview_invoice(attempt: Attempt, subscription: str) -> dict[str, Any]:
    """The next invoice of a subscription, as it would be now. https://docs.stripe.com/api/invoices/create_preview"""
    return request(attempt, "post", "/v1/invoices/create_preview", subscription=subscription)


def list_line_items(attempt: Attempt, session: str) -> list[dict[str, Any]]:
    """All line items of a checkout session, from all pages."""
    return _list_all(attempt, f"/v1/checkout/sessions/{quote(session)}/line_items")


def list_sessions(attempt: Attempt, payment_intent: str) -> list[dict[str, Any]]:
    """The checkout sessions of a payment: one or none. https://docs.stripe.com/api/checkout/sessions/list"""
    return list(request(attempt, "get", "/v1/checkout/sessions", payment_intent=payment_intent)["data"])


def fetch_dispute(attempt: Attempt, dispute: str) -> dict[str, Any]:
    """The dispute as it is now."""
    return request(attempt, "get", f"/v1/disputes/{quote(dispute)}")


def pay_invoice(attempt: Attempt, invoice: str, key: str) -> dict[str, Any]:
    """Charge the invoice, once per idempotency `key`. Returns the invoice. Raises Refused or OutcomeUnknown, too."""
    return request(attempt, "post", f"/v1/invoices/{quote(invoice)}/pay", idempotency_key=key)


def fetch_related(attempt: Attempt) -> dict[str, Any]:
    """The related object of the attempt's thin event, as it is now. Raises PermanentError if the event has none.

    https://docs.stripe.com/event-destinations#fetch-data
    """
    client = _client(attempt)
    with _translate_errors(attempt):
        found: dict[str, Any] = _related(client, attempt.event.body).to_dict()
        return found


def fetch_event_data(attempt: Attempt, event: str) -> dict[str, Any]:
    """The data of a thin event, which is not part of what is delivered; {} if its type has none.

    https://docs.stripe.com/api/v2/core/events/retrieve
    """
    found = request(attempt, "get", f"/v2/core/events/{quote(event)}").get("data")
    return found if isinstance(found, dict) else {}


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
        http_client=HttpClient(attempt.settings.stripe_api_base, attempt.deadline),
        max_network_retries=0,  # the durable record retries
    )


def request(attempt: Attempt, method: str, path: str, **params: Any) -> dict[str, Any]:
    """The response to a request with these parameters, made for the account of the attempt's event.

    The library's methods for each resource would also make objects of it, which costs more than the call.
    """
    client = _client(attempt)
    with _translate_errors(attempt):
        return dict(client.raw_request(method, path, **params).data)


def _list_all(attempt: Attempt, path: str, **params: Any) -> list[dict[str, Any]]:
    """The entries of all pages of a list. https://docs.stripe.com/api/pagination"""
    found: list[dict[str, Any]] = []
    while True:
        start = {"starting_after": found[-1]["id"]} if found else {}
        page = request(attempt, "get", path, limit=PAGE_SIZE, **params, **start)
        found += page["data"]
        if not page["data"] or not page.get("has_more"):
            return found


def _whole(attempt: Attempt, path: str, **params: Any) -> dict[str, Any]:
    """A list in place of one that Stripe embedded only in part."""
    return {"object": "list", "data": _list_all(attempt, path, **params), "has_more": False}


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
