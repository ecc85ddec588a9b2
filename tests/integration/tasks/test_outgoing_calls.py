"""No handler keeps a transaction open while it waits for another server: on SQLite that would block all writers."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from dev.simulators.http import Request
from tasks.agents.handoff import deliver
from tasks.agents.registry import get_or_create
from tasks.billing import disputes
from tasks.billing.payments import payment_failed, retry_payment
from tasks.billing.refunds import charge_refunded, refund_changed
from tasks.documents.download import download
from tasks.documents.submissions import check_deadline, submit
from tasks.handler import Handler
from tasks.models import AppMessage, Document, Handoff, Notification, PaymentFailure, PaymentIntent, PaymentRetry
from tasks.notifications.notify import send
from tasks.orders import app_webhook, sales_without_session
from tasks.orders.fulfilment import checkout_completed
from tests.integration.tasks.billing.test_payments import failure
from tests.integration.tasks.billing.test_refunds import dispute, failed_refund, refund
from tests.integration.tasks.orders.test_fulfilment import checkout
from tests.support.business import HANDOFF_SECRET, NOW, Business
from tests.support.peers import Answer, Peer, Stripe

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13

STRIPE_SAYS = (
    b'{"id": "in_1", "customer": "cus_1", "status": "open", "amount_due": 1999, "currency": "eur",'
    b' "email": "ada@example.com", "subscription": "sub_1", "amount": 1999, "amount_refunded": 0,'
    b' "charge": "ch_1"}'
)
STRIPE_LISTS = b'{"object": "list", "data": [], "has_more": false, "url": "/v1/x"}'


def settings(peer: Peer) -> dict[str, str]:
    return {
        "STRIPE_API_KEY": Stripe.KEY,
        "STRIPE_API_BASE": peer.url,
        "DOC_SERVICE_URL": peer.url,
        "PUBLIC_URL": peer.url,
        "HANDOFF_SECRET": HANDOFF_SECRET,
        "APP_WEBHOOK_URL": peer.url,
        "APP_WEBHOOK_SECRET": HANDOFF_SECRET,
        "CUSTOMER_NOTIFY_URLS": f"json://{peer.host}/",
        "ADMIN_NOTIFY_URLS": f"json://{peer.host}/",
        "CALL_OUT_ALLOWED_HOSTS": peer.host,
    }


def prepare(business: Business, peer: Peer) -> None:
    """Rows on which every handler has something to do."""
    seen = {"kind": "payment_failed", "created": 1, "recorded_at": NOW, "attempt_count": 1}
    document = {"document_id": "d", "status": "downloading", "created_at": NOW, "updated_at": NOW}
    with business.sessions() as db:
        db.add(PaymentFailure(event_id="e", invoice="in_1", customer="cus_1", amount_due=1, currency="eur", **seen))
        db.add(PaymentRetry(invoice="in_1", number=1, state="planned", due_at=NOW))
        db.add(Document(id="doc_1", task_id="task_1", result_url=peer.url, notify_agents=[peer.url], **document))
        db.flush()
        words = {"document": "doc_1", "kind": "document.completed", "data": {}, "created_at": NOW, "updated_at": NOW}
        db.add(Handoff(id="h", agent=get_or_create(db, peer.url), **words))
        row = {
            "kind": "payment_failed",
            "about": "in_1",
            "params": {},
            "state": "owed",
            "created_at": NOW,
        }
        db.add(Notification(id="n", audience="customer", email="ada@example.com", **row))
        db.add(PaymentIntent(id="pi_7", amount=1, currency="eur", product="book", created=1))
        db.add(AppMessage(id="m", type="order.fulfilled", data={}, created_at=NOW))
        db.commit()


def answer(request: Request) -> bytes:
    if request.path == "/api/v1/process":
        return b'{"task_id": "t"}'
    listed = ("line_items", "invoice_payments", "checkout/sessions")
    return STRIPE_LISTS if any(word in request.path for word in listed) else STRIPE_SAYS


@pytest.mark.parametrize(
    ("handler", "body", "args"),
    [
        (payment_failed, failure(customer_email=None), {}),
        (retry_payment, None, {"invoice": "in_1", "number": 1}),
        (submit, None, {"document": "doc_1", "start": 1}),
        (check_deadline, None, {"document": "doc_1", "start": 1, "number": 1}),
        (download, None, {"document": "doc_1"}),
        (send, None, {"notification": "n"}),
        (deliver, None, {"handoff": "h"}),
        (app_webhook.deliver, None, {"message": "m"}),
        (checkout_completed, checkout(metadata={}), {}),
        (charge_refunded, refund(), {}),
        (charge_refunded, refund(invoice="in_1"), {}),
        (disputes.dispute_changed, dispute(payment_intent=None), {}),
        (refund_changed, failed_refund(), {}),
        (sales_without_session.record_sale, None, {"sale": "pi_7"}),
    ],
)
def test_no_transaction_is_open_during_an_outgoing_call(
    business: Business, handler: Handler, body: Any, args: dict[str, str | int]
) -> None:
    with business.sessions() as db:
        bind = db.get_bind()
    assert isinstance(bind, Engine)
    pool: Any = bind.pool
    in_use: list[int] = []

    def reply(request: Request) -> Answer:
        in_use.append(pool.checkedout())
        return Answer(200, body=answer(request))

    with Peer(reply) as peer:
        prepare(business, peer)
        business.settings = settings(peer)
        business.run(handler, body, args=args, effect="the effect")
    assert in_use
    assert set(in_use) == {0}
