"""A payload as people may see it: what is personal is left out by the names of its fields (REDACT_FIELDS), and by what
values look like, wherever they are."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

HIDDEN = "•••"
MOST_CHARACTERS = 200_000
WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")  # customer_email, customerEmail and CUSTOMER-EMAIL have the same two


# Each begins in few places and is bounded: a payload may be a megabyte of anything.
EMAIL = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
PHONE = re.compile(r"(?<![\w+])(?:\+|00)[1-9](?:[ ()./-]{0,2}[0-9]){6,13}(?![\w])")
IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")  # ISO 13616
CARD = re.compile(r"(?<![\w.-])[0-9](?:[ -]?[0-9]){12,18}(?![\w.-])")  # ISO/IEC 7812


def payload(body: bytes, personal: Collection[str]) -> str:
    """The body's JSON, indented, with every personal value hidden; or, in words, that it is none."""
    read = value(body, personal)
    if isinstance(read, Unreadable):
        return read
    shown = json.dumps(read, indent=2, ensure_ascii=False)
    if len(shown) > MOST_CHARACTERS:
        return shown[:MOST_CHARACTERS] + f"\n… (cut: {len(body)} bytes in all)"
    return shown


class Unreadable(str):
    """In the place of a payload that is no JSON: that it is none, in words."""


def value(body: bytes, personal: Collection[str]) -> Any:
    """The body's JSON with every personal value hidden, or Unreadable."""
    try:
        return redacted(json.loads(body), personal)
    except (ValueError, RecursionError):
        return Unreadable(f"({len(body)} bytes that are no JSON)")


def redacted(value: Any, personal: Collection[str]) -> Any:
    """`value` with each field hidden that has one of these words, or all of one of these names, in its own name; and of
    texts what looks personal."""
    if isinstance(value, dict):
        return {
            disguised(key): HIDDEN
            if inner not in (None, "", [], {}) and is_personal(key, personal)
            else redacted(inner, personal)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [redacted(inner, personal) for inner in value]
    return disguised(value) if isinstance(value, str) else value


def disguised(text: str) -> str:
    """The text without the e-mail addresses, phone, bank account and card numbers in it."""
    text = IBAN.sub(lambda found: HIDDEN if _sound_iban(found[0]) else found[0], EMAIL.sub(HIDDEN, text))
    return CARD.sub(lambda found: HIDDEN if _sound_card(found[0]) else found[0], PHONE.sub(HIDDEN, text))


def _sound_iban(text: str) -> bool:
    """ISO 7064, MOD 97-10."""
    packed = text.replace(" ", "")
    return int("".join(str(int(one, 36)) for one in packed[4:] + packed[:4])) % 97 == 1


def _sound_card(text: str) -> bool:
    """The check digit of ISO/IEC 7812-1, by Luhn."""
    digits = [int(one) for one in reversed(text) if one.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def is_personal(name: str, personal: Collection[str]) -> bool:
    words = {word.lower() for word in WORD.findall(name)} | {name.lower()}
    return any(one.lower() in words for one in personal)
