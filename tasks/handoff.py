"""The handoff: a signed webhook of ours that tells another agent of a finished document."""

from __future__ import annotations

import json

from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from tasks.clients.standard_webhook import Receiver, post
from tasks.documents import content_url
from tasks.handling import Attempt, FollowUp
from tasks.models import Document


def deliver(attempt: Attempt, db: Session) -> list[FollowUp]:
    """POST the document's whereabouts to one agent, by Standard Webhooks; tried again until it answers 2xx or 410.

    The webhook-id is the same at every try, so that the agent can tell a repetition.
    """
    settings = attempt.settings
    if not settings.handoff_secret:
        raise PermanentError("HANDOFF_SECRET is not set")
    document = db.get_one(Document, str(attempt.args["document"]))
    db.commit()  # no transaction stays open over a call
    body = _message(attempt, document)
    url = document.notify_agents[int(attempt.args["agent"])]
    post(attempt, Receiver("the agent", url, settings.handoff_secret), body)
    return []


def _message(attempt: Attempt, document: Document) -> str:
    return json.dumps(
        {
            "type": "document.completed",
            "timestamp": document.updated_at.isoformat(),
            "document": document.id,
            "document_id": document.document_id,
            "sha256": document.sha256,
            "size": document.size,
            "content_type": document.content_type,
            "content_url": content_url(attempt.settings.public_url, document.id),
        }
    )
