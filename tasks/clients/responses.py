"""What an HTTP answer from somebody else means for the job that asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from inbox.errors import PermanentError, TransientError

LONGEST_WAIT_SECONDS = 86400  # whatever a peer asks for
WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


def raise_for_status(who: str, status: int, headers: Mapping[str, str], now: datetime) -> None:
    """Pass on 2xx. Raises TransientError for 5xx and for "not now", PermanentError for every other status."""
    if 200 <= status < 300:
        return
    what = f"{who} answered {status}"
    if status >= 500 or status in WORTH_ANOTHER_TRY:
        raise TransientError(what, retry_after_seconds(headers, now))
    raise PermanentError(what)


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> int:
    """The Retry-After header, in seconds or as a date; 0 where it is missing, over or malformed."""
    raw = headers.get("Retry-After", "").strip()
    if raw.isascii() and raw.isdigit():
        return min(int(raw[:9]), LONGEST_WAIT_SECONDS)
    try:
        at = parsedate_to_datetime(raw)
    except ValueError:
        return 0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(int((at - now).total_seconds()), 0), LONGEST_WAIT_SECONDS)
