"""(source, event type) -> task names and queues: plain data, the one table that receiver and workers share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from inbox.job import NewJob, job_id


@dataclass(frozen=True, slots=True)
class Task:
    """Where a task runs, and how long it may (0: JOB_TIME_LIMIT_SECONDS); as long as a lease only if it `renews` it.

    `schedule` names the setting that says when it is tried again; "": later and later, up to MAX_ATTEMPTS.
    """

    queue: str
    time_limit_seconds: int = 0
    renews: bool = False
    schedule: str = ""


QUEUES = ("payments", "fulfilment", "documents", "downloads", "notifications", "handoffs")

# Every task there is, by the name that Flower shows. The handler is the function of that name.
TASKS: Mapping[str, Task] = {
    "tasks.payments.payment_failed": Task("payments"),
    "tasks.payments.payment_action_required": Task("payments"),
    "tasks.payments.paid": Task("payments"),
    "tasks.payments.voided": Task("payments"),
    "tasks.payments.uncollectible": Task("payments"),
    "tasks.payments.retry_payment": Task("payments"),
    "tasks.payments.end_grace": Task("payments"),
    "tasks.subscriptions.changed": Task("payments"),
    "tasks.subscriptions.trial_will_end": Task("payments"),
    "tasks.sold_elsewhere.record": Task("payments"),
    "tasks.fulfilment.checkout_completed": Task("fulfilment"),
    "tasks.fulfilment.async_payment_succeeded": Task("fulfilment"),
    "tasks.fulfilment.async_payment_failed": Task("fulfilment"),
    "tasks.fulfilment.expired": Task("fulfilment"),
    "tasks.refunds.charge_refunded": Task("fulfilment"),
    "tasks.refunds.refund_changed": Task("fulfilment"),
    "tasks.disputes.changed": Task("fulfilment"),
    "tasks.customers.deleted": Task("fulfilment"),
    "tasks.payouts.payout_failed": Task("payments"),
    "tasks.documents.initiate": Task("documents"),
    "tasks.document_starts.start": Task("documents"),
    "tasks.document_starts.deadline": Task("documents"),
    "tasks.documents.completed": Task("documents"),
    "tasks.documents.failed": Task("documents"),
    "tasks.documents.progress": Task("documents"),
    "tasks.documents.download": Task("downloads", time_limit_seconds=3600, renews=True),
    "tasks.notifications.send": Task("notifications"),
    "tasks.app_webhook.deliver": Task("handoffs", schedule="handoff_schedule"),
    "tasks.handoff.deliver": Task("handoffs", schedule="handoff_schedule"),
    "tasks.reconcile.take_in": Task("payments"),
    "tasks.replays.run_again": Task("payments"),
    "tasks.alerts.tell": Task("notifications"),
}

# "*" is every other type of that source. A type with no route is recorded and counted as unhandled.
ROUTES: Mapping[tuple[str, str], str] = {
    ("stripe", "invoice.payment_failed"): "tasks.payments.payment_failed",
    ("stripe", "invoice.payment_action_required"): "tasks.payments.payment_action_required",
    ("stripe", "invoice.paid"): "tasks.payments.paid",
    ("stripe", "invoice.payment_succeeded"): "tasks.payments.paid",
    ("stripe", "invoice.voided"): "tasks.payments.voided",
    ("stripe", "invoice.marked_uncollectible"): "tasks.payments.uncollectible",
    ("stripe", "customer.subscription.created"): "tasks.subscriptions.changed",
    ("stripe", "customer.subscription.updated"): "tasks.subscriptions.changed",
    ("stripe", "customer.subscription.deleted"): "tasks.subscriptions.changed",
    ("stripe", "customer.subscription.paused"): "tasks.subscriptions.changed",
    ("stripe", "customer.subscription.resumed"): "tasks.subscriptions.changed",
    ("stripe", "customer.subscription.trial_will_end"): "tasks.subscriptions.trial_will_end",
    ("stripe", "checkout.session.completed"): "tasks.fulfilment.checkout_completed",
    ("stripe", "checkout.session.async_payment_succeeded"): "tasks.fulfilment.async_payment_succeeded",
    ("stripe", "checkout.session.async_payment_failed"): "tasks.fulfilment.async_payment_failed",
    ("stripe", "checkout.session.expired"): "tasks.fulfilment.expired",
    ("stripe", "charge.refunded"): "tasks.refunds.charge_refunded",
    ("stripe", "refund.failed"): "tasks.refunds.refund_changed",
    ("stripe", "refund.updated"): "tasks.refunds.refund_changed",
    ("stripe", "charge.refund.updated"): "tasks.refunds.refund_changed",  # before 2024-10-28 the only one of the three
    ("stripe", "charge.dispute.created"): "tasks.disputes.changed",
    ("stripe", "charge.dispute.updated"): "tasks.disputes.changed",
    ("stripe", "charge.dispute.closed"): "tasks.disputes.changed",
    ("stripe", "customer.deleted"): "tasks.customers.deleted",
    ("stripe", "payout.failed"): "tasks.payouts.payout_failed",
    ("documents", "completed"): "tasks.documents.completed",
    ("documents", "failed"): "tasks.documents.failed",
    ("documents", "*"): "tasks.documents.progress",
    ("api", "document.requested"): "tasks.documents.initiate",
    ("holdfast", "reconcile.due"): "tasks.reconcile.take_in",
    ("holdfast", "replay.asked"): "tasks.replays.run_again",
    ("holdfast", "alert.due"): "tasks.alerts.tell",
}

# Event types that Stripe has and the installed library does not know yet; any other unknown one stops start-up.
NEWER_TYPES: Collection[str] = set()
NO_ARGS: Mapping[str, str] = {}


def jobs_for(
    source: str,
    event_id: str,
    event_type: str,
    ordering_key: str = "",
    args: Mapping[str, str] = NO_ARGS,
) -> tuple[NewJob, ...]:
    """The jobs that an event of this type owes; none means unhandled."""
    task = ROUTES.get((source, event_type)) or ROUTES.get((source, "*"))
    if task is None:
        return ()
    effect = task.removeprefix("tasks.")
    return (NewJob(job_id(source, event_id, effect), task, TASKS[task].queue, args, ordering_key=ordering_key),)
