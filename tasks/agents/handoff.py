"""Handoffs: signed webhooks that inform an agent how a document ended.

Each handoff is a row, committed in the same transaction as the end of the document, and a job whose ordering key is the
agent's host: deliveries to one host never run concurrently, so that a host that does not answer holds one worker, not
all. An attempt first checks the circuit breakers and the rate limit (circuit_breaker.py). The result of the call is
committed before the attempt ends, however it ends.
"""

from __future__ import annotations

import json
import zlib
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from inbox.errors import NotNow, PermanentError, TransientError
from inbox.job import job_id
from tasks.agents import circuit_breaker, registry
from tasks.clients.responses import DeadlineReached, NoAnswer
from tasks.clients.standard_webhook import Gone, Receiver, post
from tasks.db.locking import insert_if_new, select_for_update
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp, GaveUp, replay_suffix
from tasks.models import Agent, AgentHost, Document, Handoff
from tasks.notifications.notify import notify_admin
from tasks.routes import DELIVER_HANDOFF
from tasks.signed_link import create_link

SPREAD_SECONDS = 30  # spreads the handoffs that waited for the same circuit breaker


def enqueue_handoffs(db: Session, attempt: Attempt, document: Document) -> list[FollowUp]:
    """Enqueue a handoff to each agent of the document, which is completed or has failed."""
    urls = sorted(set(document.notify_agents))  # sorted, so that concurrent inserts of the same agents cannot deadlock
    return [_enqueue(db, attempt, document, url) for url in urls]


def _enqueue(db: Session, attempt: Attempt, document: Document, url: str) -> FollowUp:
    agent = registry.get_or_create(db, url)
    kind = f"document.{document.status}"
    effect = f"handoff.{kind}.{document.start}.{agent}{replay_suffix(attempt)}"
    key = job_id(attempt.event.source, attempt.event.id, effect)
    stamp = {"state": "owed", "created_at": attempt.now, "updated_at": attempt.now}
    about = {"document": document.id, "agent": agent, "kind": kind, "data": _event_data(document)}
    insert_if_new(db, Handoff, id=key, **about, **stamp)
    return FollowUp(effect, DELIVER_HANDOFF, {"handoff": key}, ordering_key=f"agents:{registry.origin(url)}")


def _event_data(document: Document) -> dict[str, Any]:
    about = {"document": document.id, "document_id": document.document_id}
    if document.status == "failed":
        return {**about, "error": document.error}
    return {**about, "sha256": document.sha256, "size": document.size, "content_type": document.content_type}


def deliver(attempt: Attempt, db: Session) -> list[FollowUp]:
    """POST a handoff to its agent as a Standard Webhook; retried by HANDOFF_SCHEDULE until the response is 2xx or 410.

    Every attempt has the same webhook-id, so that the agent can recognise duplicates, and a new link to the content.
    """
    if not attempt.settings.handoff_secret:
        raise PermanentError("HANDOFF_SECRET is not set")
    handoff, agent, host = _lock_rows(attempt, db)
    try:
        _check_turn(attempt, db, handoff, agent, host)
    finally:
        db.commit()  # keeps the reserved slot, also if the handoff must wait
    try:
        secrets = registry.signing_secrets(attempt.settings, agent, attempt.now)
        receiver = Receiver("the agent", agent.url, secrets, answer_seconds=circuit_breaker.answer_seconds(host))
        with outside_transaction(db):
            post(attempt, receiver, _body(attempt, handoff))
    except (TransientError, PermanentError) as error:
        raise _record_failure(attempt, db, error) from None
    handoff, agent, host = _lock_rows(attempt, db)
    circuit_breaker.record_success(agent, attempt.now)
    circuit_breaker.record_answer(host, attempt.now)
    handoff.state, handoff.updated_at = "delivered", attempt.now
    return []


def _lock_rows(attempt: Attempt, db: Session) -> tuple[Handoff, Agent, AgentHost]:
    """Lock the agent before the handoff, in every transaction, so that two of them cannot deadlock."""
    found = db.get(Handoff, str(attempt.args["handoff"]))
    locked = registry.lock(db, found.agent) if found else None
    handoff = select_for_update(db, Handoff, found.id) if found else None
    if locked is None or handoff is None:
        raise PermanentError("there is no such handoff")
    return handoff, *locked


