"""Bulk replays: requests to run many dead letters again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Replay(Base):
    """The replay of all dead letters that match a filter, page by page.

    `page` holds the job ids of the current page, committed before any of them is replayed. `cursor` is where the next
    page starts. `scanned` of `total` dead letters have been compared with the filter so far.
    """

    __tablename__ = "replays"

    id: Mapped[str] = mapped_column(primary_key=True)  # of the event that requested it
    by: Mapped[str]
    filter: Mapped[dict[str, Any]] = mapped_column("wanted")
    pages: Mapped[int] = mapped_column(Integer, default=0)  # finished ones
    page: Mapped[list[str]] = mapped_column(default=list)
    planned: Mapped[bool] = mapped_column(default=False)  # `page` holds the current page
    cursor: Mapped[str] = mapped_column("place", default="")
    total: Mapped[int]
    scanned: Mapped[int] = mapped_column("looked", default=0)
    replayed: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)  # no longer dead, or the payload was deleted
    created_at: Mapped[datetime] = mapped_column(index=True)
    finished_at: Mapped[datetime | None]
