"""Who sends: each source's signature scheme, its secrets, and how to find an event's identity in a delivery."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from settings import Settings
from web import signatures
from web.errors import BadPayload
from web.signatures import Headers

IDENTITY = re.compile(r"[!-~]{1,255}")  # printable ASCII without spaces; Stripe's ids have at most 255 characters


@dataclass(frozen=True, slots=True)
class Peeked:
    """What the receiver reads of an event; the full parse is the worker's."""

    id: str
    type: str
    ordering_key: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A configured sender."""

    name: str
    scheme: signatures.Scheme
    secrets: tuple[str, ...]
    peek: Callable[[Headers, str], Peeked]


def configured(settings: Settings) -> Mapping[str, Source]:
    """The sources that have a secret, by name. One without is unknown: nothing it sends could be believed."""
    sources = (
        Source("stripe", signatures.stripe, settings.stripe_webhook_secret, peek_stripe),
        Source("documents", signatures.standard, settings.doc_webhook_secret, peek_document),
    )
    return {source.name: source for source in sources if source.secrets}


# --- Stripe: https://docs.stripe.com/api/events/object ---------------------------------------------------------------


class _StripeObject(msgspec.Struct):
    id: Any = None
    customer: Any = None


class _StripeData(msgspec.Struct):
    object: _StripeObject | None = None


class _StripeEvent(msgspec.Struct):
    id: str
    type: str
    data: _StripeData | None = None


_stripe_event = msgspec.json.Decoder(_StripeEvent)


def peek_stripe(_headers: Headers, body: str) -> Peeked:
    """The event's own id and type. Events of one customer never run at once, so their rows are safe from each other."""
    event = _decode(_stripe_event, body)
    subject = event.data.object if event.data else None
    owner = (subject.customer or subject.id) if subject else None
    if isinstance(owner, dict):  # an expanded customer
        owner = owner.get("id")
    key = f"stripe:{owner}" if isinstance(owner, str) and IDENTITY.fullmatch(owner) else ""
    return Peeked(_identity(event.id, "id"), _identity(event.type, "type"), key)


# --- the document service: {"task_id", "status", "result_url"?, "error_message"?} -------------------------------------


class _DocumentStatus(msgspec.Struct):
    task_id: str
    status: str
    result_url: str | None = None
    error_message: str | None = None


_document_status = msgspec.json.Decoder(_DocumentStatus)


def peek_document(headers: Headers, body: str) -> Peeked:
    """The message's signed webhook-id; its type is the status."""
    status = _decode(_document_status, body)
    task_id = _identity(status.task_id, "task_id")
    if status.status == "completed" and not status.result_url:
        raise BadPayload("status is completed, and result_url is missing")
    return Peeked(
        _identity(headers.get("webhook-id", ""), "webhook-id"), _identity(status.status, "status"), f"task:{task_id}"
    )


def _decode(decoder: msgspec.json.Decoder[Any], body: str) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:  # names the field and the types, never a value
        raise BadPayload(f"the body is not an event of this source: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise BadPayload("the body is not JSON") from None


def _identity(value: str, field: str) -> str:
    if not IDENTITY.fullmatch(value):
        raise BadPayload(f"{field} takes 1 to 255 printable ASCII characters without spaces")
    return value
