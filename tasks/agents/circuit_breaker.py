"""When an agent may be called, by its rate limit and two circuit breakers: decisions on rows, locked by the caller.

A circuit breaker opens after FAILURES_TO_OPEN failures in a row. When its time is over, one call is made, since jobs
of one host never run concurrently; a success closes the breaker, a failure opens it for twice as long. That of an agent
counts every failure; that of its host only calls without a response, which would hold a worker each time.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tasks.models import Agent, AgentHost

FAILURES_TO_OPEN = 5
OPEN_SECONDS, MAX_OPEN_SECONDS = 30, 3600
FIRST_ANSWER_SECONDS, MAX_ANSWER_SECONDS = 2.0, 40.0  # the latter is shorter than our lease
SLOT_TTL = timedelta(minutes=1)  # unused slots expire; otherwise a backlog would be released as a burst


def reserve_slot(agent: Agent, reserved: datetime | None, now: datetime) -> datetime:
    """The time from which a handoff may be delivered under the agent's rate limit.

    That is its reserved slot, unless it has expired; otherwise the agent's next free slot. A handoff keeps its slot
    across attempts, so that each waits only once.
    """
    if reserved is not None and now < reserved + SLOT_TTL:
        return reserved
    first = max(agent.next_at or now, now)
    agent.next_at = first + timedelta(minutes=1) / agent.rate_per_minute
    return first


def open_until(row: Agent | AgentHost, now: datetime) -> datetime | None:
    """The time until which the circuit breaker is open (no calls); None if it is closed."""
    return row.open_until if row.open_until and row.open_until > now else None


def answer_seconds(host: AgentHost) -> float:
    """How long to wait for an answer of this host: not long before its first one, then twice as long each time."""
    if host.answered_at:
        return MAX_ANSWER_SECONDS
    return min(FIRST_ANSWER_SECONDS * (1 << min(host.failures, 10)), MAX_ANSWER_SECONDS)


def record_answer(host: AgentHost, now: datetime) -> None:
    """The host has answered, whatever it answered."""
    host.failures, host.open_until, host.answered_at = 0, None, now


def record_silence(host: AgentHost, now: datetime) -> None:
    """Count a call without a response."""
    host.failures += 1
    pause = _pause(host.failures)
    host.open_until = now + timedelta(seconds=pause) if pause else None


def record_success(agent: Agent, now: datetime) -> None:
    agent.failures, agent.failing_since, agent.open_until = 0, None, None
    agent.last_answer, agent.last_at = "taken", now


def record_failure(agent: Agent, answer: str, wait_seconds: int, now: datetime) -> None:
    """Count a failure. `answer` is its error text; `wait_seconds` the agent's Retry-After, or 0."""
    agent.failures += 1
    agent.failing_since = agent.failing_since or now
    agent.last_answer, agent.last_at = answer, now
    pause = max(_pause(agent.failures), wait_seconds)
    agent.open_until = now + timedelta(seconds=pause) if pause else None


def should_disable(agent: Agent, after_seconds: int, now: datetime) -> bool:
    """True if the agent has been failing for longer than HANDOFF_DISABLE_AFTER."""
    return agent.failing_since is not None and now - agent.failing_since > timedelta(seconds=after_seconds)


def _pause(failures: int) -> int:
    if failures < FAILURES_TO_OPEN:
        return 0
    return min(OPEN_SECONDS << min(failures - FAILURES_TO_OPEN, 10), MAX_OPEN_SECONDS)
