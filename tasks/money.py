"""Amounts of money as text for messages. Everywhere else they are integers in minor units."""

from __future__ import annotations

# From https://docs.stripe.com/currencies; all other currencies have two.
DECIMAL_PLACES = dict.fromkeys(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"), 0
) | dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3)


def decimal_places(currency: str) -> int:
    """How many decimal places the currency's minor unit stands for at Stripe: 2 for "usd"."""
    return DECIMAL_PLACES.get(currency.upper(), 2)


def format_amount(minor: int, currency: str) -> str:
    """An amount in minor units as text: (1050, "usd") -> "10.50 USD"."""
    code, places = currency.upper(), decimal_places(currency)
    whole, rest = divmod(abs(minor), 10**places)
    number = f"{whole}.{rest:0{places}}" if places else str(whole)
    return f"{'-' if minor < 0 else ''}{number} {code}".rstrip()
