"""A Celery task that does nothing, with Holdfast's settings of Celery: what a worker cannot cost less than."""

from __future__ import annotations

from celery import Celery

app = Celery("bare")
app.config_from_object("celeryconfig")


@app.task(name="tasks.payments.payment_failed")  # type: ignore[untyped-decorator]
def nothing(job_id: str) -> None:
    """As Holdfast's message asks for: the messages are the very same."""
