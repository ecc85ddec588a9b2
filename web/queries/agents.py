"""Agents, for the API and the console: list, add, disable, enable, look up by name, and their secrets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from settings import Settings
from tasks.agents import registry
from tasks.clients import url_policy
from tasks.models import Agent, AgentHost, Handoff
from web.errors import HttpError

MAX_AGENTS = 1000  # in one list


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """An agent, its number of handoffs by state, and the job id of one that is pending.

    `open_until` is when the circuit breakers of the agent and its host are both closed; None: now.
    """

    agent: Agent
    open_until: datetime | None = None
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
    hosts = {host.origin: host for host in db.scalars(select(AgentHost).where(AgentHost.open_until.is_not(None)))}
    return [
        AgentStatus(row, _open_until(row, hosts), by_agent[row.id], pending_jobs.get(row.id))
        for row in db.scalars(agents)
    ]


def _open_until(agent: Agent, hosts: Mapping[str, AgentHost]) -> datetime | None:
    host = hosts.get(registry.origin(agent.url))
    return max((row.open_until for row in (agent, host) if row and row.open_until), default=None)


def add(db: Session, settings: Settings, name: str, url: str, by: str) -> tuple[Agent, str | None]:
    """Add an agent; returns it with its secret, or without if it had been added before. Raises HttpError."""
    _require_handoff_secret(settings)
    _check_url(settings, url, "url")
    try:
        agent, new = registry.add(db, name, url, by, datetime.now(UTC))
    except registry.NameTaken as error:
        raise HttpError(str(error), 409) from None
    return agent, _secret(settings, agent) if new else None


def rotate_secret(sessions: Callable[[], Session], settings: Settings, agent: str, by: str) -> tuple[Agent, str]:
    """Give the agent with this id or name a new secret, and commit. Raises HttpError, 404, if there is none."""
    _require_handoff_secret(settings)
    with sessions() as db:
        row = _lock(db, agent)
        registry.rotate(db, row, by, datetime.now(UTC))
        db.commit()
        return row, _secret(settings, row)


def show_secret(sessions: Callable[[], Session], settings: Settings, url: str, by: str) -> tuple[Agent, str]:
    """The secret of a URL that was not added under a name; commits. Raises HttpError, 409, if it was."""
    _require_handoff_secret(settings)
    _check_url(settings, url, "url")
    with sessions() as db:
        row = _lock(db, registry.get_or_create(db, url))
        if row.name is not None:
            raise HttpError(f"the URL was added as {row.name}, and its secret shown then; rotate it", 409)
        registry.audit(db, row, "secret told", by, datetime.now(UTC))
        db.commit()
        return row, _secret(settings, row)


def _secret(settings: Settings, agent: Agent) -> str:
    return registry.signing_secrets(settings, agent, datetime.now(UTC))[0]


def _lock(db: Session, agent: str) -> Agent:
    found = registry.find(db, agent)
    locked = registry.lock(db, found.id) if found else None
    if locked is None:
        raise HttpError("no such agent", 404)
    return locked[0]


def change_state(sessions: Callable[[], Session], agent: str, action: str, by: str) -> AgentStatus:
    """Disable or enable the agent with this id or name, and commit. `action` is "disable" or "enable".

    Raises HttpError, 404, if there is no such agent.
    """
    change = {"disable": registry.disable, "enable": registry.enable}[action]
    with sessions() as db:
        row = _lock(db, agent)
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
