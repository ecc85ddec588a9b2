"""Documents that the document service processes for us."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Document(Base):
    """A document: submitting -> processing -> downloading -> completed; it can fail in each of the first three."""

    __tablename__ = "documents"

    id: Mapped[str] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(index=True)  # the id of the input at the document service
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)  # for the document service
    status: Mapped[str] = mapped_column(index=True)
    progress: Mapped[int] = mapped_column(Integer, default=0)  # percent
    start: Mapped[int] = mapped_column(Integer, default=1)  # the submission's number; above 1: it was resubmitted
    task_id: Mapped[str | None] = mapped_column(unique=True)  # the service's id of this submission
    result_url: Mapped[str | None]
    result_sha256: Mapped[str | None]  # as reported by the service, in hex
    result_size: Mapped[int | None]
    error: Mapped[str | None]
    received_bytes: Mapped[int] = mapped_column(default=0)  # of the current download
    total_bytes: Mapped[int | None]  # of the current download, once known
    size: Mapped[int | None]
    sha256: Mapped[str | None]
    content_type: Mapped[str | None]
    stored_as: Mapped[str | None]  # its name in DOCUMENT_STORE
    notify_email: Mapped[str | None]
    notify_locale: Mapped[str | None]  # the language of that mail
    notify_agents: Mapped[list[str]] = mapped_column(default=list)
    by: Mapped[str | None]  # the name of the API key that requested it
    created_at: Mapped[datetime] = mapped_column(index=True)
    updated_at: Mapped[datetime]


class DocumentStep(Base):
    """One entry of a document's timeline."""

    __tablename__ = "document_steps"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    document: Mapped[str] = mapped_column(ForeignKey("documents.id"), index=True)
    status: Mapped[str]
    progress: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime]


class FormerTask(Base):
    """The service's id of a submission that a newer one has replaced."""

    __tablename__ = "former_tasks"

    task_id: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[str] = mapped_column(ForeignKey("documents.id"))
