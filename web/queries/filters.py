"""What somebody asked for in a search, by form or by API, and where its next page begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from inbox.find import STATES, Filter
from web.errors import HttpError

FIELDS = {"source": "source", "type": "type", "state": "state", "q": "text", "customer": "customer"}
SEARCH_FIELDS = (*FIELDS, "since", "until")
CURSOR = re.compile(r"[0-9]{1,15}:.{1,1000}", re.DOTALL)


def parse_filter(given: Mapping[str, str]) -> Filter:
    """The filter of a query string or a form. Raises Refused, naming the field."""
    words = {field: given.get(name, "").strip()[:300] for name, field in FIELDS.items()}
    for name, field in FIELDS.items():
        if not words[field].isprintable():
            raise HttpError(f"{name} takes printable characters")
    if words["state"] not in ("", *STATES):
        raise HttpError(f"state takes one of {', '.join(STATES)}")
    return Filter(**words, since=_parse_time_ms("since", given), until=_parse_time_ms("until", given))


def parse_cursor(given: Mapping[str, str]) -> str:
    """Where an earlier page ended; empty for the start. Raises Refused."""
    cursor = given.get("cursor", "")
    if cursor and not CURSOR.fullmatch(cursor):
        raise HttpError("cursor takes what the last answer gave")
    return cursor


def parse_reason(given: str) -> str:
    """Why somebody does what cannot be seen otherwise. Raises Refused."""
    words = given.strip()
    if not (words.isprintable() and 1 <= len(words) <= 300):
        raise HttpError("why takes 1 to 300 printable characters: the audit trail shows them")
    return words


def parse_limit(given: Mapping[str, str], most: int) -> int:
    """How many rows at most. Raises Refused."""
    text = given.get("limit", "") or str(most)
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise HttpError(f"limit takes 1 to {most}")
    return int(text)


def _parse_time_ms(name: str, given: Mapping[str, str]) -> int | None:
    """A time as people and programs write it, UTC where it says no zone; or milliseconds since 1970."""
    text = given.get(name, "").strip()
    if not text:
        return None
    if text.isdecimal() and len(text) <= 15:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
        return max(int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000), 0)
    except (ValueError, OverflowError):
        raise HttpError(f"{name} takes a time such as 2026-11-24T13:00, in UTC") from None
