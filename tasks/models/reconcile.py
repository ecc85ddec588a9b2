"""The progress of reconciliation with a source."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Reconcile(Base):
    """How far we have fetched the events of a source that never arrived; one row per source.

    `request_id` is the newest request that a worker has begun. A run lists the events created from `since` to `until`
    (seconds since 1970, the source's clock); `after` is the last event of the last page recorded. `until` is None
    while no run is in progress.
    """

    __tablename__ = "reconciles"

    source: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column("asked")
    since: Mapped[int | None]
    until: Mapped[int | None]
    after: Mapped[str]
    everything: Mapped[bool]  # also list events that the source reports as delivered
    seen_until: Mapped[int | None]  # the `until` of the last finished run
    everything_until: Mapped[int | None]  # the same, of runs that listed everything
    tried_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # why the last attempt failed; None if it did not
