"""What people have asked to be run again, many at once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Replay(Base):
    """All dead letters that match a filter, run again page by page.

    `page` is what the page under way will replay, written down before the first of them is; `place` is where the next
    one begins. looked of `total` dead letters were looked at so far.
    """

    __tablename__ = "replays"

    id: Mapped[str] = mapped_column(primary_key=True)  # of the event that asked for it
    by: Mapped[str]
    wanted: Mapped[dict[str, Any]]  # the filter
    pages: Mapped[int] = mapped_column(Integer, default=0)  # that are done
    page: Mapped[list[str]] = mapped_column(default=list)
    planned: Mapped[bool] = mapped_column(default=False)
    place: Mapped[str] = mapped_column(default="")
    total: Mapped[int]
    looked: Mapped[int] = mapped_column(default=0)
    replayed: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)  # gone, or without their payload
    created_at: Mapped[datetime] = mapped_column(index=True)
    finished_at: Mapped[datetime | None]
