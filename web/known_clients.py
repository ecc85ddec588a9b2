"""Whether a request has an API key or a session, judged by its head alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from werkzeug.datastructures import Authorization
from werkzeug.http import parse_cookie

from inbox.ended_sessions import EndedSessions
from settings import ApiKey
from web.auth import find_key
from web.console.sign_in import COOKIE, has_session


def is_known(keys: Collection[ApiKey], ended: EndedSessions, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the headers, whose names are in lower case, have one of the keys or the cookie of a console session.

    It makes no query, so one request with the cookie of a session that was ended in another process counts as known.
    """
    given = {name: value.decode("latin-1") for name, value in headers if name in (b"authorization", b"cookie")}
    bearer = Authorization.from_header(given.get(b"authorization"))
    if bearer is not None and bearer.type == "bearer" and find_key(keys, (bearer.token or "").encode()):
        return True
    return has_session(keys, ended, parse_cookie(given.get(b"cookie")).get(COOKIE, ""))
