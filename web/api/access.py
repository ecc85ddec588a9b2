"""`/api/v1/access`: what a customer has now, from which order or subscription, until when, and why not the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint, request
from sqlalchemy.orm import Session

from tasks.orders.current_access import serialize_access
from web.api import inputs, schemas
from web.api.operation import operation
from web.queries import access
from web.queries.access import CustomerAccess
from web.times import iso


def register(api: Blueprint, sessions: Callable[[], Session]) -> None:
    @api.get("/access")
    @operation(
        "Show what a customer has, by id, client reference or e-mail address, and why not the rest",
        schemas.Access,
        query=inputs.AccessQuery,
    )
    def show_access() -> schemas.Access:
        with sessions() as db:
            found = access.find_customers(db, request.args)
            return schemas.Access.model_validate(
                {
                    "customers": [_customer(one) for one in found],
                    "access": [row for one in found for row in _in_force(one)],
                    "not_in_force": [row for one in found for row in _not_in_force(one)],
                }
            )


def _customer(one: CustomerAccess) -> dict[str, Any]:
    row = one.row
    about = {"account": row.account or None, "livemode": row.livemode, "sequence": row.sequence}
    return {
        "customer": row.id,
        **about,
        **{name: one.about[name] for name in ("client_reference", "email", "metadata")},
    }


def _in_force(one: CustomerAccess) -> list[dict[str, Any]]:
    return [{"customer": one.row.id, **row} for row in serialize_access(one.in_force)]


def _not_in_force(one: CustomerAccess) -> Iterator[dict[str, Any]]:
    for row in one.not_in_force:
        about = {"entitlement": row.product, "source": row.source, "reason": row.reason, "since": iso(row.revoked_at)}
        yield {"customer": one.row.id, **about}
    for order in one.unpaid_orders:
        about = {"entitlement": None, "source": order.session_id, "reason": order.state}
        yield {"customer": one.row.id, **about, "since": iso(order.created_at)}
