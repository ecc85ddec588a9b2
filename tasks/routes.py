"""The tables of tasks and routes, as plain data, shared by the receiver and the workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from inbox.job import NewJob, job_id


@dataclass(frozen=True, slots=True)
class Task:
    """How one kind of job runs.

    `handler`: `module:function`, imported by the workers only.
    `time_limit_seconds`: 0 is JOB_TIME_LIMIT_SECONDS; only a handler that `renews` its lease may exceed LEASE_SECONDS.
    `schedule`: the setting with the delays between attempts; "" is exponential backoff up to MAX_ATTEMPTS.
    `main_thread`: it runs in the main thread of its process, one such job at a time, even with WORKER_SLOTS. For
    handlers that need much CPU or memory: Celery can stop them at the time limit, which no thread of a slot can be.
    """

    handler: str
    queue: str
    time_limit_seconds: int = 0
    renews: bool = False
    schedule: str = ""
    main_thread: bool = False

    @property
    def has_slot(self) -> bool:
        """Whether it runs in a slot if there are any. No slot has a time limit of its own."""
        return not (self.main_thread or self.time_limit_seconds)


OWN_SOURCE = "holdfast"  # events that Holdfast records itself: requests and timers
QUEUES = ("payments", "fulfilment", "documents", "downloads", "notifications", "handoffs")

# The names of the tasks. They are stored: in the record, in Celery messages, and, without "tasks.", in job ids and
# idempotency keys. They never change, whatever files the handlers are in; test_stored_names.py pins them.
PAYMENT_FAILED = "tasks.payments.payment_failed"
PAYMENT_ACTION_REQUIRED = "tasks.payments.payment_action_required"
INVOICE_PAID = "tasks.payments.paid"
INVOICE_VOIDED = "tasks.payments.voided"
INVOICE_UNCOLLECTIBLE = "tasks.payments.uncollectible"
INVOICE_UPCOMING = "tasks.reminders.upcoming"
INVOICE_OVERDUE = "tasks.payments.overdue"
RETRY_PAYMENT = "tasks.payments.retry_payment"
END_GRACE_PERIOD = "tasks.payments.end_grace"
SUBSCRIPTION_CHANGED = "tasks.subscriptions.changed"
TRIAL_WILL_END = "tasks.subscriptions.trial_will_end"
CHECKOUT_COMPLETED = "tasks.fulfilment.checkout_completed"
CHECKOUT_PAID = "tasks.fulfilment.async_payment_succeeded"
CHECKOUT_PAYMENT_FAILED = "tasks.fulfilment.async_payment_failed"
CHECKOUT_EXPIRED = "tasks.fulfilment.expired"
RECORD_DIRECT_SUBSCRIPTION = "tasks.sold_elsewhere.record"  # of earlier versions; nothing enqueues it any more
COMPLETE_ORDER = "tasks.fulfilment.complete"
PAYMENT_SUCCEEDED = "tasks.sales.payment_succeeded"
RECORD_SALE = "tasks.sales.record"
INVOICE_PAYMENT_PAID = "tasks.invoice_payments.paid"
CHARGE_REFUNDED = "tasks.refunds.charge_refunded"
REFUND_CHANGED = "tasks.refunds.refund_changed"
DISPUTE_CHANGED = "tasks.disputes.changed"
CUSTOMER_UPDATED = "tasks.payment_methods.customer_updated"
PAYMENT_METHOD_CHANGED = "tasks.payment_methods.changed"
INVOICE_NOT_FINALIZED = "tasks.payments.not_finalized"
FRAUD_WARNING = "tasks.disputes.fraud_warning"
CUSTOMER_DELETED = "tasks.customers.deleted"
PAYOUT_FAILED = "tasks.payouts.payout_failed"
DOCUMENT_REQUESTED = "tasks.documents.initiate"
SUBMIT_DOCUMENT = "tasks.document_starts.start"
CHECK_DOCUMENT = "tasks.document_starts.deadline"
DOCUMENT_COMPLETED = "tasks.documents.completed"
DOCUMENT_FAILED = "tasks.documents.failed"
DOCUMENT_PROGRESS = "tasks.documents.progress"
DOWNLOAD_DOCUMENT = "tasks.documents.download"
SEND_NOTIFICATION = "tasks.notifications.send"
DELIVER_APP_WEBHOOK = "tasks.app_webhook.deliver"
DELIVER_HANDOFF = "tasks.handoff.deliver"
RECONCILE = "tasks.reconcile.take_in"
ENTITLEMENTS_UPDATED = "tasks.stripe_entitlements.summary_updated"
SYNC_SUBSCRIPTIONS = "tasks.subscription_sync.sync_page"
SUBSCRIPTION_DIFFERS = "tasks.subscription_sync.handle_difference"
THIN_EVENT = "tasks.thin_events.record_twin"
BULK_REPLAY = "tasks.replays.run_again"
SEND_ALERTS = "tasks.alerts.tell"

TASKS: Mapping[str, Task] = {
    PAYMENT_FAILED: Task("tasks.billing.payments:payment_failed", "payments"),
    PAYMENT_ACTION_REQUIRED: Task("tasks.billing.payments:payment_action_required", "payments"),
    INVOICE_PAID: Task("tasks.billing.payments:invoice_paid", "payments"),
    INVOICE_VOIDED: Task("tasks.billing.payments:invoice_voided", "payments"),
    INVOICE_UNCOLLECTIBLE: Task("tasks.billing.payments:invoice_uncollectible", "payments"),
    INVOICE_UPCOMING: Task("tasks.billing.reminders:invoice_upcoming", "payments"),
    INVOICE_OVERDUE: Task("tasks.billing.payments:invoice_overdue", "payments"),
    RETRY_PAYMENT: Task("tasks.billing.payments:retry_payment", "payments"),
    END_GRACE_PERIOD: Task("tasks.billing.payments:end_grace_period", "payments"),
    SUBSCRIPTION_CHANGED: Task("tasks.billing.subscriptions:subscription_changed", "payments"),
    TRIAL_WILL_END: Task("tasks.billing.subscriptions:trial_will_end", "payments"),
    CHECKOUT_COMPLETED: Task("tasks.orders.fulfilment:checkout_completed", "fulfilment"),
    CHECKOUT_PAID: Task("tasks.orders.fulfilment:async_payment_succeeded", "fulfilment"),
    CHECKOUT_PAYMENT_FAILED: Task("tasks.orders.fulfilment:async_payment_failed", "fulfilment"),
    CHECKOUT_EXPIRED: Task("tasks.orders.fulfilment:expired", "fulfilment"),
    RECORD_DIRECT_SUBSCRIPTION: Task("tasks.orders.fulfilment:sync_subscription", "fulfilment"),
    COMPLETE_ORDER: Task("tasks.orders.fulfilment:complete_order", "fulfilment"),
    PAYMENT_SUCCEEDED: Task("tasks.orders.sales_without_session:payment_succeeded", "fulfilment"),
    RECORD_SALE: Task("tasks.orders.sales_without_session:record_sale", "fulfilment"),
    INVOICE_PAYMENT_PAID: Task("tasks.orders.invoice_payments:invoice_payment_paid", "fulfilment"),
    CHARGE_REFUNDED: Task("tasks.billing.refunds:charge_refunded", "fulfilment"),
    REFUND_CHANGED: Task("tasks.billing.refunds:refund_changed", "fulfilment"),
    DISPUTE_CHANGED: Task("tasks.billing.disputes:dispute_changed", "fulfilment"),
    CUSTOMER_UPDATED: Task("tasks.billing.payment_methods:customer_updated", "payments"),
    PAYMENT_METHOD_CHANGED: Task("tasks.billing.payment_methods:payment_method_changed", "payments"),
    INVOICE_NOT_FINALIZED: Task("tasks.billing.admin_notices:invoice_not_finalized", "payments"),
    FRAUD_WARNING: Task("tasks.billing.admin_notices:fraud_warning", "payments"),
    CUSTOMER_DELETED: Task("tasks.billing.customers:customer_deleted", "fulfilment"),
    PAYOUT_FAILED: Task("tasks.billing.payouts:payout_failed", "payments"),
    DOCUMENT_REQUESTED: Task("tasks.documents.callbacks:create_document", "documents"),
    SUBMIT_DOCUMENT: Task("tasks.documents.submissions:submit", "documents"),
    CHECK_DOCUMENT: Task("tasks.documents.submissions:check_deadline", "documents"),
    DOCUMENT_COMPLETED: Task("tasks.documents.callbacks:completed", "documents"),
    DOCUMENT_FAILED: Task("tasks.documents.callbacks:failed", "documents"),
    DOCUMENT_PROGRESS: Task("tasks.documents.callbacks:progress", "documents"),
    DOWNLOAD_DOCUMENT: Task("tasks.documents.download:download", "downloads", time_limit_seconds=3600, renews=True),
    SEND_NOTIFICATION: Task("tasks.notifications.notify:send", "notifications", time_limit_seconds=660, renews=True),
    DELIVER_APP_WEBHOOK: Task("tasks.orders.app_webhook:deliver", "handoffs", schedule="handoff_schedule"),
    DELIVER_HANDOFF: Task("tasks.agents.handoff:deliver", "handoffs", schedule="handoff_schedule"),
    RECONCILE: Task("tasks.billing.reconcile:reconcile_page", "payments"),
    ENTITLEMENTS_UPDATED: Task("tasks.billing.stripe_entitlements:summary_updated", "fulfilment"),
    SYNC_SUBSCRIPTIONS: Task("tasks.billing.subscription_sync:sync_page", "payments"),
    SUBSCRIPTION_DIFFERS: Task("tasks.billing.subscription_sync:handle_difference", "payments"),
    THIN_EVENT: Task("tasks.thin_events:record_twin", "payments"),
    BULK_REPLAY: Task("tasks.bulk_replays:replay_page", "payments"),
    SEND_ALERTS: Task("tasks.notifications.alerts:send_alert", "notifications"),
}

# "*" is every other type of that source. The thin twin of a Stripe type (THIN_PREFIX) has the same effect as the type.
# A type with no route is recorded and counted as unhandled.
ROUTES: Mapping[tuple[str, str], str] = {
    ("stripe", "invoice.payment_failed"): PAYMENT_FAILED,
    ("stripe", "invoice.payment_action_required"): PAYMENT_ACTION_REQUIRED,
    ("stripe", "invoice.paid"): INVOICE_PAID,
    ("stripe", "invoice.payment_succeeded"): INVOICE_PAID,
    ("stripe", "invoice.voided"): INVOICE_VOIDED,
    ("stripe", "invoice.marked_uncollectible"): INVOICE_UNCOLLECTIBLE,
    ("stripe", "invoice.upcoming"): INVOICE_UPCOMING,
    ("stripe", "invoice.overdue"): INVOICE_OVERDUE,
    ("stripe", "customer.subscription.created"): SUBSCRIPTION_CHANGED,
    ("stripe", "customer.subscription.updated"): SUBSCRIPTION_CHANGED,
    ("stripe", "customer.subscription.deleted"): SUBSCRIPTION_CHANGED,
    ("stripe", "customer.subscription.paused"): SUBSCRIPTION_CHANGED,
    ("stripe", "customer.subscription.resumed"): SUBSCRIPTION_CHANGED,
    ("stripe", "customer.subscription.trial_will_end"): TRIAL_WILL_END,
    ("stripe", "checkout.session.completed"): CHECKOUT_COMPLETED,
    ("stripe", "checkout.session.async_payment_succeeded"): CHECKOUT_PAID,
    ("stripe", "checkout.session.async_payment_failed"): CHECKOUT_PAYMENT_FAILED,
    ("stripe", "checkout.session.expired"): CHECKOUT_EXPIRED,
    ("stripe", "payment_intent.succeeded"): PAYMENT_SUCCEEDED,
    ("stripe", "invoice_payment.paid"): INVOICE_PAYMENT_PAID,
    ("stripe", "charge.refunded"): CHARGE_REFUNDED,
    ("stripe", "refund.failed"): REFUND_CHANGED,
    ("stripe", "refund.updated"): REFUND_CHANGED,
    ("stripe", "charge.refund.updated"): REFUND_CHANGED,  # before 2024-10-28 the only one of the three
    ("stripe", "charge.dispute.created"): DISPUTE_CHANGED,
    ("stripe", "charge.dispute.updated"): DISPUTE_CHANGED,
    ("stripe", "charge.dispute.closed"): DISPUTE_CHANGED,
    ("stripe", "entitlements.active_entitlement_summary.updated"): ENTITLEMENTS_UPDATED,
    ("stripe", "invoice.finalization_failed"): INVOICE_NOT_FINALIZED,
    ("stripe", "radar.early_fraud_warning.created"): FRAUD_WARNING,
    ("stripe", "customer.updated"): CUSTOMER_UPDATED,
    ("stripe", "payment_method.attached"): PAYMENT_METHOD_CHANGED,
    ("stripe", "payment_method.automatically_updated"): PAYMENT_METHOD_CHANGED,
    ("stripe", "customer.deleted"): CUSTOMER_DELETED,
    ("stripe", "payout.failed"): PAYOUT_FAILED,
    ("documents", "completed"): DOCUMENT_COMPLETED,
    ("documents", "failed"): DOCUMENT_FAILED,
    ("documents", "*"): DOCUMENT_PROGRESS,
    ("api", "document.requested"): DOCUMENT_REQUESTED,
    (OWN_SOURCE, "reconcile.due"): RECONCILE,
    (OWN_SOURCE, "subscriptions.due"): SYNC_SUBSCRIPTIONS,
    (OWN_SOURCE, "subscription.differs"): SUBSCRIPTION_DIFFERS,
    (OWN_SOURCE, "replay.asked"): BULK_REPLAY,
    (OWN_SOURCE, "alert.due"): SEND_ALERTS,
}

THIN_PREFIX = "v1."  # `v1.invoice.paid` is the thin event of what `invoice.paid` reports
NO_THIN_TWIN = {"entitlements.active_entitlement_summary.updated"}  # its thin event names neither object nor customer

# Stripe event types that the installed library does not know yet; any other unknown type stops start-up.
NEWER_TYPES: Collection[str] = set()
NO_ARGS: Mapping[str, str] = {}


def effect_of(task: str) -> str:
    """The part of a job id that names the task: its stored name without "tasks."."""
    return task.removeprefix("tasks.")


def jobs_for(
    source: str,
    event_id: str,
    event_type: str,
    ordering_key: str = "",
    args: Mapping[str, str] = NO_ARGS,
) -> tuple[NewJob, ...]:
    """The jobs of an event of this type; () if it is unhandled."""
    task = ROUTES.get((source, event_type)) or _task_of_twin(source, event_type) or ROUTES.get((source, "*"))
    if task is None:
        return ()
    return (
        NewJob(job_id(source, event_id, effect_of(task)), task, TASKS[task].queue, args, ordering_key=ordering_key),
    )


def _task_of_twin(source: str, event_type: str) -> str | None:
    twin = event_type.removeprefix(THIN_PREFIX)
    if source != "stripe" or twin in (event_type, *NO_THIN_TWIN) or (source, twin) not in ROUTES:
        return None
    return THIN_EVENT
