"""Access: which entitlements of an order are in force, computed from all stored facts, independent of their order.

A handler that changes a row on which access depends then calls `sync_entitlements`, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, false, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from tasks.db.locking import advisory_lock, insert_if_new, select_for_update
from tasks.handler import Attempt, FollowUp
from tasks.models import Charge, DeletedCustomer, Dispute, Entitlement, Invoice, Order, Subscription
from tasks.orders import app_webhook, product_grants

# https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses; past_due ends in our `suspended`.
ENTITLING = frozenset({"active", "trialing", "past_due"})
# https://docs.stripe.com/api/disputes/object#dispute_object-status; warning_* are inquiries: no money has moved.
OPEN_DISPUTE = frozenset({"needs_response", "under_review", "appeal_needs_response", "appeal_under_review"})
PAYMENTS = ("payment_intent", "invoice", "subscription")  # ids that a payment may share with its order
ORDER_IDS: Mapping[str, InstrumentedAttribute[Any]] = {
    "session": Order.session_id,
    "customer": Order.customer,
    "subscription": Order.subscription,
    "payment_intent": Order.payment_intent,
    "invoice": Order.invoice,
}


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """The facts about an order outside its own row. The defaults do not deny access."""

    subscription_status: str | None = None  # "": not known yet; None: no subscription
    refunded: bool = False  # the latest paid period
    disputes: frozenset[str] = frozenset()  # Stripe's statuses, of disputes of the latest paid period
    customer_deleted: bool = False


def denial_reason(state: str, known: AccessFacts, *, while_disputed: str = "keep") -> str:
    """Why an order in this `state` gives no access, as one of the keys below; "" if it does.

    `while_disputed` ("keep" or "revoke") is what an open dispute does. A lost dispute always denies access, and so does
    a subscription whose status is not in ENTITLING.
    """
    status = known.subscription_status
    reasons = {
        "not_fulfilled": state != "fulfilled",
        "customer_deleted": known.customer_deleted,
        "refunded": known.refunded,
        "dispute_lost": "lost" in known.disputes,
        "disputed": while_disputed == "revoke" and bool(known.disputes & OPEN_DISPUTE),
        f"subscription_{status}": bool(status) and status not in ENTITLING,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def sync_entitlements(db: Session, attempt: Attempt, **ids: str | None) -> list[FollowUp]:
    """Recompute access for every order matching one of these ids (keys of ORDER_IDS).

    Grants and revokes entitlements, and returns a webhook job to the application for each change. The ids are locked
    first: a concurrent transaction may be inserting a matching order, without seeing what this one has changed.
    """
    db.flush()
    lock_entitlements(db, **ids)
    follow_ups = []
    matches = [ORDER_IDS[name] == value for name, value in ids.items() if value]
    if ids.get("invoice"):
        matches.append(Order.subscription.in_(select(Invoice.subscription).filter_by(id=ids["invoice"])))
    for session in db.scalars(select(Order.session_id).where(or_(false(), *matches)).order_by(Order.session_id)).all():
        order = select_for_update(db, Order, session)
        if order is not None:
            follow_ups += _sync_order(db, attempt, order)
    return follow_ups


def lock_entitlements(db: Session, **ids: str | None) -> None:
    """Take the advisory locks for these ids. Call before inserting an order, so that a concurrent sync sees it."""
    advisory_lock(db, [f"{name}:{value}" for name, value in ids.items() if value])


def order_exists(db: Session, column: InstrumentedAttribute[Any], value: str | None) -> bool:
    """Whether an order has this id in this column; never for None."""
    return value is not None and bool(db.scalar(select(exists().where(column == value))))


def last_renewal_at(db: Session, subscription: str | None) -> int:
    """When the newest paid renewal invoice of this subscription was created (seconds since 1970); 0 if there is none.

    Refunds, disputes and write-offs of older invoices do not revoke access: they concern billing periods that are over.
    Compared by invoice date, because an old invoice may be paid late; by charge date if the invoice is not known.
    Invoices of zero (a trial) or of a proration (a plan change) are not renewals.
    """
    paid = select(func.max(Invoice.created)).filter_by(subscription=subscription, state="paid", renews=True)
    return (db.scalar(paid) or 0) if subscription else 0


def _sync_order(db: Session, attempt: Attempt, order: Order) -> list[FollowUp]:
    """Update an order's entitlements. Grants are announced before revocations, so that there is no gap between them."""
    subscription = db.get(Subscription, order.subscription) if order.subscription else None
    reason = denial_reason(
        order.state, _load_facts(db, order, subscription), while_disputed=attempt.settings.access_while_disputed
    )
    rows = _entitlements(db, attempt, order, subscription)
    before = {name for name, (row, _) in rows.items() if row.revoked_at is None}
    now = {name for name, (_, included) in rows.items() if included and not reason}
    reason_field = {"reason": reason or "plan_changed"} if before else {}
    follow_ups = []
    for kind, changed, left in (("access.granted", now - before, now | before), ("access.revoked", before - now, now)):
        for name in changed:
            rows[name][0].revoked_at = None if kind == "access.granted" else attempt.now
        if changed:
            order.access_changes += 1
            what = {"entitlements": sorted(changed), "in_force": sorted(left), "change": order.access_changes}
            follow_ups += app_webhook.enqueue(db, attempt, kind, order, what | reason_field)
    return follow_ups


