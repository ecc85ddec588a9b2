"""The progress of comparing our subscriptions with Stripe's."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class SubscriptionSync(Base):
    """How far the newest run has compared our subscriptions with Stripe's list; one row per source.

    `request_id` is the newest request that a worker has begun. While a run is in progress, `began` is when it began
    (seconds since 1970); `after` is the last subscription of the last page; once the list has ended, `unlisted_after`
    is the last of our own that it lacked.
    """

    __tablename__ = "subscription_syncs"

    source: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str]
    began: Mapped[int | None]  # None while no run is in progress
    imports: Mapped[bool]  # also those that we do not know; else only those that we know
    dry_run: Mapped[bool]
    after: Mapped[str]
    unlisted_after: Mapped[str | None]
    listed: Mapped[int]  # by Stripe, in this run or the last one
    differing: Mapped[int]  # of these and of ours, those whose state or items differed
    imported_at: Mapped[datetime | None]  # when an import last finished
    tried_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # why the last attempt failed; None if it did not
