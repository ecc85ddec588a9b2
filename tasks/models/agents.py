"""Agents, and the handoffs that notify them of finished documents."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Agent(Base):
    """A webhook endpoint of an agent. Its id is derived from its URL; the name is optional."""

    __tablename__ = "agents"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    url: Mapped[str]
    state: Mapped[str] = mapped_column(default="active")  # active | disabled
    rate_per_minute: Mapped[int] = mapped_column(Integer)
    secret_number: Mapped[int] = mapped_column(Integer, default=1, server_default="1")  # increases with each rotation
    rotated_at: Mapped[datetime | None]
    next_at: Mapped[datetime | None]  # the first time not reserved for a handoff yet
    failures: Mapped[int] = mapped_column(Integer, default=0)  # consecutive
    failing_since: Mapped[datetime | None]
    open_until: Mapped[datetime | None]  # the circuit breaker: no call before
    last_answer: Mapped[str | None]
    last_at: Mapped[datetime | None]


class AgentHost(Base):
    """The server of one or more agents: scheme, host and port. Its circuit breaker counts calls without a response."""

    __tablename__ = "agent_hosts"

    origin: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(Integer, default=0)  # consecutive
    open_until: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]  # last; None: it has never answered


class AgentAudit(Base):
    """An entry of the audit log: what was done to an agent, by a person or a handoff (its id)."""

    __tablename__ = "agent_deeds"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    agent: Mapped[str] = mapped_column(ForeignKey("agents.id"), index=True)
    action: Mapped[str] = mapped_column("deed")  # added | rotated | secret told | disabled | enabled
    by: Mapped[str] = mapped_column(String(800))
    at: Mapped[datetime]


class Handoff(Base):
    """A notification to one agent about a document. Its id is the id of the job that delivers it."""

    __tablename__ = "handoffs"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)
    document: Mapped[str] = mapped_column(ForeignKey("documents.id"))
    agent: Mapped[str] = mapped_column(ForeignKey("agents.id"), index=True)
    kind: Mapped[str]  # document.completed | document.failed
    data: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="owed")  # owed | delivered | dead
    slot: Mapped[datetime | None] = mapped_column("place")  # the time reserved for it under the agent's rate limit
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
