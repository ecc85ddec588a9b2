"""Debts of a subscription: its own unpaid invoices, which decide its status.

Invoices that a person adds to a subscription have dunning, too, but withhold nothing: Stripe's status does not depend
on them. https://docs.stripe.com/api/invoices/create#create_invoice-subscription
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from settings import Settings
from tasks.billing import dunning
from tasks.billing.failures import last_failure_at
from tasks.billing.subscription_state import IN_ORDER, OWN_REASONS, SETTLED, Debt
from tasks.models import Invoice, Subscription
from tasks.orders.stored_ownership import is_invoice_ours, is_subscription_ours
from tasks.orders.what_was_paid import last_renewal_at

REASONS = [reason for reason in OWN_REASONS if reason]
IS_OWN = or_(
    Invoice.billing_reason.is_(None),
    Invoice.billing_reason.in_(REASONS),
    Invoice.id == bindparam("latest_invoice"),
)
PAID_SINCE = (  # built once, as it is asked of every past-due subscription
    select(Invoice.id)
    .where(
        Invoice.subscription == bindparam("subscription"),
        Invoice.state == "paid",
        Invoice.seen_created > bindparam("seen_created"),
        IS_OWN,
    )
    .limit(1)
    .execution_options(autoflush=False)
)


def load_debts(db: Session, row: Subscription, failing: Sequence[Invoice]) -> list[Debt]:
    """The debts among a subscription's `failing` invoices. A later period that is paid outweighs an older debt."""
    own = [one for one in own_invoices(row, failing) if _may_withhold(row, one)]
    renewed_at = last_renewal_at(db, row.id) if own else 0
    debts = [_debt_of(db, row, one) for one in own if one.created >= renewed_at]
    return [debt for debt in debts if debt is not None]


def own_invoices(row: Subscription, invoices: Sequence[Invoice]) -> list[Invoice]:
    """Those of the invoices that the subscription has generated itself."""
    return [one for one in invoices if one.billing_reason in OWN_REASONS or one.id == row.latest_invoice]


def _may_withhold(row: Subscription, invoice: Invoice) -> bool:
    """Whether Stripe's status may depend on this invoice: it follows the latest one, so an older one left it in order.

    https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
    """
    is_latest = row.latest_invoice in (None, invoice.id) or invoice.created > row.seen_created
    return is_latest or row.stripe_status not in IN_ORDER


def _debt_of(db: Session, row: Subscription, invoice: Invoice) -> Debt | None:
    """A sent invoice is no debt before its due date, although a payment of it failed, unless Stripe says otherwise."""
    given_up = dunning.is_given_up(db, invoice.id)
    if not invoice.sent:
        return Debt(last_failure_at(db, invoice.id), given_up)
    is_due = given_up or row.stripe_status not in IN_ORDER
    return Debt(invoice.due_date or 0, given_up) if is_due else None


def is_paid_since(db: Session, row: Subscription) -> bool:
    """Whether a past-due subscription's own invoice was paid after Stripe's status was observed."""
    if row.stripe_status != "past_due":
        return False
    seen = {"subscription": row.id, "latest_invoice": row.latest_invoice, "seen_created": row.seen_created}
    return db.scalar(PAID_SINCE, seen) is not None


def overdue_invoice(settings: Settings, db: Session, row: Subscription) -> str | None:
    """The invoice of a past-due subscription without any attempt to pay it, because it is sent to be paid by hand.

    No event reports a failure then, so the invoice may be unknown: its id is from the subscription, whose own id is
    returned if that does not name it. None of another site.
    """
    if not row.sent or row.stripe_status != "past_due":
        return None
    key = row.latest_invoice or row.id
    invoice = db.scalars(select(Invoice).filter_by(id=key)).one_or_none()
    if invoice is None:
        return key if is_subscription_ours(settings, row) else None
    return key if invoice.state not in SETTLED and is_invoice_ours(settings, invoice, row) else None


def subscription_of_unknown(db: Session, invoice: str) -> Subscription | None:
    """The subscription that `overdue_invoice` returned this id for."""
    names = or_(Subscription.latest_invoice == invoice, Subscription.id == invoice)
    return db.scalars(select(Subscription).where(names)).first()
