"""The decision on a failed attempt, as a table."""

from __future__ import annotations

import pytest

from inbox.errors import PermanentError, TransientError
from inbox.retry import DeadLetter, Policy, RetryAt, decide

POLICY = Policy(base_seconds=5, cap_seconds=60, max_attempts=4)
NOW = 1_000_000


@pytest.mark.parametrize(
    ("error", "attempt", "jitter", "seconds"),
    [
        (TransientError("down"), 1, 0.0, 2.5),
        (TransientError("down"), 1, 0.999, 4.997),
        (TransientError("down"), 2, 0.0, 5),
        (TransientError("down"), 3, 0.0, 10),
        (TransientError("come back in a minute", retry_after_seconds=60), 1, 0.5, 60),
        (TransientError("come back at once", retry_after_seconds=1), 3, 0.0, 10),
        (ZeroDivisionError(), 1, 0.0, 2.5),
    ],
)
def test_the_delay_between_attempts_grows(error: Exception, attempt: int, jitter: float, seconds: float) -> None:
    assert decide(POLICY, error, attempt, NOW, jitter) == RetryAt(NOW + int(seconds * 1000))


DAYS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)  # HANDOFF_SCHEDULE


@pytest.mark.parametrize(
    ("attempt", "jitter", "seconds"),
    [(1, 0.0, 4.5), (1, 0.5, 5), (1, 1.0, 5.5), (3, 0.5, 1800), (9, 0.0, 77_760), (9, 0.5, 86_400)],
)
def test_a_schedule_is_followed_within_ten_percent(attempt: int, jitter: float, seconds: float) -> None:
    policy = Policy(base_seconds=5, cap_seconds=60, max_attempts=4, schedule=DAYS)
    assert decide(policy, TransientError("down"), attempt, NOW, jitter) == RetryAt(NOW + int(seconds * 1000))


def test_a_schedule_allows_one_attempt_more_than_its_entries_whatever_max_attempts_is() -> None:
    policy = Policy(base_seconds=5, cap_seconds=60, max_attempts=4, schedule=DAYS)
    reason = "still failing after 10 attempts"
    assert decide(policy, TransientError("down"), 10, NOW, 0.5) == DeadLetter(reason)
    assert policy.attempts == 10


def test_retry_after_is_respected_even_if_the_schedule_is_shorter() -> None:
    policy = Policy(base_seconds=5, cap_seconds=60, max_attempts=4, schedule=DAYS)
    error = TransientError("come back in an hour", retry_after_seconds=3600)
    assert decide(policy, error, 1, NOW, 0.5) == RetryAt(NOW + 3_600_000)


def test_the_delay_never_exceeds_its_cap() -> None:
    policy = Policy(base_seconds=5, cap_seconds=60, max_attempts=1000)
    assert decide(policy, TransientError("down"), 999, NOW, 0.999999) == RetryAt(NOW + 59_999)


@pytest.mark.parametrize(
    ("error", "attempt", "reason"),
    [
        (PermanentError("no such field"), 1, "permanent"),
        (TransientError("down"), 4, "still failing after 4 attempts"),
    ],
)
def test_a_permanent_error_or_the_last_attempt_makes_a_dead_letter(error: Exception, attempt: int, reason: str) -> None:
    assert decide(POLICY, error, attempt, NOW, 0.0) == DeadLetter(reason)
