"""Who sends: each source's signature scheme, its secrets, and how to find an event's identity in a delivery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from inbox.errors import BadPayload
from settings import Settings
from tasks.arrivals import Peeked, decode, identity, peek_stripe
from web import signatures
from web.signatures import Headers


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
        Source("stripe", signatures.stripe, settings.stripe_webhook_secret, lambda _headers, body: peek_stripe(body)),
        Source("documents", signatures.standard, settings.doc_webhook_secret, peek_document),
    )
    return {source.name: source for source in sources if source.secrets}


# --- the document service: {"task_id", "status", "result_url"?, "error_message"?} -------------------------------------


class _DocumentStatus(msgspec.Struct):
    task_id: str
    status: str
    result_url: str | None = None
    error_message: str | None = None


_document_status = msgspec.json.Decoder(_DocumentStatus)


def peek_document(headers: Headers, body: str) -> Peeked:
    """The message's signed webhook-id; its type is the status."""
    status = decode(_document_status, body)
    task_id = identity(status.task_id, "task_id")
    if status.status == "completed" and not status.result_url:
        raise BadPayload("status is completed, and result_url is missing")
    return Peeked(
        identity(headers.get("webhook-id", ""), "webhook-id"), identity(status.status, "status"), f"task:{task_id}"
    )
