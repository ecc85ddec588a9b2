"""A signed webhook of ours, by Standard Webhooks: https://www.standardwebhooks.com"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from standardwebhooks import Webhook

from inbox.errors import PermanentError, TransientError
from tasks.clients.responses import raise_for_status, retry_after_seconds
from tasks.clients.safe_http import post_json
from tasks.handler import Attempt

GONE = 410  # this receiver wants nothing more


class Gone(PermanentError):
    """The receiver has said that it wants nothing more, ever."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whom we tell. A `trusted` URL is one from our own settings: it may be http and private."""

    name: str  # for error texts
    url: str
    secrets: tuple[str, ...]
    trusted: bool = False


def post(attempt: Attempt, receiver: Receiver, body: str) -> None:
    """POST a JSON text, signed. The webhook-id comes from the job's key, so that the receiver can tell a repetition.

    Raises Gone for a 410, PermanentError for an address we do not call, TransientError for every other answer but 2xx:
    by the specification each is worth another try.
    """
    headers = _signed(attempt, receiver, body)
    answer = post_json(receiver.url, body.encode(), attempt.settings, headers, trusted=receiver.trusted)
    if answer.status_code == GONE:
        raise Gone(f"{receiver.name} answered 410: it wants no more")
    try:
        raise_for_status(receiver.name, answer.status_code, answer.headers, attempt.now)
    except PermanentError as error:
        raise TransientError(str(error), retry_after_seconds(answer.headers, attempt.now)) from None


def _signed(attempt: Attempt, receiver: Receiver, body: str) -> dict[str, str]:
    """One signature per secret, so that the receiver can change over while we rotate."""
    message = "msg_" + hashlib.sha256(attempt.key.encode()).hexdigest()[:32]
    signatures = [Webhook(secret).sign(message, attempt.now, body) for secret in receiver.secrets]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(attempt.now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
