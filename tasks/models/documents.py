"""What an agent asked to have processed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Document(Base):
    """A document that we had processed: submitting -> processing -> downloading -> completed, or failed on the way."""

    __tablename__ = "documents"

    id: Mapped[str] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(index=True)  # the document service's name for what to process
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)  # for the document service
    status: Mapped[str] = mapped_column(index=True)
    progress: Mapped[int] = mapped_column(Integer, default=0)  # per cent
    start: Mapped[int] = mapped_column(Integer, default=1)  # 2 and more: it was started again
    task_id: Mapped[str | None] = mapped_column(unique=True)  # the service's name for this start
    result_url: Mapped[str | None]
    result_sha256: Mapped[str | None]  # as the service tells it, in hex
    result_size: Mapped[int | None]
    error: Mapped[str | None]
    received_bytes: Mapped[int] = mapped_column(default=0)  # of the download under way
    total_bytes: Mapped[int | None]  # that it will have, once that is known
    size: Mapped[int | None]
    sha256: Mapped[str | None]
    content_type: Mapped[str | None]
    stored_as: Mapped[str | None]  # a name within DOCUMENT_STORE
    notify_email: Mapped[str | None]
    notify_agents: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(index=True)
    updated_at: Mapped[datetime]


class DocumentStep(Base):
    """One line of a document's timeline."""

    __tablename__ = "document_steps"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    document: Mapped[str] = mapped_column(ForeignKey("documents.id"), index=True)
    status: Mapped[str]
    progress: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime]


class FormerTask(Base):
    """What the service called a start of a document that was given up for a newer one."""

    __tablename__ = "former_tasks"

    task_id: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[str] = mapped_column(ForeignKey("documents.id"))
