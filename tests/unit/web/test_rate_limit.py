"""The rate of a key, over time."""

from __future__ import annotations

from contextlib import suppress

import pytest

from web.auth import RateLimit
from web.errors import HttpError


def taken(limit: RateLimit, times: list[float], who: str = "bot") -> int:
    """How many of the requests at these times (seconds) are taken."""
    found = 0
    for now in times:
        with suppress(HttpError):
            limit.count(who, now)
            found += 1
    return found


def test_a_key_may_send_a_minute_of_requests_at_once_and_then_its_rate() -> None:
    limit = RateLimit(60)
    assert taken(limit, [0.0] * 100) == 60
    assert taken(limit, [second / 10 for second in range(1, 101)]) == 10
    assert taken(limit, [1000.0] * 100) == 60


def test_the_error_says_when_the_next_request_is_taken() -> None:
    limit = RateLimit(6)
    assert taken(limit, [0.0] * 6) == 6
    with pytest.raises(HttpError) as refused:
        limit.count("bot", 3.5)
    assert (refused.value.status, refused.value.retry_after_seconds) == (429, 7)
    assert taken(limit, [10.0, 10.0]) == 1


def test_keys_do_not_share_their_rate() -> None:
    limit = RateLimit(1)
    assert [taken(limit, [0.0, 1.0], who) for who in ("one", "two")] == [1, 1]
