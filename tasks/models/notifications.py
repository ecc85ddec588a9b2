"""Messages to customers, administrators and operators."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Notification(Base):
    """A message to a customer, the administrator or the operator. Its id is the id of the job that sends it."""

    __tablename__ = "notifications"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)
    kind: Mapped[str]  # names the template
    audience: Mapped[str]  # customer | admin | operator
    about: Mapped[str] = mapped_column(index=True, default="")  # the id of its subject, such as an invoice
    customer: Mapped[str | None]  # Stripe's id; its language, and a missing address, are fetched before sending
    locale: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    params: Mapped[dict[str, Any]]
    state: Mapped[str]  # owed (not sent yet) | sent | not_configured | no_address
    sent_by: Mapped[list[str]] = mapped_column(default=list)  # digests of the service URLs that have accepted it
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
