"""Agents: their names, signing secrets and state, and the audit log of their additions, disablings and enablings.

A registered agent has a name and a secret of its own, derived from HANDOFF_SECRET so that it need not be stored. A URL
that was never registered works, too; its handoffs are signed with HANDOFF_SECRET itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from settings import Settings
from tasks.db.locking import advisory_lock, insert_if_new, select_for_update
from tasks.models import Agent, AgentAudit

DEFAULT_RATE_PER_MINUTE = 60  # unless the agent has a rate of its own


class NameTaken(PermanentError):
    """The name or the URL belongs to another agent."""


def agent_id(url: str) -> str:
    return "agt_" + hashlib.sha256(url.encode()).hexdigest()[:24]


def signing_secrets(settings: Settings, agent: Agent) -> tuple[str, ...]:
    """The secrets that sign handoffs to the agent, newest first: several while HANDOFF_SECRET is rotated."""
    if agent.name is None:
        return settings.handoff_secret
    return tuple(_derived(secret, agent.id) for secret in settings.handoff_secret)


def _derived(secret: str, agent: str) -> str:
    digest = hmac.digest(secret.encode(), f"agent:{agent}".encode(), hashlib.sha256)
    return "whsec_" + base64.b64encode(digest).decode()


def get_or_create(db: Session, url: str) -> str:
    """The id of the agent with this URL; its row is created if it has none."""
    key = agent_id(url)
    insert_if_new(db, Agent, id=key, url=url, state="active", rate_per_minute=DEFAULT_RATE_PER_MINUTE, failures=0)
    return key


def add(db: Session, name: str, url: str, by: str, now: datetime) -> Agent:
    """Register the agent of this URL under a name; no change if it has that name. Raises NameTaken."""
    advisory_lock(db, ["agents"])  # two concurrent calls would both find the name free
    agent = select_for_update(db, Agent, get_or_create(db, url))
    namesake = find(db, name)
    if agent is None or agent.name not in (None, name):
        raise NameTaken("the URL is registered under another name")
    if namesake not in (None, agent):
        raise NameTaken("the name is registered for another URL")
    if agent.name is None:
        agent.name = name
        _audit(db, agent, "added", by, now)
    return agent


def find(db: Session, id_or_name: str) -> Agent | None:
    """The agent with this id or name; None if there is none."""
    if "\0" in id_or_name:  # Postgres takes no NUL in a text, not even to look for
        return None
    return db.get(Agent, id_or_name) or db.scalars(select(Agent).filter_by(name=id_or_name)).first()


def disable(db: Session, agent: Agent, by: str, now: datetime) -> None:
    """Stop calling the agent. The caller locks the row, so that only the first of two concurrent calls is recorded."""
    if agent.state == "active":
        agent.state = "disabled"
        _audit(db, agent, "disabled", by, now)


def enable(db: Session, agent: Agent, by: str, now: datetime) -> None:
    """Call the agent again, with its failures reset."""
    if agent.state == "disabled":
        agent.state, agent.failures, agent.failing_since, agent.open_until = "active", 0, None, None
        _audit(db, agent, "enabled", by, now)


def disabled_by(db: Session, agent: Agent) -> str | None:
    """The person that disabled the agent, or the key of the job that did; None if it is active."""
    if agent.state == "active":
        return None
    disabling = select(AgentAudit.by).filter_by(agent=agent.id, action="disabled")
    return db.scalars(disabling.order_by(AgentAudit.id.desc())).first()


def _audit(db: Session, agent: Agent, action: str, by: str, now: datetime) -> None:
    db.add(AgentAudit(agent=agent.id, action=action, by=by, at=now))
