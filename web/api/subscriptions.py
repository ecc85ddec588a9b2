"""`/api/v1/subscriptions`: subscriptions in dunning, with their unpaid invoices. Amounts are in minor units."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, request
from sqlalchemy.orm import Session

from web.api import inputs, schemas
from web.api.operation import operation
from web.queries import filters, subscriptions
from web.queries.subscriptions import OpenInvoice, PastDueSubscription
from web.times import iso


def register(api: Blueprint, sessions: Callable[[], Session]) -> None:
    @api.get("/subscriptions")
    @operation(
        "List the subscriptions in dunning, the most recently changed first",
        schemas.SubscriptionPage,
        query=inputs.CursorQuery,
    )
    def list_subscriptions() -> schemas.SubscriptionPage:
        with sessions() as db:
            limit = filters.parse_limit(request.args, inputs.MAX_ROWS)
            rows, cursor = subscriptions.load_page(db, request.args, limit)
            return schemas.SubscriptionPage(subscriptions=[_to_model(row) for row in rows], cursor=cursor)


def _to_model(row: PastDueSubscription) -> schemas.Subscription:
    return schemas.Subscription.model_validate(
        {
            "id": row.subscription.id,
            "customer": row.subscription.customer,
            "status": row.subscription.status,
            "updated_at": row.subscription.updated_at.isoformat(),
            "open_invoices": [_invoice(invoice) for invoice in row.open_invoices],
        }
    )


def _invoice(row: OpenInvoice) -> schemas.OpenInvoice:
    planned = next((retry for retry in row.retries if retry.state == "planned"), None)
    return schemas.OpenInvoice(
        invoice=row.invoice.id,
        amount_due=row.invoice.amount_due,
        currency=row.invoice.currency,
        retries=[
            schemas.PaymentRetry(state=retry.state, decline_code=retry.decline_code, done_at=iso(retry.done_at))
            for retry in row.retries
            if retry.state != "planned"
        ],
        next_retry_at=iso(planned.due_at if planned else None),
        access_ends_at=iso(row.grace.due_at if row.grace else None),
    )