def _entitlements(
    db: Session, attempt: Attempt, order: Order, subscription: Subscription | None
) -> dict[str, tuple[Entitlement, bool]]:
    """All entitlements the order ever had, by product, each with whether its items include it now.

    A new one is inserted as revoked; _sync_order grants it.
    """
    items = product_grants.current_items(order.bought, subscription.items if subscription else None)
    included = product_grants.granted_names(attempt.settings.fulfilment, items) if order.state == "fulfilled" else []
    ids = {name: getattr(order, name) for name in ("session_id", "customer", "client_reference", "subscription")}
    for name in included:
        insert_if_new(db, Entitlement, product=name, granted_at=attempt.now, revoked_at=attempt.now, **ids)
    rows = db.scalars(select(Entitlement).filter_by(session_id=order.session_id))
    return {row.product: (row, row.product in included) for row in rows}


def _load_facts(db: Session, order: Order, subscription: Subscription | None) -> AccessFacts:
    return AccessFacts(
        subscription_status=subscription.status if subscription else None,
        refunded=_is_refunded(db, order),
        disputes=_dispute_statuses(db, order),
        customer_deleted=order.customer is not None and db.get(DeletedCustomer, order.customer) is not None,
    )


def _is_refunded(db: Session, order: Order) -> bool:
    billed_at = func.coalesce(Invoice.created, Charge.created)
    charges = select(Charge.id).outerjoin(Invoice, Invoice.id == Charge.invoice)
    ours = or_(_pays_for(Charge, order), _renews(order))
    refunded = charges.where(ours, Charge.refunded, billed_at >= last_renewal_at(db, order.subscription))
    return db.scalar(refunded.limit(1)) is not None


def _dispute_statuses(db: Session, order: Order) -> frozenset[str]:
    """The statuses of disputes of the latest paid period.

    A dispute may name only its charge; a charge that was refunded in part is recorded with its invoice.
    """
    billed_at = func.coalesce(Invoice.created, Charge.created, Dispute.charge_created)
    disputes = select(Dispute.status).outerjoin(Charge, Charge.id == Dispute.charge)
    billed = disputes.outerjoin(Invoice, Invoice.id == func.coalesce(Dispute.invoice, Charge.invoice))
    ours = or_(_pays_for(Dispute, order), _pays_for(Charge, order), _renews(order))
    return frozenset(db.scalars(billed.where(ours, billed_at >= last_renewal_at(db, order.subscription))))


def _pays_for(row: type[Charge] | type[Dispute], order: Order) -> ColumnElement[bool]:
    """Selects the charges or disputes of this order's payments."""
    same = (getattr(row, name) == getattr(order, name) for name in PAYMENTS if getattr(order, name))
    return or_(false(), *same)


def _renews(order: Order) -> ColumnElement[bool]:
    """Selects the invoices of the order's subscription."""
    return Invoice.subscription == order.subscription if order.subscription else false()
