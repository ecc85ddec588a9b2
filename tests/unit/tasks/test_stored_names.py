"""The names of tasks are stored, in job ids and idempotency keys too: whatever file a handler is in, they stay."""

from __future__ import annotations

from tasks.routes import ROUTES, TASKS, jobs_for

# Never change a line: jobs in a record, and effects in a database, have these names. New tasks are added.
STORED = [
    "tasks.alerts.tell",
    "tasks.app_webhook.deliver",
    "tasks.customers.deleted",
    "tasks.disputes.changed",
    "tasks.disputes.fraud_warning",
    "tasks.document_starts.deadline",
    "tasks.document_starts.start",
    "tasks.documents.completed",
    "tasks.documents.download",
    "tasks.documents.failed",
    "tasks.documents.initiate",
    "tasks.documents.progress",
    "tasks.fulfilment.async_payment_failed",
    "tasks.fulfilment.async_payment_succeeded",
    "tasks.fulfilment.checkout_completed",
    "tasks.fulfilment.complete",
    "tasks.fulfilment.expired",
    "tasks.handoff.deliver",
    "tasks.invoice_payments.paid",
    "tasks.notifications.send",
    "tasks.payment_methods.changed",
    "tasks.payment_methods.customer_updated",
    "tasks.payments.end_grace",
    "tasks.payments.not_finalized",
    "tasks.payments.overdue",
    "tasks.payments.paid",
    "tasks.payments.payment_action_required",
    "tasks.payments.payment_failed",
    "tasks.payments.retry_payment",
    "tasks.payments.uncollectible",
    "tasks.payments.voided",
    "tasks.payouts.payout_failed",
    "tasks.reconcile.take_in",
    "tasks.refunds.charge_refunded",
    "tasks.refunds.refund_changed",
    "tasks.reminders.upcoming",
    "tasks.replays.run_again",
    "tasks.sales.payment_succeeded",
    "tasks.sales.record",
    "tasks.sold_elsewhere.record",
    "tasks.stripe_entitlements.summary_updated",
    "tasks.subscription_sync.handle_difference",
    "tasks.subscription_sync.sync_page",
    "tasks.subscriptions.changed",
    "tasks.subscriptions.trial_will_end",
    "tasks.thin_events.record_twin",
]


def test_the_stored_names_of_tasks_are_pinned() -> None:
    assert sorted(TASKS) == sorted(STORED)


def test_a_job_id_holds_the_task_s_stored_name_without_its_prefix() -> None:
    ids = {task: jobs_for(source, "evt_1", kind)[0].id for (source, kind), task in ROUTES.items() if source == "stripe"}
    assert ids == {task: f"stripe:evt_1:{task.removeprefix('tasks.')}" for task in ids}


def test_no_stored_name_depends_on_where_its_handler_is() -> None:
    assert [name for name, task in TASKS.items() if ":" not in task.handler or ":" in name] == []