def _check_turn(attempt: Attempt, db: Session, handoff: Handoff, agent: Agent, host: AgentHost) -> None:
    """Raises NotNow while a circuit breaker or the rate limit forbids a call, PermanentError for a disabled agent."""
    if agent.state == "disabled":
        handoff.state, handoff.updated_at = "dead", attempt.now
        raise _disabled(attempt, db, agent)
    for name, row in (("agent", agent), ("agent's host", host)):
        if until := circuit_breaker.open_until(row, attempt.now):
            spread = timedelta(seconds=zlib.crc32(attempt.key.encode()) % SPREAD_SECONDS)
            reason = f"the circuit breaker of the {name} is open after {row.failures} failures"
            raise _not_before(until + spread, reason)
    handoff.slot = circuit_breaker.reserve_slot(agent, handoff.slot, attempt.now)
    if handoff.slot > attempt.now:
        raise _not_before(handoff.slot, "the agent's rate limit is reached")
    handoff.slot = None


def _not_before(at: datetime, reason: str) -> NotNow:
    return NotNow(reason, int(at.timestamp() * 1000) + 1)


def _record_failure(attempt: Attempt, db: Session, error: TransientError | PermanentError) -> Exception:
    """Record and commit a failed call; return the exception that ends the attempt."""
    handoff, agent, host = _lock_rows(attempt, db)
    if isinstance(error, NoAnswer):
        circuit_breaker.record_silence(host, attempt.now)
    elif isinstance(error, TransientError | Gone) and not isinstance(error, DeadlineReached):
        circuit_breaker.record_answer(host, attempt.now)
    circuit_breaker.record_failure(agent, str(error), getattr(error, "retry_after_seconds", 0), attempt.now)
    disable = isinstance(error, Gone) or circuit_breaker.should_disable(
        agent, attempt.settings.handoff_disable_after, attempt.now
    )
    if disable:
        registry.disable(db, agent, attempt.key, attempt.now)
    is_final = disable or attempt.last or isinstance(error, PermanentError)
    handoff.state, handoff.updated_at = "dead" if is_final else "owed", attempt.now
    outcome: Exception = error
    if disable:
        outcome = _disabled(attempt, db, agent)
    elif is_final:
        outcome = _gave_up(attempt, db, agent, handoff, error)
    db.commit()
    return outcome


def _disabled(attempt: Attempt, db: Session, agent: Agent) -> PermanentError:
    """The error for a disabled agent. The job that disabled it notifies the administrator, again after a crash."""
    message = "the agent is disabled; enable it, then replay this job"
    if registry.disabled_by(db, agent) != attempt.key:
        return PermanentError(message)
    mail = notify_admin(db, attempt, "agent_disabled", about=agent.id, count=attempt.key, **_agent_params(agent))
    return GaveUp(f"{agent.last_answer}; {message}", [mail])


def _gave_up(attempt: Attempt, db: Session, agent: Agent, handoff: Handoff, error: Exception) -> PermanentError:
    params = {"document": handoff.document, **_agent_params(agent)}
    mail = notify_admin(db, attempt, "handoff_failed", about=handoff.id, **params)
    return GaveUp(str(error), [mail])


def _agent_params(agent: Agent) -> dict[str, str]:
    """Template parameters for an agent: only the host of its URL, because path and query may hold secrets."""
    host = urlsplit(agent.url).hostname or ""
    return {"agent": agent.name or host, "host": host, "id": agent.id, "answer": agent.last_answer or ""}


def _body(attempt: Attempt, handoff: Handoff) -> str:
    data = dict(handoff.data)
    if handoff.kind == "document.completed":
        seconds = attempt.settings.content_link_seconds
        data["content_url"] = create_link(attempt.settings, handoff.document, attempt.now, seconds)
    return json.dumps({"type": handoff.kind, "timestamp": handoff.created_at.isoformat(), "data": data})
