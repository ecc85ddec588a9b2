"""Event id and type of a custom source, read from the locations that SOURCES names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from inbox.errors import BadPayload
from settings.sources import SourceSetting
from tasks.ingest import EventIdentity, decode, identity
from web.receiver.signatures import Request

_any_json = msgspec.json.Decoder(Any)


def custom_peek(setting: SourceSetting) -> Callable[[Request, str], EventIdentity]:
    """How to read the identity of a delivery of this source."""

    def peek(request: Request, body: str) -> EventIdentity:
        kind = identity(_value_at(setting.type, request, body), "type")
        event = _value_at(setting.id, request, body) if setting.id else _digest(body)
        return EventIdentity(identity(event, "id"), kind, signed=_digest(body) if setting.id_is_unsigned else "")

    return peek


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _value_at(location: str, request: Request, body: str) -> str:
    """The text or whole number at `header:<name>` or `body:<field>.<field>`. Raises BadPayload, naming the location."""
    part, _, name = location.partition(":")
    value: Any = request.headers.get(name, "") if part == "header" else decode(_any_json, body)
    for field in name.split(".") if part == "body" else ():
        value = value.get(field) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadPayload(f"{location} must be a text or a whole number")
    return str(value)
