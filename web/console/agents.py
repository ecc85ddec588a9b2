"""Agents: state, handoffs and circuit breaker of each; disable, enable, and the log of those actions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from flask import Blueprint, g, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from tasks.models import AgentAudit
from web.queries import agents

AUDIT_ROWS = 50


def register(pages: Blueprint, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/agents"""

    @pages.app_template_filter()
    def host(url: str) -> str:
        """The only part of an agent's URL that is shown: its path and query may contain secrets."""
        return urlsplit(url).hostname or ""

    @pages.get("/agents", endpoint="agents")
    def list_agents() -> str:
        with sessions() as db:
            rows = agents.load_statuses(db)
            audit = db.scalars(select(AgentAudit).order_by(AgentAudit.id.desc()).limit(AUDIT_ROWS)).all()
        pending = {row.pending_job: queries.find_job(store, row.pending_job) for row in rows if row.pending_job}
        names = {row.agent.id: row.agent.name or host(row.agent.url) for row in rows}
        now = datetime.now(UTC)
        return render_template("agents.html", agents=rows, pending=pending, audit=audit, names=names, now=now)

    @pages.post("/agents/<agent>/<any(disable, enable):action>")
    def change_agent_state(agent: str, action: str) -> ResponseReturnValue:
        agents.change_state(sessions, agent, action, g.person.name)
        return redirect(url_for("console.agents"))
