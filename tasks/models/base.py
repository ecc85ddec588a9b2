"""What every table shares, and the mark that a job has had its effect."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite, which keeps no zone, gets it without one and is believed to have kept UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Every table of ours."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime(),
        int: BigInteger(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


class Effect(Base):
    """The job has had its effect. Written in the same transaction, so that a rerun changes nothing."""

    __tablename__ = "effects"

    job_id: Mapped[str] = mapped_column(String(800), primary_key=True)
    follow_ups: Mapped[str] = mapped_column(Text)  # JSON, so that a rerun owes the same jobs
    done_at: Mapped[datetime]
