"""The identity and type of what a source of the user's own sends, from the places that SOURCES names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from inbox.errors import BadPayload
from settings.sources import SourceSetting
from tasks.ingest import EventIdentity, decode, identity
from web.receiver.signatures import Delivery

_anything = msgspec.json.Decoder(Any)


def custom_peek(setting: SourceSetting) -> Callable[[Delivery, str], EventIdentity]:
    def peek(delivery: Delivery, body: str) -> EventIdentity:
        kind = identity(_at(setting.type, delivery, body), "type")
        event = _at(setting.id, delivery, body) if setting.id else hashlib.sha256(body.encode()).hexdigest()
        return EventIdentity(identity(event, "id"), kind)

    return peek


def _at(place: str, delivery: Delivery, body: str) -> str:
    """What is there: a text or a whole number. Raises BadPayload, naming the place."""
    where, _, name = place.partition(":")
    found: Any = delivery.headers.get(name, "") if where == "header" else decode(_anything, body)
    for field in name.split(".") if where == "body" else ():
        found = found.get(field) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise BadPayload(f"{place} holds no text and no number")
    return str(found)
