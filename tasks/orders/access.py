"""Who may use what they bought: derived from all that is known, in whatever order it became known.

Every handler that changes a row which access depends on calls `follow` after that, in the same transaction.
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
from tasks.orders import app_webhook, entitlements

# https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses; past_due ends as our `suspended`.
ENTITLING = frozenset({"active", "trialing", "past_due"})
# https://docs.stripe.com/api/disputes/object#dispute_object-status; the warning_ ones are inquiries: no money moved.
OPEN_DISPUTE = frozenset({"needs_response", "under_review", "appeal_needs_response", "appeal_under_review"})
PAYMENTS = ("payment_intent", "invoice", "subscription")  # what a payment and its order can have in common
ORDER_IDS: Mapping[str, InstrumentedAttribute[Any]] = {
    "session": Order.session_id,
    "customer": Order.customer,
    "subscription": Order.subscription,
    "payment_intent": Order.payment_intent,
    "invoice": Order.invoice,
}


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """What is known about an order besides its own row. The defaults say: nothing is known against it."""

    subscription_status: str | None = None  # empty: Stripe has not told it yet
    refunded: bool = False  # what has been paid for last
    disputes: frozenset[str] = frozenset()  # Stripe's statuses, of what has been paid for last
    customer_deleted: bool = False


def denial_reason(state: str, known: AccessFacts, *, while_disputed: str = "keep") -> str:
    """Why an order in this `state` gives no access, in a word; "" if it does.

    `while_disputed` says whether an open dispute takes the access away: keep or revoke. A lost one always does.
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


def sync_entitlements(db: Session, attempt: Attempt, **names: str | None) -> list[FollowUp]:
    """Grant or revoke the access of every order that one of these ids (see NAMES) names, and owe the application word.

    The ids first: somebody may just now record the order that they name, and would not see what we have just changed.
    """
    db.flush()
    lock_entitlements(db, **names)
    follow_ups = []
    named = [ORDER_IDS[name] == value for name, value in names.items() if value]
    if names.get("invoice"):
        named.append(Order.subscription.in_(select(Invoice.subscription).filter_by(id=names["invoice"])))
    for session in db.scalars(select(Order.session_id).where(or_(false(), *named)).order_by(Order.session_id)).all():
        order = select_for_update(db, Order, session)
        if order is not None:
            follow_ups += _sync_order(db, attempt, order)
    return follow_ups


def lock_entitlements(db: Session, **names: str | None) -> None:
    """Keep everybody else's `follow` of these ids waiting; for whoever records an order, before it does."""
    advisory_lock(db, [f"{name}:{value}" for name, value in names.items() if value])


def order_exists(db: Session, column: InstrumentedAttribute[Any], value: str | None) -> bool:
    """Whether an order has this id in this column; never for None."""
    return value is not None and bool(db.scalar(select(exists().where(column == value))))


def last_renewal_at(db: Session, subscription: str | None) -> int:
    """When the newest invoice that was paid for this subscription was made; 0 if there is none.

    What was billed before that is of a time that is over: that it was refunded, disputed or given up takes back nothing
    that was paid for since. It goes by the age of the invoice, for an old one may be paid late; by that of the charge
    where the invoice is not known. An invoice of nothing (a trial), or of a difference (a change of plan), pays for no
    time.
    """
    paid = select(func.max(Invoice.created)).filter_by(subscription=subscription, state="paid", renews=True)
    return (db.scalar(paid) or 0) if subscription else 0


def _sync_order(db: Session, attempt: Attempt, order: Order) -> list[FollowUp]:
    """Bring an order's entitlements to what is known now. What is new is told before what is gone: no gap between."""
    subscription = db.get(Subscription, order.subscription) if order.subscription else None
    reason = denial_reason(
        order.state, _load_facts(db, order, subscription), while_disputed=attempt.settings.access_while_disputed
    )
    rows = _entitlements(db, attempt, order, subscription)
    before = {name for name, (row, _) in rows.items() if row.revoked_at is None}
    now = {name for name, (_, wanted) in rows.items() if wanted and not reason}
    why = {"reason": reason or "plan_changed"} if before else {}
    follow_ups = []
    for kind, turned, left in (("access.granted", now - before, now | before), ("access.revoked", before - now, now)):
        for name in turned:
            rows[name][0].revoked_at = None if kind == "access.granted" else attempt.now
        if turned:
            order.access_changes += 1
            what = {"entitlements": sorted(turned), "in_force": sorted(left), "change": order.access_changes}
            follow_ups += app_webhook.enqueue(db, attempt, kind, order, what | why)
    return follow_ups


def _entitlements(
    db: Session, attempt: Attempt, order: Order, subscription: Subscription | None
) -> dict[str, tuple[Entitlement, bool]]:
    """All that the order ever gave, by its product, and whether it is to give it now; what is new gives nothing yet."""
    items = entitlements.current_items(order.bought, subscription.items if subscription else None)
    wanted = entitlements.granted_names(attempt.settings.fulfilment, items) if order.state == "fulfilled" else []
    about = {name: getattr(order, name) for name in ("session_id", "customer", "client_reference", "subscription")}
    for name in wanted:
        insert_if_new(db, Entitlement, product=name, granted_at=attempt.now, revoked_at=attempt.now, **about)
    rows = db.scalars(select(Entitlement).filter_by(session_id=order.session_id))
    return {row.product: (row, row.product in wanted) for row in rows}


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
    taken_back = charges.where(ours, Charge.refunded, billed_at >= last_renewal_at(db, order.subscription))
    return db.scalar(taken_back.limit(1)) is not None


def _dispute_statuses(db: Session, order: Order) -> frozenset[str]:
    """A dispute may name nothing but its charge, of which we know more if some of it was refunded."""
    billed_at = func.coalesce(Invoice.created, Charge.created, Dispute.charge_created)
    disputes = select(Dispute.status).outerjoin(Charge, Charge.id == Dispute.charge)
    billed = disputes.outerjoin(Invoice, Invoice.id == func.coalesce(Dispute.invoice, Charge.invoice))
    ours = or_(_pays_for(Dispute, order), _pays_for(Charge, order), _renews(order))
    return frozenset(db.scalars(billed.where(ours, billed_at >= last_renewal_at(db, order.subscription))))


def _pays_for(row: type[Charge] | type[Dispute], order: Order) -> ColumnElement[bool]:
    """The charges or disputes of this order's payments."""
    same = (getattr(row, name) == getattr(order, name) for name in PAYMENTS if getattr(order, name))
    return or_(false(), *same)


def _renews(order: Order) -> ColumnElement[bool]:
    """Invoices of the order's subscription."""
    return Invoice.subscription == order.subscription if order.subscription else false()
