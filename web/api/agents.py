"""`/api/v1/agents`: who may be told of documents, how that goes, and whom we call no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from settings import Settings
from tasks.agents.registry import signing_secrets
from web.body import parse_json, read_body
from web.queries import agents
from web.queries.agents import AgentStatus
from web.queries.times import iso

MOST_BYTES = 16 * 1024


class AgentRequest(BaseModel):
    """`POST /api/v1/agents`"""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    url: str = Field(min_length=1, max_length=2000)
    rate_per_minute: int | None = Field(default=None, ge=1, le=6000)


def register(api: Blueprint, settings: Settings, sessions: Callable[[], Session]) -> None:
    """Each change is committed, and written down with who made it, before it is answered."""

    @api.get("/agents")
    def list_agents() -> Response:
        with sessions() as db:
            return jsonify(agents=[to_json(status) for status in agents.load_statuses(db)])

    @api.post("/agents")
    def add_agent() -> tuple[Response, int]:
        """Its secret is nowhere else to be seen; but the same call tells it again."""
        wanted = parse_json(AgentRequest, read_body(request, MOST_BYTES))
        with sessions() as db:
            agent = agents.add(db, settings, wanted.name, wanted.url, g.who)
            agent.rate_per_minute = wanted.rate_per_minute or agent.rate_per_minute
            db.commit()
            return jsonify(id=agent.id, name=agent.name, secret=signing_secrets(settings, agent)[0]), 201

    @api.post("/agents/<agent>/<any(disable, enable):action>")
    def change_state(agent: str, action: str) -> Response:
        return jsonify(to_json(agents.change_state(sessions, agent, action, g.who)))


def to_json(status: AgentStatus) -> dict[str, Any]:
    agent, handoffs = status.agent, status.handoffs
    return {
        "id": agent.id,
        "name": agent.name,
        "url": agent.url,
        "state": agent.state,
        "rate_per_minute": agent.rate_per_minute,
        "failures": agent.failures,
        "failing_since": iso(agent.failing_since),
        "open_until": iso(agent.open_until),
        "last_response": agent.last_answer,
        "delivered": handoffs["delivered"],
        "pending": handoffs["owed"],
        "dead": handoffs["dead"],
    }
