"""Access: the entitlements of orders and subscriptions, computed from all stored facts, independent of their order.

A handler that changes a row on which access depends then calls `sync_entitlements`, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, bindparam, exists, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from tasks.connected_accounts import account_of, within
from tasks.db.locking import advisory_lock
from tasks.handler import Attempt, FollowUp
from tasks.models import Customer, Entitlement, Invoice, Order, Subscription
from tasks.orders import app_webhook, sources
from tasks.orders.access_rules import NO_LONGER_INCLUDED, Grant
from tasks.orders.customers import holder_of, lock_customers
from tasks.orders.sources import Source
from tasks.routes import COMPLETE_ORDER

ORDER_IDS: Mapping[str, InstrumentedAttribute[Any]] = {
    "session": Order.session_id,
    "customer": Order.customer,
    "subscription": Order.subscription,
    "payment_intent": Order.payment_intent,
    "invoice": Order.invoice,
}
MOVED = "moved"  # to another holder: a guest's order has got a customer
UPDATES = ("quantity", "cancel_at", "past_due", "grace_until")  # what subscription.updated reports


@dataclass(slots=True)
class Change:
    """What this sync changes for one holder, by the name of the entitlement."""

    gained: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)  # and why
    kept: set[str] = field(default_factory=set)  # also from the sources that this sync looks at
    updated: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # by source, too: the new values


def sync_entitlements(
    db: Session, attempt: Attempt, fulfilled: Mapping[str, Any] | None = None, /, **ids: str | None
) -> list[FollowUp]:
    """Recompute what the orders and subscriptions with one of these ids provide, within the event's account.

    `ids`: keys of ORDER_IDS, or `charge`, which is only locked. Returns the jobs to enqueue: webhooks to the
    application, one for each change, after that about the order `fulfilled`; and the completion of each order that
    turns out to be paid. The ids are locked first: a concurrent transaction may be inserting a matching order, without
    seeing what this one has changed.
    """
    db.flush()
    lock_entitlements(db, **ids)
    account = account_of(attempt)
    customer = ids.get("customer")
    locked = lock_customers(db, attempt, [within(account, customer)] if customer else [])
    orders, subscriptions = _find(db, account, ids)
    holders = {holder_of(account, order.customer, order.session_id) for order in orders}
    holders |= {holder_of(account, row.customer, row.id) for row in subscriptions.values() if row is not None}
    locked |= lock_customers(db, attempt, holders - set(locked))
    found = sources.load(db, attempt, orders, subscriptions, customer)
    rows = _rows(db, found)
    holders = {source.holder for source in found} | {row.holder for row in rows.values()}
    locked |= lock_customers(db, attempt, holders - set(locked))
    changes = _apply(db, attempt, found, rows)
    jobs = [_complete(source) for source in found if source.paid]
    for holder, row in sorted(locked.items()):
        own = [source for source in found if source.holder == holder]
        order = fulfilled if fulfilled and fulfilled["id"] in {source.id for source in own} else None
        change = changes.get(holder, Change())
        also = _given_elsewhere(db, holder, found) if change.gained or change.lost else set()
        jobs += _announce(db, attempt, row, own, change, order=order, also=change.kept | also)
    return jobs


def lock_entitlements(db: Session, **ids: str | None) -> None:
    """Take the advisory locks for these ids. Call before inserting an order, so that a concurrent sync sees it."""
    advisory_lock(db, [f"{name}:{value}" for name, value in ids.items() if value])


def order_exists(db: Session, column: InstrumentedAttribute[Any], value: str | None) -> bool:
    """Whether an order has this id in this column; never for None."""
    return value is not None and bool(db.scalar(select(exists().where(column == value))))


# Statements that nearly every event needs are built once. An id that is not given is NULL, which no column equals.
ORDERS = (
    select(Order)
    .where(
        Order.account == bindparam("account"),
        or_(
            *(column == bindparam(name) for name, column in ORDER_IDS.items()),
            Order.subscription.in_(bindparam("subscriptions", expanding=True)),
        ),
    )
    .order_by(Order.session_id)
    .execution_options(populate_existing=True)
)
SUBSCRIPTION_OF = select(Invoice.subscription).where(Invoice.id == bindparam("invoice"))
SOURCES: BindParameter[Any] = bindparam("sources", expanding=True)
ENTITLEMENTS = select(Entitlement).where(Entitlement.source.in_(SOURCES))
GIVEN_ELSEWHERE = (
    select(Entitlement.product)
    .where(
        Entitlement.holder == bindparam("holder"),
        Entitlement.revoked_at.is_(None),
        Entitlement.source.not_in(SOURCES),
    )
    .execution_options(autoflush=False)
)
RENEWALS_TOLD = (
    update(Invoice)
    .where(Invoice.id.in_(bindparam("invoices", expanding=True)))
    .values(renewal_told=True)
    .execution_options(synchronize_session=False)
)


def _find(
    db: Session, account: str, ids: Mapping[str, str | None]
) -> tuple[Sequence[Order], dict[str, Subscription | None]]:
    """The orders and subscriptions with one of these ids, and all orders of these subscriptions; None: not known yet.

    A subscription that only its invoice names is locked like the other ids.
    """
    of_invoice = _subscription_of(db, ids.get("invoice"))
    lock_entitlements(db, subscription=of_invoice)
    named = {str(one) for one in (ids.get("subscription"), of_invoice) if one}
    wanted: dict[str, Any] = {name: ids.get(name) for name in ORDER_IDS} | {"account": account}
    orders = db.scalars(ORDERS, wanted | {"subscriptions": list(named)}).all()
    found = named | {order.subscription for order in orders if order.subscription}
    if found != named:
        orders = db.scalars(ORDERS, wanted | {"subscriptions": list(found)}).all()
    subscriptions = {key: db.get(Subscription, key) for key in sorted(found)}
    if customer := ids.get("customer"):
        rows = db.scalars(select(Subscription).filter_by(account=account, customer=customer))
        subscriptions |= {row.id: row for row in rows}
    return orders, {key: row if row is None or row.account == account else None for key, row in subscriptions.items()}


def _subscription_of(db: Session, invoice: str | None) -> str | None:
    return db.scalar(SUBSCRIPTION_OF, {"invoice": invoice}) if invoice else None


def _rows(db: Session, found: Sequence[Source]) -> dict[tuple[str, str], Entitlement]:
    """The entitlements of these sources as they were."""
    rows = db.scalars(ENTITLEMENTS, {"sources": [source.id for source in found]})
    return {(row.source, row.product): row for row in rows}


def _apply(
    db: Session, attempt: Attempt, found: Sequence[Source], rows: Mapping[tuple[str, str], Entitlement]
) -> dict[str, Change]:
    """Write the entitlements that these sources provide; returns the changes by holder."""
    changes: dict[str, Change] = {}
    for source in found:
        known = {name: row for (key, name), row in rows.items() if key == source.id}
        gone = Grant(None, source.missing or NO_LONGER_INCLUDED)
        for name in sorted({*source.grants, *known}):
            row = known.get(name)
            change = changes.setdefault(source.holder, Change())
            was_held = row is not None and row.revoked_at is None
            if row is not None and was_held and row.holder != source.holder:
                changes.setdefault(row.holder, Change()).lost[name] = MOVED
                was_held = False
            if row is None:
                row = Entitlement(source=source.id, product=name, granted_at=attempt.now, revoked_at=attempt.now)
                row.changes = 0
                db.add(row)
            _write(attempt, row, source, source.grants.get(name, gone), change, was_held=was_held)
    return changes


def _write(attempt: Attempt, row: Entitlement, source: Source, grant: Grant, change: Change, *, was_held: bool) -> None:
    """Set every column of the row, and note in `change` what is new."""
    before = {name: getattr(row, name) for name in (*UPDATES, "until")}
    held = not grant.reason
    if held != (row.revoked_at is None):
        row.revoked_at = None if held else attempt.now
        row.changes += 1
    row.account, row.holder = account_of(attempt), source.holder
    row.customer, row.client_reference, row.subscription = source.customer, source.client_reference, source.subscription
    row.quantity, row.reason = grant.quantity, grant.reason
    row.until, row.cancel_at, row.past_due, row.grace_until = grant.terms
    if held and was_held:
        change.kept.add(row.product)
        new = {name: getattr(row, name) for name in UPDATES if getattr(row, name) != before[name]}
        if _is_moved(attempt, before["until"], row.until):
            new["until"] = row.until
        if new:
            change.updated[source.id, row.product] = new
    elif held:
        change.gained.add(row.product)
    elif was_held:
        change.lost[row.product] = grant.reason


def _is_moved(attempt: Attempt, before: int | None, after: int | None) -> bool:
    """Whether the end of a period was moved before it came: by another interval, or a longer trial.

    When it comes, a renewal moves it, which is announced once it is paid.
    """
    return before is not None and before != after and before > attempt.now.timestamp()


def _announce(
    db: Session,
    attempt: Attempt,
    holder: Customer,
    own: Sequence[Source],
    change: Change,
    *,
    order: Mapping[str, Any] | None,
    also: set[str],
) -> list[FollowUp]:
    """The webhooks about a holder's changes. What another source gives (`also`) is neither gained nor lost."""
    renewals = [(source, invoice) for source in own for invoice in source.renewals]
    if renewals:
        db.execute(RENEWALS_TOLD, {"invoices": [invoice.id for _, invoice in renewals]})
    messages: list[tuple[str, dict[str, Any]]] = [("order.fulfilled", {"order": order})] if order else []
    if gained := change.gained - also - set(change.lost):
        messages.append(("access.granted", {"entitlements": sorted(gained)}))
    lost = {name: why for name, why in change.lost.items() if name not in also | change.gained}
    for reason in sorted(set(lost.values())):
        names = sorted(name for name, why in lost.items() if why == reason)
        about = {"reason": reason, "cancellation_reason": _cancellation_reason(own, reason)}
        messages.append(("access.revoked", {"entitlements": names, **about}))
    for source, invoice in renewals:
        messages.append(("subscription.renewed", app_webhook.renewal(source.id, invoice)))
    for key, new, names in _grouped(change.updated):
        messages.append(("subscription.updated", app_webhook.update(key, new, names)))
    return app_webhook.enqueue(db, attempt, holder, messages) if messages else []


def _given_elsewhere(db: Session, holder: str, found: Sequence[Source]) -> set[str]:
    """What a holder has from other sources than these. Does not flush, as only entitlements of these have changed."""
    return set(db.scalars(GIVEN_ELSEWHERE, {"holder": holder, "sources": [source.id for source in found]}))


def _grouped(updated: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], list[str]]]:
    """(source, new values, names): entitlements that change alike are one message."""
    groups: dict[tuple[str, str], tuple[str, Mapping[str, Any], list[str]]] = {}
    for (source, name), new in sorted(updated.items()):
        groups.setdefault((source, repr(new)), (source, new, []))[2].append(name)
    return list(groups.values())


def _cancellation_reason(own: Sequence[Source], reason: str) -> str | None:
    """Why Stripe ended the subscription, if that is the reason: cancellation_requested, payment_failed, …"""
    ended = (source.ended_because for source in own if source.ended_because)
    return next(ended, None) if reason == "subscription_canceled" else None


def _complete(source: Source) -> FollowUp:
    """The job that fulfils an order whose payment was not reported by its session."""
    task, args = COMPLETE_ORDER, {"order": source.id}
    return FollowUp(f"fulfilment.complete.{source.id}", task, args, ordering_key=source.holder)
