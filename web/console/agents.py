"""Agents: who is told of documents, how that goes, and whom we call no more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

from flask import Blueprint, g, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from tasks.models import AgentDeed
from web.queries import agents

DEEDS = 50


def register(pages: Blueprint, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/agents"""

    @pages.app_template_filter()
    def host(url: str) -> str:
        """All that is shown of an agent's URL: its path and query may be secrets."""
        return urlsplit(url).hostname or ""

    @pages.get("/agents", endpoint="agents")
    def list_agents() -> str:
        with sessions() as db:
            shown = agents.standings(db)
            deeds = db.scalars(select(AgentDeed).order_by(AgentDeed.id.desc()).limit(DEEDS)).all()
        owed = {one.owed: queries.job(store, one.owed) for one in shown if one.owed}
        names = {one.agent.id: one.agent.name or host(one.agent.url) for one in shown}
        now = datetime.now(UTC)
        return render_template("agents.html", agents=shown, owed=owed, deeds=deeds, names=names, now=now)

    @pages.post("/agents/<agent>/disable")
    def disable_agent(agent: str) -> ResponseReturnValue:
        return _switched(agent, "disable")

    @pages.post("/agents/<agent>/enable")
    def enable_agent(agent: str) -> ResponseReturnValue:
        return _switched(agent, "enable")

    def _switched(agent: str, to: Literal["disable", "enable"]) -> ResponseReturnValue:
        with sessions() as db:
            agents.switch(db, agent, to, g.person.name)
            db.commit()
        return redirect(url_for("console.agents"))
