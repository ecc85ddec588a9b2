"""The parameters of a search or a list, from a query string, a form or JSON. Every function raises HttpError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from inbox.find import STATES, Filter
from web.errors import HttpError

FIELDS = {"source": "source", "type": "type", "state": "state", "q": "text", "customer": "customer"}
SEARCH_FIELDS = (*FIELDS, "since", "until")
CURSOR = re.compile(r"[0-9]{1,15}:.{1,1000}|[0-9]{1,3}/(?:[0-9]{1,15}:.{1,1000})?", re.DOTALL)
BAD_CURSOR = "cursor must be one from an earlier page"


def parse_filter(params: Mapping[str, str]) -> Filter:
    """The filter of a search for events or dead letters."""
    texts = {field: params.get(name, "").strip()[:300] for name, field in FIELDS.items()}
    for name, field in FIELDS.items():
        if not texts[field].isprintable():
            raise HttpError(f"{name} must consist of printable characters")
    if texts["state"] not in ("", *STATES):
        raise HttpError(f"state must be one of {', '.join(STATES)}")
    return Filter(**texts, since=_parse_time_ms("since", params), until=_parse_time_ms("until", params))


def parse_cursor(params: Mapping[str, str]) -> str:
    """Where the previous page of a search ended; empty for the first page."""
    cursor = params.get("cursor", "")
    if cursor and not CURSOR.fullmatch(cursor):
        raise HttpError(BAD_CURSOR)
    return cursor


def row_cursor(at: datetime, row_id: str) -> str:
    """The cursor of the page that follows the SQL row with this time and id."""
    return f"{at.isoformat()}_{row_id}"


def parse_row_cursor(cursor: str) -> tuple[datetime, str]:
    """The time and the id in a `row_cursor`."""
    text, _, row_id = cursor.partition("_")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise HttpError(BAD_CURSOR) from None
    if not (row_id and row_id.isprintable()):
        raise HttpError(BAD_CURSOR)
    return at if at.tzinfo else at.replace(tzinfo=UTC), row_id


def parse_reason(text: str) -> str:
    """The reason for an action that a person takes."""
    reason = text.strip()
    if not (reason.isprintable() and 1 <= len(reason) <= 300):
        raise HttpError("reason must be 1 to 300 printable characters: the audit log shows it")
    return reason


def parse_limit(params: Mapping[str, str], maximum: int) -> int:
    """The number of rows on a page; `maximum` if not given."""
    text = params.get("limit", "") or str(maximum)
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= maximum):
        raise HttpError(f"limit must be between 1 and {maximum}")
    return int(text)


def _parse_time_ms(name: str, params: Mapping[str, str]) -> int | None:
    """A time in milliseconds since 1970, given as such or in ISO 8601; UTC if it has no offset."""
    text = params.get(name, "").strip()
    if not text:
        return None
    if text.isdecimal() and len(text) <= 15:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
        return max(int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000), 0)
    except (ValueError, OverflowError):
        raise HttpError(f"{name} must be a time such as 2026-11-24T13:00, in UTC") from None
