"""Messages owed to people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Notification(Base):
    """A message owed to a customer or the administrator. Its id is the key of the job that sends it."""

    __tablename__ = "notifications"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)
    kind: Mapped[str]  # names the template
    audience: Mapped[str]  # customer | admin | operator
    about: Mapped[str] = mapped_column(index=True, default="")  # the id of what it tells of
    customer: Mapped[str | None]  # Stripe's, whose language, and where need be address, is looked up before sending
    locale: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    params: Mapped[dict[str, Any]]
    state: Mapped[str]  # owed | sent | not_configured | no_address
    sent_by: Mapped[list[str]] = mapped_column(default=list)  # digests of the service URLs that have taken it
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
