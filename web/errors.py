"""What a caller is told when something is wrong: always {"error": "<what, in words>"}, never a trace or an echo.

Refused                400, or the status given
└── BadSignature       400: the delivery does not prove who sent it

inbox.errors.BadPayload is a 400 too: it is signed, but the body is not what that source sends, or of the wrong mode.
"""

from __future__ import annotations

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
# event, or one of the other mode (inbox/errors.py).
REASONS = ("body", "unsigned", "signature", "timestamp", "payload", "mode")


class Refused(Exception):
    """A request that is not taken, with the words for its sender."""

    status = 400
    reason = "body"

    def __init__(self, words: str, status: int = 400) -> None:
        super().__init__(words)
        self.status = status


class BadSignature(Refused):
    """Nobody we know has signed this now."""

    def __init__(self, reason: Literal["unsigned", "signature", "timestamp"], words: str) -> None:
        super().__init__(words)
        self.reason = reason


def register(app: Flask) -> None:
    """Answer every error in JSON."""
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(BadPayload, lambda error: _answer(str(error), 400))
    app.register_error_handler(StoreUnavailable, _unavailable)
    app.register_error_handler(OperationalError, _no_database)
    app.register_error_handler(TransientError, _not_now)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _answer(words: str, status: int) -> Response:
    response = jsonify(error=words)
    response.status_code = status
    return response


def _refused(error: Refused) -> Response:
    response = _answer(str(error), error.status)
    if error.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 15.5.2
    return response


def _unavailable(error: StoreUnavailable) -> Response:
    """The sender must try again: nothing was recorded."""
    response = _answer(f"{error}; nothing was recorded, send it again", 503)
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _no_database(error: OperationalError) -> Response:
    """Only what looks up documents needs it; events are taken all the same."""
    log.warning("the database does not answer", error=type(error.orig).__name__)
    response = _answer("the database does not answer now; ask again", 503)
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _not_now(error: TransientError) -> Response:
    """DOCUMENT_STORE does not answer, which only its reader notices."""
    log.warning("not now", error=str(error))
    response = _answer(f"{error}; ask again", 503)
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _http(error: HTTPException) -> Response:
    response = _answer((error.description or error.name).lower().rstrip("."), error.code or 500)
    allowed = getattr(error, "valid_methods", None)
    if allowed:  # 405 must say what is allowed (RFC 9110, 15.5.6)
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _unexpected(error: Exception) -> Response:
    log.error("unexpected error", error=type(error).__name__, exc_info=error)
    return _answer("an unexpected error; it has been logged", 500)
