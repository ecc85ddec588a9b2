"""Agents: who they are, the secret that each is told things by, and who has added, disabled or enabled them.

An agent that was added has a name and a secret of its own, which follows from HANDOFF_SECRET, so that we need not keep
it. A URL that was never added works all the same, under HANDOFF_SECRET itself.
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

DEFAULT_RATE_PER_MINUTE = 60  # where nobody says otherwise


class NameTaken(PermanentError):
    """The name or the URL belongs to another agent."""


def agent_id(url: str) -> str:
    return "agt_" + hashlib.sha256(url.encode()).hexdigest()[:24]


def signing_secrets(settings: Settings, agent: Agent) -> tuple[str, ...]:
    """What signs our words to it: several while HANDOFF_SECRET is rotated, the new one first."""
    if agent.name is None:
        return settings.handoff_secret
    return tuple(_derived(secret, agent.id) for secret in settings.handoff_secret)


def _derived(secret: str, agent: str) -> str:
    digest = hmac.digest(secret.encode(), f"agent:{agent}".encode(), hashlib.sha256)
    return "whsec_" + base64.b64encode(digest).decode()


def get_or_create(db: Session, url: str) -> str:
    """The id of the agent with this URL, which has a row from here on."""
    key = agent_id(url)
    insert_if_new(db, Agent, id=key, url=url, state="active", rate_per_minute=DEFAULT_RATE_PER_MINUTE, failures=0)
    return key


def add(db: Session, name: str, url: str, by: str, now: datetime) -> Agent:
    """The agent of this URL, which has this name from here on, if it had not before. Raises Taken."""
    advisory_lock(db, ["agents"])  # or two at once would both find the name free
    agent = select_for_update(db, Agent, get_or_create(db, url))
    namesake = find(db, name)
    if agent is None or agent.name not in (None, name):
        raise NameTaken("the URL belongs to an agent of another name")
    if namesake not in (None, agent):
        raise NameTaken("the name belongs to an agent with another URL")
    if agent.name is None:
        agent.name = name
        _audit(db, agent, "added", by, now)
    return agent


def find(db: Session, word: str) -> Agent | None:
    """The agent of this id or name."""
    if "\0" in word:  # Postgres takes no NUL in a text, not even to look for
        return None
    return db.get(Agent, word) or db.scalars(select(Agent).filter_by(name=word)).first()


def disable(db: Session, agent: Agent, by: str, now: datetime) -> None:
    """It is called no more. The row is locked by the caller, so that of two only the first one's deed counts."""
    if agent.state == "active":
        agent.state = "disabled"
        _audit(db, agent, "disabled", by, now)


def enable(db: Session, agent: Agent, by: str, now: datetime) -> None:
    """It is called again, as if it had never failed."""
    if agent.state == "disabled":
        agent.state, agent.failures, agent.failing_since, agent.open_until = "active", 0, None, None
        _audit(db, agent, "enabled", by, now)


def disabled_by(db: Session, agent: Agent) -> str | None:
    """Whose deed it is that the agent is called no more; None if it is."""
    if agent.state == "active":
        return None
    theirs = select(AgentAudit.by).filter_by(agent=agent.id, action="disabled")
    return db.scalars(theirs.order_by(AgentAudit.id.desc())).first()


def _audit(db: Session, agent: Agent, action: str, by: str, now: datetime) -> None:
    db.add(AgentAudit(agent=agent.id, action=action, by=by, at=now))
