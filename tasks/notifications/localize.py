"""Amounts and dates in the language of a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

# Languages with a decimal comma (19,99); all others have a point (19.99). https://cldr.unicode.org (numbers, decimal)
DECIMAL_COMMA = re.compile(
    "bg|ca|cs|da|de|el|es|et|fi|fr|hr|hu|id|is|it|lt|lv|nb|nl|nn|no|pl|pt|ro|ru|sk|sl|sr|sv|tr|uk|vi"
)
DATE_FORMATS = {"de": "{2}.{1}.{0}", "fr": "{2}/{1}/{0}"}  # all others: 2026-03-01, which is unambiguous


def iso_date(seconds: int) -> str:
    """Seconds since 1970 as a UTC date: "2026-03-01"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def localize_params(params: Mapping[str, str], language: str) -> dict[str, str]:
    """The params, with `amount` ("19.99 EUR") and `trial_end` ("2026-03-01") as written in a language ("de", "fr-CA").

    Other params, and all of them for "" (English), are unchanged.
    """
    primary = language.partition("-")[0]
    localized = dict(params)
    if "amount" in localized and DECIMAL_COMMA.fullmatch(primary):
        localized["amount"] = localized["amount"].replace(".", ",")
    if "trial_end" in localized and primary in DATE_FORMATS:
        localized["trial_end"] = DATE_FORMATS[primary].format(*localized["trial_end"].split("-"))
    return localized
