"""The base class of all tables, and the table of finished jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite stores no time zone: values are stored and read back as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a datetime must have a time zone")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The base class of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime(),
        int: BigInteger(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


class OfAccount:
    """Of a Stripe account: `account` is the connected account that the row belongs to, "" for our own."""

    account: Mapped[str] = mapped_column(default="", server_default="")


class Effect(Base):
    """A job whose changes are committed. Written in the same transaction, so that a rerun changes nothing."""

    __tablename__ = "effects"

    job_id: Mapped[str] = mapped_column(String(800), primary_key=True)
    follow_ups: Mapped[str] = mapped_column(Text)  # JSON: a rerun returns the same follow-ups
    done_at: Mapped[datetime]
