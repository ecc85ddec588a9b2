"""The handoff: a signed webhook of ours that tells another agent of a finished document."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from inbox.errors import PermanentError, TransientError
from tasks.clients.answers import check
from tasks.clients.safe_http import post_json
from tasks.documents import content_url
from tasks.handling import Attempt, FollowUp
from tasks.models import Document

GONE = 410  # Standard Webhooks: this receiver wants nothing more


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
    answer = post_json(url, body.encode(), settings, _signed(attempt, body))
    if answer.status_code == GONE:
        raise PermanentError("the agent answered 410: it wants no more")
    try:
        check("the agent", answer.status_code, answer.headers, attempt.now)
    except PermanentError as error:  # by the specification every other answer is worth another try
        raise TransientError(str(error)) from None
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


def _signed(attempt: Attempt, body: str) -> dict[str, str]:
    """One signature per secret, so that the receiver can change over while we rotate."""
    message = "msg_" + hashlib.sha256(attempt.key.encode()).hexdigest()[:32]
    signatures = [Webhook(secret).sign(message, attempt.now, body) for secret in attempt.settings.handoff_secret]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(attempt.now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
