"""Error responses: always {"error": "<message>"}, without a traceback and without parts of the request.

HttpError              400, or the given status
└── BadSignature       400: the delivery has no valid signature

inbox.errors.BadPayload is a 400 too: a signed body that is not an event of that source, or is of the wrong mode.
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

# The reasons by which rejected deliveries are counted. body: too large, cut off or not text; unsigned: no signature, or
# a malformed one; signature: matches no configured secret; timestamp: too old, or in the future; payload and mode: not
# an event, or one of the other mode (inbox/errors.py); unavailable: the store refused it, and the source tries again.
REASONS = ("body", "unsigned", "signature", "timestamp", "payload", "mode", "unavailable")


class HttpError(Exception):
    """A rejected request: the message for the client, the status, and for 429 when to try again."""

    status = 400
    reason = "body"

    def __init__(self, message: str, status: int = 400, retry_after_seconds: int = 60) -> None:
        super().__init__(message)
        self.status, self.retry_after_seconds = status, retry_after_seconds


class BadSignature(HttpError):
    """No configured secret produced a valid, current signature."""

    def __init__(self, reason: Literal["unsigned", "signature", "timestamp"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


def register(app: Flask) -> None:
    """Answer every error in JSON."""
    app.register_error_handler(Exception, _answer)


def _answer(error: Exception) -> Response:
    status, message, headers = describe_error(error)
    response = jsonify(error=message)
    response.status_code = int(status)
    response.headers.update(headers)
    return response


def describe_error(error: Exception) -> tuple[int, str, dict[str, str]]:
    """The response to an error: status, message and headers."""
    match error:
        case HttpError():
            status, message = int(error.status), str(error)
        case BadPayload():
            status, message = 400, str(error)
        case StoreUnavailable():  # the client must try again
            status, message = 503, f"{error}; nothing was recorded, send it again"
        case OperationalError():  # only requests about documents need it; events are still recorded
            log.warning("the database is not available", error=type(error.orig).__name__)
            status, message = 503, "the database is not available; try again"
        case TransientError():  # DOCUMENT_STORE is not available; only downloads from it need it
            log.warning("temporary error", error=str(error))
            status, message = 503, f"{error}; try again"
        case HTTPException():
            status, message = error.code or 500, (error.description or error.name).lower().rstrip(".")
        case _:
            log.error("unexpected error", error=type(error).__name__, exc_info=error)
            status, message = 500, "an unexpected error; it has been logged"
    return status, message, _help(status, error)


def error_response(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    """The response to an error outside Flask: status, body in JSON, headers."""
    status, message, headers = describe_error(error)
    return status, json.dumps({"error": message}).encode(), headers


def _help(status: int, error: Exception) -> dict[str, str]:
    """RFC 9110, sections 15.5.2, 15.5.6 and 15.6.4."""
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return {"Allow": ", ".join(sorted(getattr(error, "valid_methods", None) or ()))}
        case HTTPStatus.TOO_MANY_REQUESTS:
            return {"Retry-After": str(getattr(error, "retry_after_seconds", 60))}
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": RETRY_AFTER_SECONDS}
    return {}
