"""The sources of access, loaded with all the facts that decide what each provides: orders and subscriptions.

With ENTITLEMENTS=stripe a customer's list of active entitlements is a source in place of the customer's subscriptions.

The decision itself is in access_rules.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import bindparam, false, func, select
from sqlalchemy.orm import Session

from tasks.connected_accounts import account_of, within
from tasks.handler import Attempt
from tasks.models import DeletedCustomer, EntitlementSummary, Invoice, Order, PaymentGrace, PaymentIntent, Subscription
from tasks.orders.access_rules import (
    NO_LONGER_INCLUDED,
    NOT_FULFILLED,
    Grant,
    Policy,
    Terms,
    order_grants,
    subscription_grants,
)
from tasks.orders.customers import holder_of
from tasks.orders.product_grants import Item, named_item, sold_items
from tasks.orders.stored_ownership import is_subscription_ours
from tasks.orders.what_was_paid import PaidInvoice, invoices_of, payment_of_order, payments_of_subscription
from tasks.ownership import is_ours

FULFILLED, NOT_OURS = "fulfilled", "not_ours"
# Statements that nearly every event needs are built once.
GRACE_ENDS = (
    select(func.min(PaymentGrace.due_at))
    .join(Invoice, Invoice.id == PaymentGrace.invoice)
    .where(Invoice.subscription == bindparam("subscription"), PaymentGrace.state == "planned")
)
DELETED_ID = DeletedCustomer.__table__.c.id  # of the table, not the class: that costs half as much
DELETED = select(DELETED_ID).where(DELETED_ID.in_(bindparam("ids", expanding=True)))


@dataclass(slots=True)
class Source:
    """An order, a subscription or a list of active entitlements (under the customer's id), and what it provides."""

    id: str
    holder: str
    customer: str | None
    client_reference: str | None
    subscription: str | None
    grants: dict[str, Grant] = field(default_factory=dict)
    ended_because: str | None = None  # Stripe's reason, of a subscription that has ended
    missing: str = ""  # why it does not provide what it once did, for what is not in `grants`
    paid: bool = False  # an order that is paid, and not fulfilled yet
    renewals: Sequence[PaidInvoice] = ()  # paid, and not announced


def load(
    db: Session,
    attempt: Attempt,
    orders: Sequence[Order],
    subscriptions: Mapping[str, Subscription | None],
    customer: str | None = None,
) -> list[Source]:
    """These orders and subscriptions (None: not known yet), with what decides about them. All are locked by their ids.

    Also the active entitlements of `customer` and of the customers of these subscriptions.
    """
    plans = [row for row in subscriptions.values() if row is not None]
    customers = {row.customer for row in plans} | ({customer} if customer else set())
    summaries = _summaries(db, attempt, customers) if attempt.settings.entitlements == "stripe" else {}
    deleted = _deleted_customers(db, attempt, [*orders, *plans, *summaries.values()])
    found = [_order_source(db, attempt, order, deleted) for order in orders]
    for key, row in subscriptions.items():
        started = [order for order in orders if order.subscription == key]
        source = _subscription_source(db, attempt, key, row, started=started, deleted=deleted)
        if attempt.settings.entitlements == "stripe" and (row is None or row.customer in summaries):
            source.grants, source.missing = {}, source.missing or NO_LONGER_INCLUDED
        found.append(source)
    if attempt.settings.entitlements == "stripe":
        return found + [_summary_source(db, attempt, row, deleted) for row in summaries.values()]
    return found + [_former_list(account_of(attempt), one) for one in sorted(customers)]


def items_of_order(order: Order) -> list[Item]:
    """What an order sells once. What renews belongs to its subscription."""
    if order.subscription is None:
        return sold_items(order.product, order.bought)
    return [] if order.product else [one for one in order.bought if not one["renews"]]


def items_of_subscription(row: Subscription | None, started: Sequence[Order]) -> list[Item] | None:
    """What a subscription sells now; None if that is not known yet. `started`: the orders that name it.

    What the shop names in the metadata; else its current items; while these are not known, what its checkout sold.
    """
    product = (row.product if row else None) or next((order.product for order in started if order.product), None)
    if product:
        return [named_item(product)]
    if row is not None and row.items_complete:
        return row.items
    sold = [item for order in started for item in order.bought if item["renews"]]
    return sold or (row.items if row else None)


def is_paid(db: Session, order: Order) -> bool:
    """Whether an order is paid: by its session's word, or its first invoice is, or its payment has succeeded."""
    if order.state == FULFILLED:
        return True
    if order.payment_intent and db.get(PaymentIntent, order.payment_intent) is not None:
        return True
    first = Invoice.id == order.invoice if order.invoice else false()
    if order.subscription:
        first |= (Invoice.subscription == order.subscription) & (Invoice.billing_reason == "subscription_create")
    paid = select(Invoice.id).where(first, Invoice.account == order.account, Invoice.state == "paid")
    return db.scalar(paid.limit(1)) is not None


def policy_of(attempt: Attempt) -> Policy:
    return Policy(attempt.settings.access_after_refund, attempt.settings.access_while_disputed)


def _order_source(db: Session, attempt: Attempt, order: Order, deleted: set[str]) -> Source:
    account, items = order.account, items_of_order(order)
    holder = holder_of(account, order.customer, order.session_id)
    source = Source(order.session_id, holder, order.customer, order.client_reference, order.subscription)
    if order.state != FULFILLED:
        source.missing, source.paid = NOT_FULFILLED, is_paid(db, order)
    elif is_replaced(db, order):
        source.missing = "replaced"
    elif not is_ours(attempt.settings, items or None, order.meta):
        source.missing = NOT_OURS
    elif items:
        source.grants = order_grants(
            items,
            attempt.settings.fulfilment,
            account,
            payment=payment_of_order(db, order),
            policy=policy_of(attempt),
            customer_deleted=order.customer in deleted,
        )
    return source


def is_replaced(db: Session, order: Order) -> bool:
    """Whether a session has turned up for what was recorded as a sale without one (sales_without_session.py)."""
    if order.session_id not in (order.payment_intent, order.invoice):
        return False
    same = Order.payment_intent == order.payment_intent if order.payment_intent else Order.invoice == order.invoice
    others = select(Order.session_id).filter_by(account=order.account, state=FULFILLED).where(same)
    return db.scalar(others.where(Order.session_id != order.session_id).limit(1)) is not None


def _subscription_source(
    db: Session,
    attempt: Attempt,
    key: str,
    row: Subscription | None,
    *,
    started: Sequence[Order],
    deleted: set[str],
) -> Source:
    order = next((one for one in started if one.state == FULFILLED), started[0] if started else None)
    customer = row.customer if row is not None else order.customer if order is not None else None
    account = account_of(attempt)
    # Without its customer it is held by its order, like all that a guest bought.
    holder = holder_of(account, customer, order.session_id if order is not None else key)
    source = Source(key, holder, customer, order.client_reference if order is not None else None, key)
    items = items_of_subscription(row, started)
    metadata = [row.meta if row is not None else None, *(one.meta for one in started)]
    source.ended_because = row.ended_because if row is not None else None
    if not is_ours(attempt.settings, items, *metadata):
        source.missing = NOT_OURS
        return source
    invoices = invoices_of(db, key)
    source.renewals = [one for one in invoices if _is_untold_renewal(one)]
    status = row.status if row is not None else ""
    if items is None or (not status and (order is None or order.state != FULFILLED)):
        source.missing = NOT_FULFILLED
        return source
    source.grants = subscription_grants(
        items,
        attempt.settings.fulfilment,
        account,
        status=status,
        terms=_terms(db, row, invoices),
        ends=_ends_of_items(db, row, invoices) if row is not None else {},
        payments=payments_of_subscription(db, key, invoices, started),
        policy=policy_of(attempt),
        customer_deleted=customer in deleted,
    )
    return source


def _summaries(db: Session, attempt: Attempt, customers: Iterable[str]) -> dict[str, EntitlementSummary]:
    """The lists of active entitlements of these customers, by customer."""
    keys = [within(account_of(attempt), customer) for customer in customers]
    found = select(EntitlementSummary).where(EntitlementSummary.id.in_(keys)).order_by(EntitlementSummary.id)
    return {row.customer: row for row in db.scalars(found, execution_options={"populate_existing": True})}


def _summary_source(db: Session, attempt: Attempt, row: EntitlementSummary, deleted: set[str]) -> Source:
    source = Source(row.id, row.id, row.customer, None, None)
    plans = db.scalars(select(Subscription).filter_by(account=row.account, customer=row.customer)).all()
    if not (any(is_subscription_ours(attempt.settings, one) for one in plans) or is_ours(attempt.settings, [])):
        source.missing = NOT_OURS
    else:
        reason = "customer_deleted" if row.customer in deleted else ""
        source.grants = {within(row.account, key): Grant(None, reason) for key in row.lookup_keys}
    return source


def _former_list(account: str, customer: str) -> Source:
    """The list of a customer's active entitlements after a change of ENTITLEMENTS: nothing is provided by it now."""
    key = within(account, customer)
    return Source(key, key, customer, None, None, missing=NO_LONGER_INCLUDED)


def _terms(db: Session, row: Subscription | None, invoices: Sequence[PaidInvoice]) -> Terms:
    until = _until(row, [one for one in invoices if one.state == "paid" and one.renews][-1:])
    if row is None:
        return Terms(until)
    past_due = row.status == "past_due"
    return Terms(until, row.cancel_at, past_due, _grace_until(db, row.id) if past_due else None)


def _until(row: Subscription | None, last_paid: Sequence[PaidInvoice]) -> int | None:
    """The end of the paid period: Stripe's, if that was seen after the last paid invoice, else the later one.

    A change to a shorter interval may leave nothing to pay: then no invoice is for the new period.
    """
    known = row.period_end if row is not None else None
    if row is not None and known and all(row.seen_created >= one.created for one in last_paid):
        return known
    return max((end for end in (known, *(one.period_end for one in last_paid)) if end), default=None)


def _ends_of_items(db: Session, row: Subscription, invoices: Sequence[PaidInvoice]) -> dict[str, int]:
    """When the paid period of each price ends, if the items have different periods; {} if they have the same.

    Until Stripe shows the items after a renewal, its paid invoice says when they end.
    """
    ends = {one["price"]: one["period_end"] for one in row.items or () if one.get("period_end")}
    newer = [one.id for one in invoices if one.state == "paid" and one.renews and one.created > row.seen_created]
    if not ends or not newer:
        return ends
    for lines in db.scalars(select(Invoice.lines).where(Invoice.id.in_(newer))):
        for line in lines or ():
            if line["starts_period"] and line["price"] in ends:
                ends[line["price"]] = max(ends[line["price"]], line["period_end"] or 0)
    return ends


def _grace_until(db: Session, subscription: str) -> int | None:
    """When the earliest planned grace period of its invoices ends."""
    ends = db.scalar(GRACE_ENDS, {"subscription": subscription})
    return int(ends.timestamp()) if ends else None


def _is_untold_renewal(invoice: PaidInvoice) -> bool:
    return invoice.state == "paid" and invoice.billing_reason == "subscription_cycle" and not invoice.renewal_told


def _deleted_customers(
    db: Session, attempt: Attempt, rows: Iterable[Order | Subscription | EntitlementSummary]
) -> set[str]:
    account = account_of(attempt)
    names = {within(account, row.customer): row.customer for row in rows if row.customer}
    return {names[key] for key in db.scalars(DELETED, {"ids": list(names)})} if names else set()
