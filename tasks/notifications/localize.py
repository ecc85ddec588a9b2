"""How amounts and days are written in the language of a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

# Languages that write 19,99; all others write 19.99. https://cldr.unicode.org (numbers, decimal)
COMMA = re.compile("bg|ca|cs|da|de|el|es|et|fi|fr|hr|hu|id|is|it|lt|lv|nb|nl|nn|no|pl|pt|ro|ru|sk|sl|sr|sv|tr|uk|vi")
DAY = {"de": "{2}.{1}.{0}", "fr": "{2}/{1}/{0}"}  # all others as 2026-03-01, which nobody takes for another day


def iso_date(seconds: int) -> str:
    """Seconds since 1970 as a UTC date: "2026-03-01"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def localize_params(params: Mapping[str, str], language: str) -> dict[str, str]:
    """`amount` ("19.99 EUR") and `trial_end` ("2026-03-01") as they are written in "de" or "fr-CA"; "": in English."""
    spoken = language.partition("-")[0]
    told = dict(params)
    if "amount" in told and COMMA.fullmatch(spoken):
        told["amount"] = told["amount"].replace(".", ",")
    if "trial_end" in told and spoken in DAY:
        told["trial_end"] = DAY[spoken].format(*told["trial_end"].split("-"))
    return told
