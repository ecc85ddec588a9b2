"""Short-lived links to a finished document, for whoever has no key of our API: pure functions.

They are signed with the first of API_KEYS, which nobody can do without who starts documents, and hold under any of
them: to take a key away ends its links, too.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from urllib.parse import quote, urlencode

from settings import Settings

PATH = "/content/"
MAIL_LINK_SECONDS = 7 * 86400  # people read mails late


def create_link(settings: Settings, document: str, now: datetime, seconds: int) -> str:
    """Where the document can be had for so long, by whoever has this address. Without API_KEYS it opens nothing."""
    until = str(int(now.timestamp()) + seconds)
    key = next(iter(settings.api_keys), "")
    query = urlencode({"until": until, "signature": _signature(key, document, until)})
    return f"{settings.public_url}{PATH}{quote(document, safe='')}?{query}"


def is_valid(settings: Settings, document: str, until: str, signature: str, now: float) -> bool:
    """Whether a link says the truth and is not over; `now` in seconds since 1970."""
    given = signature.encode()
    signed = [hmac.compare_digest(_signature(key, document, until).encode(), given) for key in settings.api_keys]
    return any(signed) and now <= int(until)


def _signature(key: str, document: str, until: str) -> str:
    return hmac.digest(key.encode(), f"content:{document}:{until}".encode("utf-8", "replace"), hashlib.sha256).hex()
