"""The handoff: a signed webhook of ours that tells an agent how a document ended.

Each is a row, made in the same transaction as the end that it tells of, and a job with the agent as its ordering key:
so one agent is told one thing at a time. Before a call its turn is awaited (circuit_breaker.py); what came of the
call is committed before the attempt ends, however it ends.
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
from tasks.clients.standard_webhook import Gone, Receiver, post
from tasks.db.locking import insert_if_new, select_for_update
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp, GaveUp, replay_suffix
from tasks.models import Agent, Document, Handoff
from tasks.notifications.notify import notify_admin
from tasks.routes import DELIVER_HANDOFF
from tasks.signed_link import create_link

SPREAD_SECONDS = 30  # over which those come back that waited for an agent together


def enqueue_handoffs(db: Session, attempt: Attempt, document: Document) -> list[FollowUp]:
    """Owe each agent that waits for the document word that it is completed, or has failed."""
    urls = sorted(set(document.notify_agents))  # in one order, or two documents' rows might wait for each other
    return [_enqueue(db, attempt, document, registry.get_or_create(db, url)) for url in urls]


def _enqueue(db: Session, attempt: Attempt, document: Document, agent: str) -> FollowUp:
    kind = f"document.{document.status}"
    effect = f"handoff.{kind}.{document.start}.{agent}{replay_suffix(attempt)}"
    key = job_id(attempt.event.source, attempt.event.id, effect)
    stamp = {"state": "owed", "created_at": attempt.now, "updated_at": attempt.now}
    about = {"document": document.id, "agent": agent, "kind": kind, "data": _data(document)}
    insert_if_new(db, Handoff, id=key, **about, **stamp)
    return FollowUp(effect, DELIVER_HANDOFF, {"handoff": key}, ordering_key=f"agent:{agent}")


def _data(document: Document) -> dict[str, Any]:
    about = {"document": document.id, "document_id": document.document_id}
    if document.status == "failed":
        return {**about, "error": document.error}
    return {**about, "sha256": document.sha256, "size": document.size, "content_type": document.content_type}


def deliver(attempt: Attempt, db: Session) -> list[FollowUp]:
    """POST it to the agent, by Standard Webhooks; tried again by HANDOFF_SCHEDULE until it answers 2xx or 410.

    The webhook-id is the same at every try, so that the agent can tell a repetition; the link to the content is new.
    """
    if not attempt.settings.handoff_secret:
        raise PermanentError("HANDOFF_SECRET is not set")
    handoff, agent = _locked(attempt, db)
    try:
        _await_turn(attempt, db, handoff, agent)
    finally:
        db.commit()  # its place in the queue, even if it is not its turn
    try:
        receiver = Receiver("the agent", agent.url, registry.signing_secrets(attempt.settings, agent))
        with outside_transaction(db):
            post(attempt, receiver, _body(attempt, handoff))
    except (TransientError, PermanentError) as error:
        raise _failed(attempt, db, error) from None
    handoff, agent = _locked(attempt, db)
    circuit_breaker.record_success(agent, attempt.now)
    handoff.state, handoff.updated_at = "delivered", attempt.now
    return []


def _locked(attempt: Attempt, db: Session) -> tuple[Handoff, Agent]:
    """The agent's row first, for that is what everybody wants."""
    found = db.get(Handoff, str(attempt.args["handoff"]))
    agent = select_for_update(db, Agent, found.agent) if found else None
    handoff = select_for_update(db, Handoff, found.id) if found else None
    if agent is None or handoff is None:
        raise PermanentError("there is no such handoff")
    return handoff, agent


def _await_turn(attempt: Attempt, db: Session, handoff: Handoff, agent: Agent) -> None:
    """Pass if the agent may be called now. Raises NotNow, and PermanentError if it is not to be called at all."""
    if agent.state == "disabled":
        handoff.state, handoff.updated_at = "dead", attempt.now
        raise _disabled(attempt, db, agent)
    if until := circuit_breaker.open_until(agent, attempt.now):
        spread = timedelta(seconds=zlib.crc32(attempt.key.encode()) % SPREAD_SECONDS)
        raise _not_before(until + spread, f"the agent is not called for a while, after {agent.failures} failures")
    handoff.slot = circuit_breaker.reserve_slot(agent, handoff.slot, attempt.now)
    if handoff.slot > attempt.now:
        raise _not_before(handoff.slot, "the agent's rate is reached")
    handoff.slot = None


def _not_before(at: datetime, why: str) -> NotNow:
    return NotNow(why, int(at.timestamp() * 1000) + 1)


def _failed(attempt: Attempt, db: Session, error: TransientError | PermanentError) -> Exception:
    """What the attempt is to end in; what it did to the agent's standing is committed first."""
    handoff, agent = _locked(attempt, db)
    circuit_breaker.record_failure(agent, str(error), getattr(error, "retry_after_seconds", 0), attempt.now)
    gone = isinstance(error, Gone) or circuit_breaker.should_disable(
        agent, attempt.settings.handoff_disable_after, attempt.now
    )
    if gone:
        registry.disable(db, agent, attempt.key, attempt.now)
    over = gone or attempt.last or isinstance(error, PermanentError)
    handoff.state, handoff.updated_at = "dead" if over else "owed", attempt.now
    ending = _disabled(attempt, db, agent) if gone else _gave_up(attempt, db, agent, handoff, error) if over else error
    db.commit()
    return ending


def _disabled(attempt: Attempt, db: Session, agent: Agent) -> PermanentError:
    """The administrator hears of it from the job that did it: again, if it was killed before it could say so."""
    words = "the agent is disabled; once it is enabled, replay this job"
    if registry.disabled_by(db, agent) != attempt.key:
        return PermanentError(words)
    told = notify_admin(db, attempt, "agent_disabled", about=agent.id, **_words(agent))
    return GaveUp(f"{agent.last_answer}; {words}", [told])


def _gave_up(attempt: Attempt, db: Session, agent: Agent, handoff: Handoff, error: Exception) -> PermanentError:
    about = f"{agent.id}/{handoff.kind}"
    told = notify_admin(db, attempt, "handoff_failed", about=about, document=handoff.document, **_words(agent))
    return GaveUp(str(error), [told])


def _words(agent: Agent) -> dict[str, str]:
    """Of the URL the host only: its path and query may be secrets."""
    host = urlsplit(agent.url).hostname or ""
    return {"agent": agent.name or host, "host": host, "id": agent.id, "answer": agent.last_answer or ""}


def _body(attempt: Attempt, handoff: Handoff) -> str:
    data = dict(handoff.data)
    if handoff.kind == "document.completed":
        seconds = attempt.settings.content_link_seconds
        data["content_url"] = create_link(attempt.settings, handoff.document, attempt.now, seconds)
    return json.dumps({"type": handoff.kind, "timestamp": handoff.created_at.isoformat(), "data": data})
