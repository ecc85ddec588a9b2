"""A payload as people may see it: what is personal is left out by the names of its fields (REDACT_FIELDS)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

HIDDEN = "•••"
MOST_CHARACTERS = 200_000
WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")  # customer_email, customerEmail and CUSTOMER-EMAIL have the same two


def payload(body: bytes, personal: Collection[str]) -> str:
    """The body's JSON, indented, with every personal value hidden; or, in words, that it is none."""
    read = value(body, personal)
    if isinstance(read, Unreadable):
        return read
    shown = json.dumps(read, indent=2, ensure_ascii=False)
    if len(shown) > MOST_CHARACTERS:
        return shown[:MOST_CHARACTERS] + f"\n… (cut: {len(body)} bytes in all)"
    return shown


class Unreadable(str):
    """In the place of a payload that is no JSON: that it is none, in words."""


def value(body: bytes, personal: Collection[str]) -> Any:
    """The body's JSON with every personal value hidden, or Unreadable."""
    try:
        return redacted(json.loads(body), personal)
    except (ValueError, RecursionError):
        return Unreadable(f"({len(body)} bytes that are no JSON)")


def redacted(value: Any, personal: Collection[str]) -> Any:
    """`value` with each field hidden that has one of these words, or all of one of these names, in its own name."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if inner not in (None, "", [], {}) and is_personal(key, personal) else redacted(inner, personal)
            for key, inner in value.items()
        }
    return [redacted(inner, personal) for inner in value] if isinstance(value, list) else value


def is_personal(name: str, personal: Collection[str]) -> bool:
    words = {word.lower() for word in WORD.findall(name)} | {name.lower()}
    return any(one.lower() in words for one in personal)
