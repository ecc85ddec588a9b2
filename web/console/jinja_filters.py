"""Jinja filters that format times, durations, sizes and names."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint

from tasks.money import format_amount

UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))
NO_VALUE = "–"


def register(pages: Blueprint) -> None:
    for one in (timestamp, age, duration, size, task_name, datetime_text, iso_text, number, unix_text):
        pages.add_app_template_filter(one)
    pages.add_app_template_filter(format_amount, "money")


def timestamp(ms: int | None) -> str:
    """Milliseconds since 1970 -> 2026-11-24 13:00:00, in UTC"""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" if ms else NO_VALUE


def clock(ms: float) -> str:
    """Milliseconds since 1970 -> 13:00, in UTC"""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%H:%M}"


def datetime_text(at: datetime | None) -> str:
    """datetime -> 2026-11-24 13:00:00, in UTC"""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else NO_VALUE


def iso_text(at: str) -> str:
    """2026-11-24T13:00:00.123+00:00 -> 2026-11-24 13:00:00"""
    return at[:19].replace("T", " ")


def unix_text(seconds: int | None) -> str:
    """Seconds since 1970 -> 2026-11-24 13:00:00, in UTC"""
    return timestamp(seconds * 1000) if seconds else NO_VALUE


def age(ms: float | None) -> str:
    """Milliseconds -> 3 d 4 h: the two largest units"""
    if ms is None:
        return NO_VALUE
    parts, rest = [], int(ms)
    for unit, name in UNITS:
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def duration(ms: float | None) -> str:
    """Milliseconds -> 7 ms, 1.5 s, 1 min 1 s: precise when short"""
    if ms is None:
        return NO_VALUE
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s" if ms < 60_000 else age(ms)


def size(count: float | None) -> str:
    """Bytes -> 1.5 KB"""
    if count is None:
        return NO_VALUE
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def task_name(task: str) -> str:
    """tasks.payments.paid -> payments.paid"""
    return task.removeprefix("tasks.")


def number(value: float) -> str:
    """1234567 -> 1 234 567, with no-break spaces"""
    return f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}")
