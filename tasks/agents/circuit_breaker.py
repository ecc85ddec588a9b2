"""When an agent may be called, by its rate and by how it has answered: decisions on its row, which is locked.

The circuit breaker opens after FAILURES_TO_OPEN failures in a row. When its time is over, one call is let through, for
jobs of one agent never run at once; a success closes it, a failure opens it for twice as long.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tasks.models import Agent

FAILURES_TO_OPEN = 5
OPEN_SECONDS, MAX_OPEN_SECONDS = 30, 3600
SLOT_TTL = timedelta(minutes=1)  # one that was missed is given up, or a jam would end in a burst


def reserve_slot(agent: Agent, kept: datetime | None, now: datetime) -> datetime:
    """When a handoff may be made: at the time that is kept for it; else at the agent's next, which is kept from now on.

    So each waits once, however many there are.
    """
    if kept is not None and now < kept + SLOT_TTL:
        return kept
    first = max(agent.next_at or now, now)
    agent.next_at = first + timedelta(minutes=1) / agent.rate_per_minute
    return first


def open_until(agent: Agent, now: datetime) -> datetime | None:
    """The time before which nobody may call."""
    return agent.open_until if agent.open_until and agent.open_until > now else None


def record_success(agent: Agent, now: datetime) -> None:
    agent.failures, agent.failing_since, agent.open_until = 0, None, None
    agent.last_answer, agent.last_at = "taken", now


def record_failure(agent: Agent, answer: str, wait_seconds: int, now: datetime) -> None:
    """It answered so, or not at all; it may have asked for so long a pause."""
    agent.failures += 1
    agent.failing_since = agent.failing_since or now
    agent.last_answer, agent.last_at = answer, now
    pause = max(_pause(agent.failures), wait_seconds)
    agent.open_until = now + timedelta(seconds=pause) if pause else None


def should_disable(agent: Agent, after_seconds: int, now: datetime) -> bool:
    """Whether it has failed for so long that nobody should call any more."""
    return agent.failing_since is not None and now - agent.failing_since > timedelta(seconds=after_seconds)


def _pause(failures: int) -> int:
    if failures < FAILURES_TO_OPEN:
        return 0
    return min(OPEN_SECONDS << min(failures - FAILURES_TO_OPEN, 10), MAX_OPEN_SECONDS)
