"""Agents: their names, signing secrets and state, and the audit log of what was done to them.

Each agent has a secret of its own, whether it was added under a name or is only a URL. It is derived from
HANDOFF_SECRET, which is never given out, so it need not be stored, and no agent learns another's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from settings import Settings
from tasks.clients import url_policy
from tasks.db.locking import advisory_lock, insert_if_new, select_for_update, upsert_locked
from tasks.derived_keys import hkdf
from tasks.models import Agent, AgentAudit, AgentHost

DEFAULT_RATE_PER_MINUTE = 60  # unless the agent has a rate of its own
ROTATION_OVERLAP = timedelta(hours=24)  # for so long messages are signed with the former secret, too


class NameTaken(PermanentError):
    """The name or the URL belongs to another agent."""


def agent_id(url: str) -> str:
    return "agt_" + hashlib.sha256(url.encode()).hexdigest()[:24]


def signing_secrets(settings: Settings, agent: Agent, now: datetime) -> tuple[str, ...]:
    """The secrets that sign handoffs to the agent, newest first: several while its own or HANDOFF_SECRET is rotated."""
    numbers = [agent.secret_number]
    if agent.rotated_at and now < agent.rotated_at + ROTATION_OVERLAP:
        numbers.append(agent.secret_number - 1)
    return tuple(_derived(root, agent.id, number) for number in numbers for root in settings.handoff_secret)


def _derived(root: str, agent: str, number: int) -> str:
    if number == 0:  # given out by an earlier version
        secret = hmac.digest(root.encode(), f"agent:{agent}".encode(), "sha256")
    else:
        secret = hkdf(root.encode(), f"agent {agent} {number}".encode())
    return "whsec_" + base64.b64encode(secret).decode()


def get_or_create(db: Session, url: str) -> str:
    """The id of the agent with this URL; its row is created if it has none."""
    key = agent_id(url)
    values = {"state": "active", "rate_per_minute": DEFAULT_RATE_PER_MINUTE, "failures": 0, "secret_number": 1}
    insert_if_new(db, Agent, id=key, url=url, **values)
    return key


def origin(url: str) -> str:
    """The scheme, host and port of an agent's URL; the URL itself if it is none that may be called."""
    try:
        return url_policy.parse(url).base
    except PermanentError:
        return url


def lock(db: Session, key: str) -> tuple[Agent, AgentHost] | None:
    """The agent with this id and its host, locked; None if there is no such agent.

    The host is locked first, in every transaction, so that two of them cannot deadlock.
    """
    found = db.get(Agent, key)
    if found is None:
        return None
    host, _ = upsert_locked(db, AgentHost, origin=origin(found.url), failures=0)
    return db.get_one(Agent, key, with_for_update=True, populate_existing=True), host


def add(db: Session, name: str, url: str, by: str, now: datetime) -> tuple[Agent, bool]:
    """Register the agent of this URL under a name; returns it, and whether it had none. Raises NameTaken."""
    advisory_lock(db, ["agents"])  # two concurrent calls would both find the name free
    agent = select_for_update(db, Agent, get_or_create(db, url))
    namesake = find(db, name)
    if agent is None or agent.name not in (None, name):
        raise NameTaken("the URL is registered under another name")
    if namesake not in (None, agent):
        raise NameTaken("the name is registered for another URL")
    new = agent.name is None
    if new:
        agent.name = name
        audit(db, agent, "added", by, now)
    return agent, new


def rotate(db: Session, agent: Agent, by: str, now: datetime) -> None:
    """Give the agent a new secret. The caller locks the row. A second rotation within a day ends the first secret."""
    agent.secret_number, agent.rotated_at = agent.secret_number + 1, now
    audit(db, agent, "rotated", by, now)


def find(db: Session, id_or_name: str) -> Agent | None:
    """The agent with this id or name; None if there is none."""
    if "\0" in id_or_name:  # Postgres takes no NUL in a text, not even to look for
        return None
    return db.get(Agent, id_or_name) or db.scalars(select(Agent).filter_by(name=id_or_name)).first()


def disable(db: Session, agent: Agent, by: str, now: datetime) -> None:
    """Stop calling the agent. The caller locks the row, so that only the first of two concurrent calls is recorded."""
    if agent.state == "active":
        agent.state = "disabled"
        audit(db, agent, "disabled", by, now)


def enable(db: Session, agent: Agent, by: str, now: datetime) -> None:
    """Call the agent again, with its failures and those of its host reset. The caller locks both."""
    if agent.state == "disabled":
        agent.state, agent.failures, agent.failing_since, agent.open_until = "active", 0, None, None
        if host := db.get(AgentHost, origin(agent.url)):
            host.failures, host.open_until = 0, None
        audit(db, agent, "enabled", by, now)


def disabled_by(db: Session, agent: Agent) -> str | None:
    """The person that disabled the agent, or the key of the job that did; None if it is active."""
    if agent.state == "active":
        return None
    disabling = select(AgentAudit.by).filter_by(agent=agent.id, action="disabled")
    return db.scalars(disabling.order_by(AgentAudit.id.desc())).first()


def audit(db: Session, agent: Agent, action: str, by: str, now: datetime) -> None:
    """Add an entry to the agent's audit log."""
    db.add(AgentAudit(agent=agent.id, action=action, by=by, at=now))
