"""Short-lived links to a finished document, for recipients without an API key. Pure functions.

Links are signed with the first of API_KEYS (always set where documents are started) and verified with each of them:
removing a key invalidates its links.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from urllib.parse import quote, urlencode

from settings import Settings

PATH = "/content/"
MAIL_LINK_SECONDS = 7 * 86400  # mails may be read late


def create_link(settings: Settings, document: str, now: datetime, seconds: int) -> str:
    """A URL that gives access to the document for this many seconds. Without API_KEYS the link is never valid."""
    until = str(int(now.timestamp()) + seconds)
    key = next(iter(settings.api_keys), "")
    query = urlencode({"until": until, "signature": _signature(key, document, until)})
    return f"{settings.public_url}{PATH}{quote(document, safe='')}?{query}"


def is_valid(settings: Settings, document: str, until: str, signature: str, now: float) -> bool:
    """Whether a link's signature is correct and it has not expired; `until` and `now` are seconds since 1970."""
    given = signature.encode()
    signed = [hmac.compare_digest(_signature(key, document, until).encode(), given) for key in settings.api_keys]
    return any(signed) and now <= int(until)


def _signature(key: str, document: str, until: str) -> str:
    return hmac.digest(key.encode(), f"content:{document}:{until}".encode("utf-8", "replace"), hashlib.sha256).hex()
