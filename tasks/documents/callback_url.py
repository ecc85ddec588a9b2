"""Where the document service calls us back: one address, or, for a service that can sign nothing, one a document."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import urlencode

from settings import Settings

PATH = "/doc-status-webhook"


def callback_url(settings: Settings, document: str) -> str:
    """The address for this document of ours; with DOC_WEBHOOK_SCHEME=token a secret of whoever was given it."""
    address = settings.public_url + PATH
    if settings.doc_webhook_scheme != "token":
        return address
    return f"{address}?{urlencode({'document': document, 'token': token(settings.doc_webhook_secret[0], document)})}"


def token(secret: str, document: str) -> str:
    """What nobody can guess, and we need not keep: it follows from the secret and the document."""
    digest = hmac.digest(secret.encode(), b"callback:" + document.encode("utf-8", "replace"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
