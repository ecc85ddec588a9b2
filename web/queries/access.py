"""What customers have, and why they do not have the rest; for the API and the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from tasks.models import Customer, Entitlement, Invoice, Order, Subscription
from tasks.orders.current_access import describe_customer

NAMES = ("customer", "client_reference", "email")
MAX_CUSTOMERS = 100  # of a guest each order counts as one


@dataclass(frozen=True, slots=True)
class CustomerAccess:
    """A customer, or a guest, who is known by the order."""

    row: Customer
    about: Mapping[str, Any]  # tasks/orders/current_access.py
    in_force: Sequence[Entitlement]
    not_in_force: Sequence[Entitlement]
    orders: Sequence[Order]
    subscriptions: Sequence[Subscription]

    @property
    def is_guest(self) -> bool:
        """Without a customer at Stripe: known by the order."""
        return any(order.session_id == self.about["id"] for order in self.orders)

    @property
    def unpaid_orders(self) -> list[Order]:
        return [order for order in self.orders if order.state != "fulfilled"]


def find_customers(db: Session, params: Mapping[str, str]) -> list[CustomerAccess]:
    """The customers with the id, client reference and address in `params` (NAMES); guests, too; the newest hundred.

    No customer, if none of the three is given. `account` in `params` is the connected account, by default our own.
    """
    account = params.get("account", "").strip()
    wanted = [(name, value) for name in NAMES if (value := params.get(name, "").strip())]
    if not wanted or not all(value.isprintable() for _, value in [*wanted, ("account", account)]):
        return []
    held_by = set.intersection(*(_holders(db, account, name, value) for name, value in wanted))
    rows = [db.get(Customer, holder) for holder in sorted(held_by)[:MAX_CUSTOMERS]]
    return [load_customer(db, row) for row in rows if row is not None]


def load_customer(db: Session, row: Customer) -> CustomerAccess:
    """Everything that this customer has or had."""
    held = select(Entitlement).filter_by(holder=row.id).order_by(Entitlement.product, Entitlement.source)
    entitlements = db.scalars(held).all()
    name = row.id.removeprefix(f"{row.account}/") if row.account else row.id
    orders = select(Order).where(Order.account == row.account, or_(Order.customer == name, Order.session_id == name))
    plans = select(Subscription).filter_by(account=row.account, customer=name)
    return CustomerAccess(
        row,
        describe_customer(db, row),
        [one for one in entitlements if one.revoked_at is None],
        [one for one in entitlements if one.revoked_at is not None],
        db.scalars(orders.order_by(Order.created_at.desc(), Order.session_id)).all(),
        db.scalars(plans.order_by(Subscription.updated_at.desc(), Subscription.id)).all(),
    )


def _holders(db: Session, account: str, name: str, value: str) -> set[str]:
    """The ids of customers whose purchases have this value, or who have that id."""
    if name == "customer":
        return {f"{account}/{value}" if account else value}
    column: dict[str, ColumnElement[bool]] = {
        "client_reference": Order.client_reference == value,
        "email": func.lower(Order.email) == func.lower(value),
    }
    holder = func.coalesce(Order.customer, Order.session_id)
    orders = select(holder).where(Order.account == account, column[name]).group_by(holder)
    found = set(db.scalars(orders.order_by(func.max(Order.created).desc()).limit(MAX_CUSTOMERS)))
    if name == "email":
        invoiced = select(Invoice.customer).where(
            Invoice.account == account, func.lower(Invoice.email) == func.lower(value)
        )
        found |= set(db.scalars(invoiced.distinct().limit(MAX_CUSTOMERS)))
    return {f"{account}/{one}" if account else one for one in found}
