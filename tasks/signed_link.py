"""Short-lived links to a finished document, for recipients without an API key. Pure functions.

Links are signed with a key derived from the first of the API_KEYS that may read, and verified with those of all that
may: removing an API key invalidates its links, and the owner of a key that may not read cannot make a valid link.
"""

from __future__ import annotations

import hmac
from datetime import datetime
from urllib.parse import quote, urlencode

from settings import Settings
from tasks.derived_keys import derive_key

PATH = "/content/"
MAIL_LINK_SECONDS = 7 * 86400  # mails may be read late


def create_link(settings: Settings, document: str, now: datetime, seconds: int) -> str:
    """A URL that gives access to the document for this many seconds. Without a key that may read it is never valid."""
    until = str(int(now.timestamp()) + seconds)
    signature = next((_signature(key, document, until) for key in _readers(settings)), "")
    query = urlencode({"until": until, "signature": signature})
    return f"{settings.public_url}{PATH}{quote(document, safe='')}?{query}"


def is_valid(settings: Settings, document: str, until: str, signature: str, now: float) -> bool:
    """Whether a link's signature is correct and it has not expired; `until` and `now` are seconds since 1970."""
    given = signature.encode()
    signed = [hmac.compare_digest(_signature(key, document, until).encode(), given) for key in _readers(settings)]
    return any(signed) and now <= int(until)


def _readers(settings: Settings) -> list[str]:
    return [key.secret for key in settings.api_keys if "read" in key.scopes]


def _signature(key: str, document: str, until: str) -> str:
    signed = f"{document}:{until}".encode("utf-8", "replace")
    return hmac.digest(derive_key(key, "content link"), signed, "sha256").hex()
