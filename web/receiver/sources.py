"""Configured sources: signature scheme, secrets, and how to read the identity of an event from a delivery."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from inbox.errors import BadPayload
from settings import Settings
from settings.sources import HEADERS, SourceSetting
from tasks.ingest import EventIdentity, decode, identify_stripe_event, identity
from web.errors import REASONS
from web.receiver import signatures
from web.receiver.custom_source import custom_peek
from web.receiver.signatures import Request


@dataclass(frozen=True, slots=True)
class Source:
    """A configured source. `secret_ids` identify its secrets in logs, metrics and the console."""

    name: str
    scheme: signatures.Scheme
    secrets: tuple[str, ...]
    peek: Callable[[Request, str], EventIdentity]
    secret_ids: tuple[str, ...]


def configured_sources(settings: Settings) -> Mapping[str, Source]:
    """The sources that have a secret, by name. A source without one is unknown: its deliveries cannot be verified."""
    sources = (
        _source(
            "stripe",
            signatures.stripe,
            settings.stripe_webhook_secret,
            stripe_identity(settings),
        ),
        _source("documents", _document_scheme(settings), settings.doc_webhook_secret, document_identity(settings)),
    )
    custom = (_custom_source(name, setting) for name, setting in settings.sources.items())
    return {source.name: source for source in (*sources, *custom) if source.secrets}


def stripe_identity(settings: Settings) -> Callable[[Request, str], EventIdentity]:
    """How to read the identity of a Stripe event."""
    mode, accounts = settings.accepted_mode, settings.stripe_connected_accounts
    return lambda _, body: identify_stripe_event(body, mode, accounts)


def _source(
    name: str, scheme: signatures.Scheme, secrets: tuple[str, ...], peek: Callable[[Request, str], EventIdentity]
) -> Source:
    return Source(name, scheme, secrets, peek, tuple(hashlib.sha256(s.encode()).hexdigest()[:8] for s in secrets))


def _document_scheme(settings: Settings) -> signatures.Scheme:
    scheme = settings.doc_webhook_scheme
    return _scheme(scheme, settings.doc_webhook_header or HEADERS.get(scheme, ""))


def _custom_source(name: str, setting: SourceSetting) -> Source:
    return _source(name, _scheme(setting.scheme, setting.header), setting.secrets, custom_peek(setting))


def _scheme(name: str, header: str) -> signatures.Scheme:
    match name:
        case "hmac-sha256":
            return signatures.hmac_sha256(header)
        case "bearer":
            return signatures.bearer(header)
        case "token":
            return signatures.callback_token
    return signatures.standard


def delivery_stats(sources: Mapping[str, Source], counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Deliveries of each source, from `queries.delivery_counts`: how often and when last (ms since 1970) each secret
    verified one; rejections by reason; and rejections since the last verified one that may be a misconfiguration
    (`unproven`).

    A delivery counts for the first secret that signed it: a secret that no delivery needs any more can be removed.
    """
    return [
        {
            "name": name,
            "accepted": counts.get(f"accepted:{name}", 0),
            "duplicates": counts.get(f"duplicate:{name}", 0),
            "unproven": counts.get(f"unproven:{name}", 0),
            "secrets": [
                {
                    "secret": secret,
                    "verified": counts.get(f"verified:{name}:{secret}", 0),
                    "last": counts.get(f"last:{name}:{secret}"),
                }
                for secret in source.secret_ids
            ],
            "rejected": {reason: counts.get(f"rejected:{name}:{reason}", 0) for reason in REASONS},
        }
        for name, source in sources.items()
    ]


# --- the document service: {"task_id", "status", "result_url"?, "error_message"?} -------------------------------------


class _DocumentStatus(msgspec.Struct):
    task_id: str
    status: str
    result_url: str | None = None


_document_status = msgspec.json.Decoder(_DocumentStatus)


def document_identity(settings: Settings) -> Callable[[Request, str], EventIdentity]:
    """How to read the identity of a callback; its type is the document's status."""
    scheme = settings.doc_webhook_scheme

    def peek(request: Request, body: str) -> EventIdentity:
        status = decode(_document_status, body)
        kind = status.status.lower()  # services write COMPLETED as well as completed
        task = identity(status.task_id, "task_id")
        if kind == "completed" and not status.result_url:
            raise BadPayload("status is completed, and result_url is missing")
        document = request.args.get("document", "") if scheme == "token" else ""
        if scheme == "standard":
            event = identity(request.headers.get("webhook-id", ""), "webhook-id")
        else:
            event = _derived_id(status, document, body)
        args = {"document": document} if document else {}
        return EventIdentity(event, identity(kind, "status"), f"task:{task}", args=args)

    return peek


def _derived_id(status: _DocumentStatus, document: str, body: str) -> str:
    """An id for a callback that has none: task, status, and a digest of document and body. The document is part of it
    so that a token that is valid for one document cannot occupy the id of another document's callback."""
    digest = hashlib.sha256(f"{document}\n{body}".encode()).hexdigest()[:32]
    return identity(f"{status.task_id[:150]}:{status.status[:50]}:{digest}", "status")
