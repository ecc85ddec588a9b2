"""How things are written for people: times, ages, sizes, names."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint

from tasks.notifications.money import amount_text

UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


def register(pages: Blueprint) -> None:
    """Make them filters of the templates."""
    for one in (when, age, lasted, size, short, dated, plain):
        pages.add_app_template_filter(one)
    pages.add_app_template_filter(amount_text, "money")


def when(ms: int | None) -> str:
    """Milliseconds since 1970, as a UTC time to the second."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" if ms else "–"


def clock(ms: float) -> str:
    """The same to the minute, without its day."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%H:%M}"


def dated(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else "–"


def age(ms: float | None) -> str:
    """A span in its two greatest units: 3 d 4 h."""
    if ms is None:
        return "–"
    words, rest = [], int(ms)
    for unit, name in UNITS:
        number, rest = divmod(rest, unit)
        if number:
            words.append(f"{number} {name}")
    return " ".join(words[:2]) or "0 s"


def lasted(ms: float | None) -> str:
    """How long something took: exact where it is short."""
    if ms is None:
        return "–"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s" if ms < 60_000 else age(ms)


def size(number: float | None) -> str:
    """Bytes in a unit that keeps the figure short."""
    if number is None:
        return "–"
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return ""


def short(task: str) -> str:
    """tasks.payments.paid -> payments.paid"""
    return task.removeprefix("tasks.")


def plain(number: float) -> str:
    """1234567 -> 1 234 567, with spaces that do not break."""
    return f"{number:,.0f}".replace(",", "\N{NO-BREAK SPACE}")
