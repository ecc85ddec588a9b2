"""Agents, for the API and the console: list, add, disable, enable, and look up by name."""

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
    """An agent, its number of handoffs by state, and the job id of one that is pending."""

    agent: Agent
    handoffs: Counter[str] = field(default_factory=Counter)
    pending_job: str | None = None


def load_statuses(db: Session, key: str | None = None) -> list[AgentStatus]:
    """All agents, or the one with this id. Agents with a name come first."""
    agents = select(Agent).order_by(Agent.name.is_(None), Agent.name, Agent.url).limit(MAX_AGENTS)
    counts = select(Handoff.agent, Handoff.state, func.count()).group_by(Handoff.agent, Handoff.state)
    pending = (
        select(Handoff.agent, func.min(Handoff.id).label("id")).where(Handoff.state == "owed").group_by(Handoff.agent)
    )
    if key:
        agents, counts = agents.where(Agent.id == key), counts.where(Handoff.agent == key)
        pending = pending.where(Handoff.agent == key)
    by_agent: dict[str, Counter[str]] = defaultdict(Counter)
    for agent, state, number in db.execute(counts):
        by_agent[agent][state] = number
    pending_jobs = {row.agent: row.id for row in db.execute(pending)}
    return [AgentStatus(row, by_agent[row.id], pending_jobs.get(row.id)) for row in db.scalars(agents)]


def add(db: Session, settings: Settings, name: str, url: str, by: str) -> Agent:
    """Add an agent, or return it if it has been added before. Raises HttpError."""
    _require_handoff_secret(settings)
    _check_url(settings, url, "url")
    try:
        return registry.add(db, name, url, by, datetime.now(UTC))
    except registry.NameTaken as error:
        raise HttpError(str(error), 409) from None


def change_state(sessions: Callable[[], Session], agent: str, action: str, by: str) -> AgentStatus:
    """Disable or enable the agent with this id or name, and commit. `action` is "disable" or "enable".

    Raises HttpError, 404, if there is no such agent.
    """
    change = {"disable": registry.disable, "enable": registry.enable}[action]
    with sessions() as db:
        found = registry.find(db, agent)
        row = db.get(Agent, found.id, with_for_update=True, populate_existing=True) if found else None
        if row is None:
            raise HttpError("no such agent", 404)
        change(db, row, by, datetime.now(UTC))
        db.commit()
        (status,) = load_statuses(db, row.id)
        return status


def resolve_urls(settings: Settings, sessions: Callable[[], Session], agents: Sequence[str]) -> list[str]:
    """The URL of each agent, given by name or by URL. Raises HttpError if one is unknown or its URL is not allowed."""
    if not agents:
        return []
    _require_handoff_secret(settings)
    names = {agent for agent in agents if "://" not in agent}
    with sessions() as db:
        known = {name: registry.find(db, name) for name in sorted(names)}
    urls = []
    for number, agent in enumerate(agents):
        row = known.get(agent)
        if agent in names and row is None:
            raise HttpError(f"notify.agents.{number} must be the name of an agent that was added, or a URL")
        url = row.url if row else agent
        _check_url(settings, url, f"notify.agents.{number}")
        urls.append(url)
    return urls


def _require_handoff_secret(settings: Settings) -> None:
    if not settings.handoff_secret:
        raise HttpError("HANDOFF_SECRET must be set to notify agents: it signs the messages to them")


def _check_url(settings: Settings, url: str, field: str) -> None:
    try:
        url_policy.check_url(url, settings.call_out_allowed_hosts)
    except PermanentError as error:
        raise HttpError(f"{field}: {error}") from None
