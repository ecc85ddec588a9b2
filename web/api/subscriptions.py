"""`/api/v1/subscriptions`: whose payment failed, what is owed, and what comes next. Amounts are in minor units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy.orm import Session

from web.api.events import MOST
from web.queries import filters, subscriptions
from web.queries.subscriptions import OpenInvoice, PastDueSubscription
from web.queries.times import iso


def register(api: Blueprint, sessions: Callable[[], Session]) -> None:
    @api.get("/subscriptions")
    def list_subscriptions() -> Response:
        """Those in dunning."""
        with sessions() as db:
            late, cursor = subscriptions.load_page(db, request.args, filters.parse_limit(request.args, MOST))
            return jsonify(subscriptions=[_told(one) for one in late], cursor=cursor)


def _told(late: PastDueSubscription) -> dict[str, Any]:
    row = late.subscription
    return {
        "id": row.id,
        "customer": row.customer,
        "status": row.status,
        "updated_at": row.updated_at.isoformat(),
        "open_invoices": [_owing(one) for one in late.open_invoices],
    }


def _owing(owing: OpenInvoice) -> dict[str, Any]:
    """`access_ends_at`: then, or since then, it is suspended, if nobody pays."""
    planned = next((one for one in owing.retries if one.state == "planned"), None)
    return {
        "invoice": owing.invoice.id,
        "amount_due": owing.invoice.amount_due,
        "currency": owing.invoice.currency,
        "retries": [
            {"state": one.state, "decline_code": one.decline_code, "done_at": iso(one.done_at)}
            for one in owing.retries
            if one.state != "planned"
        ],
        "next_retry_at": iso(planned.due_at if planned else None),
        "access_ends_at": iso(owing.grace.due_at if owing.grace else None),
    }
