"""`/api/v1/agents`: the agents that are notified of documents."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, g, request
from sqlalchemy.orm import Session

from settings import Settings
from tasks.models import Agent
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
        "Add an agent. Its secret is shown only now; the same request again is answered 200, without it",
        {201: schemas.AgentSecret, 200: schemas.AgentKnown},
        errors={409: "the name or the URL belongs to another agent"},
        body=inputs.AgentRequest,
        scope="admin",
    )
    def add_agent() -> schemas.AgentSecret | tuple[schemas.AgentKnown, int]:
        body = parse_json(inputs.AgentRequest, read_body(request, inputs.MAX_BODY_BYTES))
        with sessions() as db:
            agent, secret = agents.add(db, settings, body.name, body.url, g.who)
            agent.rate_per_minute = body.rate_per_minute or agent.rate_per_minute
            db.commit()
        if secret is None:
            return schemas.AgentKnown(id=agent.id, name=agent.name), 200
        return _with_secret(agent, secret)

    @api.post("/agents/<agent>/rotate")
    @operation(
        "Give an agent, by its id or name, a new secret, shown only now. The former one signs for 24 hours, too",
        schemas.AgentSecret,
        errors={404: "no such agent"},
        scope="admin",
    )
    def rotate_secret(agent: str) -> schemas.AgentSecret:
        return _with_secret(*agents.rotate_secret(sessions, settings, agent, g.who))

    @api.post("/agents/secret")
    @operation(
        "Show the secret that signs the messages to a URL that was not added",
        schemas.AgentSecret,
        errors={409: "the URL was added under a name"},
        body=inputs.AgentUrl,
        scope="admin",
    )
    def show_secret() -> schemas.AgentSecret:
        body = parse_json(inputs.AgentUrl, read_body(request, inputs.MAX_BODY_BYTES))
        return _with_secret(*agents.show_secret(sessions, settings, body.url, g.who))

    @api.post("/agents/<agent>/disable", defaults={"action": "disable"})
    @api.post("/agents/<agent>/enable", defaults={"action": "enable"})
    @operation(
        "Disable or enable an agent, by its id or name", schemas.Agent, errors={404: "no such agent"}, scope="admin"
    )
    def change_state(agent: str, action: str) -> schemas.Agent:
        return to_model(agents.change_state(sessions, agent, action, g.who))


def _with_secret(agent: Agent, secret: str) -> schemas.AgentSecret:
    return schemas.AgentSecret(id=agent.id, name=agent.name, secret=secret)


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
            "open_until": iso(status.open_until),
            "last_response": agent.last_answer,
            "delivered": handoffs["delivered"],
            "pending": handoffs["owed"],
            "dead": handoffs["dead"],
        }
    )
