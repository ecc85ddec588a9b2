"""What happens to a job after a failed attempt. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inbox.errors import PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class Policy:
    """Exponential backoff: base x 2^(attempt-1) seconds, at most cap, `max_attempts` attempts in all.

    Or a schedule: the seconds between consecutive attempts; then there is one attempt more than entries.
    """

    base_seconds: int
    cap_seconds: int
    max_attempts: int
    schedule: Sequence[int] = ()

    @property
    def attempts(self) -> int:
        """The number of attempts a job has in all."""
        return len(self.schedule) + 1 if self.schedule else self.max_attempts

    def delay(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after this attempt. Jobs that failed together are spread: over the upper half of an
        exponential delay, over plus or minus a tenth of a scheduled one."""
        if self.schedule:
            return self.schedule[attempt - 1] * (0.9 + jitter / 5)
        return min(self.cap_seconds, self.base_seconds << min(attempt - 1, 40)) * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at this time (milliseconds since 1970)."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Do not try again; keep the job as a dead letter."""

    reason: str


def decide(policy: Policy, error: BaseException, attempt: int, now_ms: int, jitter: float) -> RetryAt | DeadLetter:
    """What to do with a job whose `attempt` (1 for the first) ended in `error`.

    `jitter` is in [0, 1). An error of an unknown kind counts as transient: a deployment may fix the bug behind it
    before the attempts are used up.
    """
    if isinstance(error, PermanentError):
        return DeadLetter("permanent")
    if attempt >= policy.attempts:
        return DeadLetter(f"still failing after {attempt} attempts")
    delay = policy.delay(attempt, jitter)
    if isinstance(error, TransientError):
        delay = max(delay, error.retry_after_seconds)
    return RetryAt(now_ms + int(delay * 1000))
