"""What a caller is told when something is wrong: always {"error": "<what, in words>"}, never a trace or an echo.

Refused                400, or the status given
└── BadSignature       400: the delivery does not prove who sent it

inbox.errors.BadPayload is a 400 too: it is signed, but the body is not what that source sends, or of the wrong mode.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Literal

import structlog
from flask import Flask, Response, jsonify
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException

from inbox.errors import BadPayload, StoreUnavailable, TransientError

log = structlog.get_logger()

RETRY_AFTER_SECONDS = "5"

# What a refused delivery is counted under. body: too large, cut off or no text; unsigned: no signature, or none that
# can be read; signature: by no secret of ours; timestamp: too old, or from the future; payload and mode: signed, but no
# event, or one of the other mode (inbox/errors.py); unavailable: the store did not take it, the sender tries again.
REASONS = ("body", "unsigned", "signature", "timestamp", "payload", "mode", "unavailable")


class HttpError(Exception):
    """A rejected request: the message for its client, and the status."""

    status = 400
    reason = "body"

    def __init__(self, words: str, status: int = 400) -> None:
        super().__init__(words)
        self.status = status


class BadSignature(HttpError):
    """No configured secret produced a valid, current signature."""

    def __init__(self, reason: Literal["unsigned", "signature", "timestamp"], words: str) -> None:
        super().__init__(words)
        self.reason = reason


def register(app: Flask) -> None:
    """Answer every error in JSON."""
    app.register_error_handler(Exception, _answer)


def _answer(error: Exception) -> Response:
    status, words, headers = describe_error(error)
    response = jsonify(error=words)
    response.status_code = int(status)
    response.headers.update(headers)
    return response


def describe_error(error: Exception) -> tuple[int, str, dict[str, str]]:
    """What the caller is told: the status, what was wrong in words, and headers that help it."""
    match error:
        case HttpError():
            status, words = int(error.status), str(error)
        case BadPayload():
            status, words = 400, str(error)
        case StoreUnavailable():  # the client must try again
            status, words = 503, f"{error}; nothing was recorded, send it again"
        case OperationalError():  # only what looks up documents needs it; events are taken all the same
            log.warning("the database does not answer", error=type(error.orig).__name__)
            status, words = 503, "the database does not answer now; ask again"
        case TransientError():  # DOCUMENT_STORE does not answer, which only its reader notices
            log.warning("not now", error=str(error))
            status, words = 503, f"{error}; ask again"
        case HTTPException():
            status, words = error.code or 500, (error.description or error.name).lower().rstrip(".")
        case _:
            log.error("unexpected error", error=type(error).__name__, exc_info=error)
            status, words = 500, "an unexpected error; it has been logged"
    return status, words, _help(status, error)


def error_response(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    """The response to an error outside Flask: status, body in JSON, headers."""
    status, words, headers = describe_error(error)
    return status, json.dumps({"error": words}).encode(), headers


def _help(status: int, error: Exception) -> dict[str, str]:
    """RFC 9110, sections 15.5.2, 15.5.6 and 15.6.4."""
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return {"Allow": ", ".join(sorted(getattr(error, "valid_methods", None) or ()))}
        case HTTPStatus.TOO_MANY_REQUESTS:
            return {"Retry-After": "60"}
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": RETRY_AFTER_SECONDS}
    return {}
