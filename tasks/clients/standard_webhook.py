"""Outgoing webhooks, signed by the Standard Webhooks specification: https://www.standardwebhooks.com"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from standardwebhooks import Webhook

from inbox.errors import PermanentError, TransientError
from tasks.clients.responses import raise_for_status, retry_after_seconds
from tasks.clients.safe_http import HEAD_SECONDS, post_json
from tasks.handler import Attempt

GONE = 410  # the specification: the receiver must be disabled


class Gone(PermanentError):
    """The receiver answered 410: it must get no more messages."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where a webhook is sent. A `trusted` URL comes from our own settings: it may be http and private.

    The response must begin within `answer_seconds`.
    """

    name: str  # for error texts
    url: str
    secrets: tuple[str, ...]
    trusted: bool = False
    answer_seconds: float = HEAD_SECONDS


def post(attempt: Attempt, receiver: Receiver, body: str) -> None:
    """POST a JSON text, signed. The webhook-id is derived from the job's key, so the receiver can detect a repetition.

    Raises Gone for 410, PermanentError for a URL that is not allowed, TransientError if there is no response and for
    every other status but 2xx, because the specification has the sender retry them all.
    """
    headers = _signed_headers(attempt, receiver, body)
    response = post_json(
        receiver.url,
        body.encode(),
        attempt.settings,
        headers,
        trusted=receiver.trusted,
        answer_seconds=receiver.answer_seconds,
        deadline=attempt.deadline,
    )
    if response.status_code == GONE:
        raise Gone(f"{receiver.name} answered 410: it accepts no more messages")
    try:
        raise_for_status(receiver.name, response.status_code, response.headers, attempt.now)
    except PermanentError as error:
        raise TransientError(str(error), retry_after_seconds(response.headers, attempt.now)) from None


def _signed_headers(attempt: Attempt, receiver: Receiver, body: str) -> dict[str, str]:
    """The headers of the specification, with one signature per secret, so that a secret can be rotated."""
    message = "msg_" + hashlib.sha256(attempt.key.encode()).hexdigest()[:32]
    signatures = [Webhook(secret).sign(message, attempt.now, body) for secret in receiver.secrets]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(attempt.now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
