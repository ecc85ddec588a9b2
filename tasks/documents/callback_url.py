"""The URL that the document service calls back: the same for all documents, or, if it cannot sign, one per document."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import urlencode

from settings import Settings

PATH = "/doc-status-webhook"


def callback_url(settings: Settings, document: str) -> str:
    """The callback URL for a document. With DOC_WEBHOOK_SCHEME=token it holds the document's id and a secret token."""
    address = settings.public_url + PATH
    if settings.doc_webhook_scheme != "token":
        return address
    return f"{address}?{urlencode({'document': document, 'token': token(settings.doc_webhook_secret[0], document)})}"


def token(secret: str, document: str) -> str:
    """The token of a document: an HMAC of its id, so that it need not be stored."""
    digest = hmac.digest(secret.encode(), b"callback:" + document.encode("utf-8", "replace"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
