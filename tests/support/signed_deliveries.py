"""Signed deliveries, as the real senders make them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import requests
from standardwebhooks import Webhook
from stripe import WebhookSignature

from dev.stack.servers import wait_until
from settings import api_keys

STRIPE_SECRET = "whsec_stripe_for_tests_0123456789"
DOC_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
API_KEY = "test-key-0123456789abcdef"


def key_name(key: str) -> str:
    """The name of an entry of API_KEYS in the audit log."""
    return api_keys.parse(key)[0].name


def deliver(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """As senders do it: again, until it is taken. On a busy machine the store may not answer in time."""
    wait_until(
        lambda: requests.post(url, data=body, headers=headers, timeout=30).status_code == 200,
        seconds=30,
        what="the event to be taken",
    )


def stripe_event(event_id: str, kind: str = "customer.created", **subject: Any) -> dict[str, Any]:
    """An event around `subject`, its data.object."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": "2025-09-30.clover",
        "created": int(time.time()),
        "livemode": False,
        "type": kind,
        "data": {"object": {"id": "obj_1", **subject}},
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
    }


def signed_by_stripe(event: Any, secret: str = STRIPE_SECRET, at: float | None = None) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a Stripe delivery."""
    body = event if isinstance(event, str) else json.dumps(event)
    stamp = int(time.time() if at is None else at)
    header = WebhookSignature.generate_signature_header(body, secret, stamp)
    return body.encode(), {"Stripe-Signature": header, "Content-Type": "application/json"}


def signed_by_documents(
    status: Any, webhook_id: str = "msg_1", secret: str = DOC_SECRET, at: float | None = None
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a document service's callback."""
    body = status if isinstance(status, str) else json.dumps(status)
    when = datetime.fromtimestamp(int(time.time() if at is None else at), UTC)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, when, body),
        "Content-Type": "application/json",
    }
    return body.encode(), headers
