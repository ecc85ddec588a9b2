"""Messages to customers, administrators and operators."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Notification(Base):
    """A message to a customer, the administrator or the operator: one row per fact, which its id names.

    `params` holds what no other table does. Rows of earlier versions hold the texts themselves, and the id of a job.
    """

    __tablename__ = "notifications"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)
    kind: Mapped[str]  # names the template
    audience: Mapped[str]  # customer | admin | operator
    about: Mapped[str] = mapped_column(index=True, default="")  # the id of its subject, such as an invoice
    customer: Mapped[str | None]  # Stripe's id; its language and address are fetched before sending
    event: Mapped[str] = mapped_column(default="", server_default="")  # the id of the event that led to it
    # As the event had them; as they were used, once it is sent.
    locale: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    params: Mapped[dict[str, Any]]
    # owed (not sent yet) | sent | obsolete (not true any more) | off (by MESSAGES_OFF) | not_configured | no_address
    state: Mapped[str]
    sent_by: Mapped[list[str]] = mapped_column(default=list)  # digests of the service URLs that have accepted it
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
