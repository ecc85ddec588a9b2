"""Agents, for the API and the console: found, added, disabled, enabled, and how each stands."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from settings import Settings
from tasks.agents import registry
from tasks.clients import url_policy
from tasks.models import Agent, Handoff
from web.errors import HttpError

MAX_AGENTS = 1000  # in one list


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """An agent, how many handoffs are delivered, owed and dead, and the id of one that is owed."""

    agent: Agent
    handoffs: Counter[str] = field(default_factory=Counter)
    owed: str | None = None


def load_statuses(db: Session, key: str | None = None) -> list[AgentStatus]:
    """All agents, or the one with this id; those with names first."""
    wanted = select(Agent).order_by(Agent.name.is_(None), Agent.name, Agent.url).limit(MAX_AGENTS)
    numbers = select(Handoff.agent, Handoff.state, func.count()).group_by(Handoff.agent, Handoff.state)
    owed = (
        select(Handoff.agent, func.min(Handoff.id).label("id")).where(Handoff.state == "owed").group_by(Handoff.agent)
    )
    if key:
        wanted, numbers = wanted.where(Agent.id == key), numbers.where(Handoff.agent == key)
        owed = owed.where(Handoff.agent == key)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for agent, state, number in db.execute(numbers):
        counted[agent][state] = number
    first = {row.agent: row.id for row in db.execute(owed)}
    return [AgentStatus(row, counted[row.id], first.get(row.id)) for row in db.scalars(wanted)]


def add(db: Session, settings: Settings, name: str, url: str, by: str) -> Agent:
    """Add it, or find it added. Raises Refused, in words."""
    _require_handoff_secret(settings)
    _check_url(settings, url, "url")
    try:
        return registry.add(db, name, url, by, datetime.now(UTC))
    except registry.Taken as taken:
        raise HttpError(str(taken), 409) from None


def switch(db: Session, word: str, to: str, by: str) -> Agent:
    """Disable or enable the agent of this id or name: it is so when this is committed. Raises Refused, 404."""
    found = registry.named(db, word)
    agent = db.get(Agent, found.id, with_for_update=True, populate_existing=True) if found else None
    if agent is None:
        raise HttpError("no such agent", 404)
    change = {"disable": registry.disable, "enable": registry.enable}[to]
    change(db, agent, by, datetime.now(UTC))
    return agent


def resolve_urls(settings: Settings, sessions: Callable[[], Session], words: Sequence[str]) -> list[str]:
    """Where those agents are, each named or by its URL. Raises Refused where one is not to be found or called."""
    if not words:
        return []
    _require_handoff_secret(settings)
    names = {word for word in words if "://" not in word}
    with sessions() as db:
        known = {name: registry.named(db, name) for name in sorted(names)}
    found = []
    for number, word in enumerate(words):
        agent = known.get(word)
        if word in names and agent is None:
            raise HttpError(f"notify.agents.{number} is no agent that was added; it takes a name or a URL")
        url = agent.url if agent else word
        _check_url(settings, url, f"notify.agents.{number}")
        found.append(url)
    return found


def _require_handoff_secret(settings: Settings) -> None:
    if not settings.handoff_secret:
        raise HttpError("agents take a configured HANDOFF_SECRET, which signs what we tell them")


def _check_url(settings: Settings, url: str, name: str) -> None:
    try:
        url_policy.check(url, settings.call_out_allowed_hosts)
    except PermanentError as error:
        raise HttpError(f"{name}: {error}") from None
