"""Who sends: each source's signature scheme, its secrets, and how to find an event's identity in a delivery."""

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
from web.receiver.signatures import Delivery


@dataclass(frozen=True, slots=True)
class Source:
    """A configured sender. `names` stand for its secrets wherever people look."""

    name: str
    scheme: signatures.Scheme
    secrets: tuple[str, ...]
    peek: Callable[[Delivery, str], EventIdentity]
    names: tuple[str, ...]

    def verify(self, delivery: Delivery, body: str, now: float, tolerance_seconds: int) -> str:
        """The name of the first secret that proves this. Raises BadSignature."""
        return self.names[self.scheme(delivery, body, self.secrets, now, tolerance_seconds)]


def configured_sources(settings: Settings) -> Mapping[str, Source]:
    """The sources that have a secret, by name. One without is unknown: nothing it sends could be believed."""
    mode = settings.accepted_mode
    sources = (
        _source(
            "stripe",
            signatures.stripe,
            settings.stripe_webhook_secret,
            lambda _, body: identify_stripe_event(body, mode),
        ),
        _source("documents", _document_scheme(settings), settings.doc_webhook_secret, document_identity(settings)),
    )
    own = (_own(name, setting) for name, setting in settings.sources.items())
    return {source.name: source for source in (*sources, *own) if source.secrets}


def _source(
    name: str, scheme: signatures.Scheme, secrets: tuple[str, ...], peek: Callable[[Delivery, str], EventIdentity]
) -> Source:
    return Source(name, scheme, secrets, peek, tuple(hashlib.sha256(s.encode()).hexdigest()[:8] for s in secrets))


def _document_scheme(settings: Settings) -> signatures.Scheme:
    scheme = settings.doc_webhook_scheme
    return _scheme(scheme, settings.doc_webhook_header or HEADERS.get(scheme, ""))


def _own(name: str, setting: SourceSetting) -> Source:
    """One of SOURCES."""
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
    """What came from each source, by `look.deliveries`: how often and when last (ms) each secret proved it; refusals,
    and how many for want of a proof (`unproven`) since the last delivery that had one.

    A secret counts where none before it in the setting signed: one that no delivery needs any more may go.
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
                for secret in source.names
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
    error_message: str | None = None


_document_status = msgspec.json.Decoder(_DocumentStatus)


def document_identity(settings: Settings) -> Callable[[Delivery, str], EventIdentity]:
    """How that scheme's callbacks are told apart, and what they are about; their type is the status."""
    scheme = settings.doc_webhook_scheme

    def peek(delivery: Delivery, body: str) -> EventIdentity:
        status = decode(_document_status, body)
        kind = status.status.lower()  # services write COMPLETED as well as completed
        task = identity(status.task_id, "task_id")
        if kind == "completed" and not status.result_url:
            raise BadPayload("status is completed, and result_url is missing")
        document = delivery.args.get("document", "") if scheme == "token" else ""
        if scheme == "standard":
            event = identity(delivery.headers.get("webhook-id", ""), "webhook-id")
        else:
            event = _made_id(status, document, body)
        args = {"document": document} if document else {}
        return EventIdentity(event, identity(kind, "status"), f"task:{task}", args=args)

    return peek


def _made_id(status: _DocumentStatus, document: str, body: str) -> str:
    """An identity for a callback that has none: its task, its status, and a digest of all it says, and of which
    document: or who may speak of one only could take the identity of what will be said of another."""
    digest = hashlib.sha256(f"{document}\n{body}".encode()).hexdigest()[:32]
    return identity(f"{status.task_id[:150]}:{status.status[:50]}:{digest}", "status")
