"""How far a sender has been asked for what never arrived."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Reconcile(Base):
    """How far we have asked a sender what we missed: one row a sender.

    `asked` is the newest request that a worker has begun. since and until bound the events it goes through, in the
    sender's seconds since 1970, and `after` is the last event of the last page taken in. Between looks until is None.
    """

    __tablename__ = "reconciles"

    source: Mapped[str] = mapped_column(primary_key=True)
    asked: Mapped[str]
    since: Mapped[int | None]
    until: Mapped[int | None]
    after: Mapped[str]
    everything: Mapped[bool]  # those, too, that the sender says it has delivered
    seen_until: Mapped[int | None]  # what the last finished look has covered
    everything_until: Mapped[int | None]  # the same of those looks that went through everything
    tried_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # why the last try failed; None: it did not
