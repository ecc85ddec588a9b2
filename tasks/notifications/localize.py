"""Amounts and dates as they are written in a language and region, by the CLDR data of Babel."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from babel import Locale, UnknownLocaleError, dates, numbers

from tasks.money import decimal_places

ENGLISH = Locale("en")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units."""

    minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Day:
    """The day, in UTC, of a time in seconds since 1970."""

    at: int


@dataclass(frozen=True, slots=True)
class Amounts:
    """Several things, each with its amount."""

    items: tuple[tuple[str, Money], ...]


Value = str | Money | Day | Amounts | None  # of a name in a template; None and "": it is not known


def localize(value: Value, locale: str) -> str:
    """A value as text in a locale ("de", "fr-CA"): 19.99 EUR, March 1, 2026; in English if the locale is not known."""
    if isinstance(value, Money):
        return _amount(value, _locale(locale))
    if isinstance(value, Amounts):
        return ", ".join(f"{name} ({_amount(money, _locale(locale))})" for name, money in value.items)
    if isinstance(value, Day):
        return dates.format_date(datetime.fromtimestamp(value.at, UTC), "long", _locale(locale))
    return value or ""


def iso_date(seconds: int) -> str:
    """Seconds since 1970 as a UTC date: "2026-03-01"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _amount(money: Money, locale: Locale) -> str:
    places = decimal_places(money.currency)
    number = Decimal(money.minor).scaleb(-places)
    pattern = "#,##0" + (f".{'0' * places}" if places else "")
    return f"{numbers.format_decimal(number, pattern, locale)} {money.currency.upper()}".rstrip()


def _locale(tag: str) -> Locale:
    """The locale, or else its language, or else English."""
    for name in (tag, tag.replace("_", "-").partition("-")[0]):
        try:
            return Locale.parse(name.replace("_", "-"), sep="-")
        except (UnknownLocaleError, ValueError, TypeError):
            continue
    return ENGLISH
