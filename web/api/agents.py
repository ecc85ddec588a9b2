"""`/api/v1/agents`: the agents that are notified of documents."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, g, request
from sqlalchemy.orm import Session

from settings import Settings
from tasks.agents.registry import signing_secrets
from web.api import inputs, schemas
from web.api.operation import operation
from web.body import parse_json, read_body
from web.queries import agents
from web.queries.agents import AgentStatus
from web.times import iso


def register(api: Blueprint, settings: Settings, sessions: Callable[[], Session]) -> None:
    """Each change is committed, with the API key that made it, before the response."""

    @api.get("/agents")
    @operation("List the agents", schemas.AgentList)
    def list_agents() -> schemas.AgentList:
        with sessions() as db:
            return schemas.AgentList(agents=[to_model(status) for status in agents.load_statuses(db)])

    @api.post("/agents")
    @operation(
        "Add an agent. The same request again returns the same agent and secret",
        {201: schemas.AgentAdded},
        errors={409: "the name or the URL belongs to another agent"},
        body=inputs.AgentRequest,
    )
    def add_agent() -> schemas.AgentAdded:
        body = parse_json(inputs.AgentRequest, read_body(request, inputs.MAX_BODY_BYTES))
        with sessions() as db:
            agent = agents.add(db, settings, body.name, body.url, g.who)
            agent.rate_per_minute = body.rate_per_minute or agent.rate_per_minute
            db.commit()
            return schemas.AgentAdded(id=agent.id, name=body.name, secret=signing_secrets(settings, agent)[0])

    @api.post("/agents/<agent>/disable", defaults={"action": "disable"})
    @api.post("/agents/<agent>/enable", defaults={"action": "enable"})
    @operation("Disable or enable an agent, by its id or name", schemas.Agent, errors={404: "no such agent"})
    def change_state(agent: str, action: str) -> schemas.Agent:
        return to_model(agents.change_state(sessions, agent, action, g.who))


def to_model(status: AgentStatus) -> schemas.Agent:
    agent, handoffs = status.agent, status.handoffs
    return schemas.Agent.model_validate(
        {
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
    )
