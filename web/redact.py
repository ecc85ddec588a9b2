"""Payloads with personal data hidden, recognised by field name (REDACT_FIELDS) and by what a value looks like."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from tasks.payloads import make_storable

HIDDEN = "•••"
MAX_CHARACTERS = 200_000
NAME_PART = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")  # customer_email, customerEmail, CUSTOMER-EMAIL: "customer", "email"


# Each pattern is bounded and can start at few positions only: a payload may be a megabyte of anything.
EMAIL = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
PHONE = re.compile(r"(?<![\w+])(?:\+|00)[1-9](?:[ ()./-]{0,2}[0-9]){6,13}(?![\w])")
IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")  # ISO 13616
CARD = re.compile(r"(?<![\w.-])[0-9](?:[ -]?[0-9]){12,18}(?![\w.-])")  # ISO/IEC 7812


class NotJson(str):
    """Returned instead of a payload that is not JSON: a sentence that says so."""


def redact_to_text(body: bytes, personal: Collection[str]) -> str:
    """The redacted payload as indented JSON, shortened to MAX_CHARACTERS; or a sentence if it is not JSON."""
    redacted = redact_json(body, personal)
    if isinstance(redacted, NotJson):
        return redacted
    text = json.dumps(redacted, indent=2, ensure_ascii=False)
    if len(text) > MAX_CHARACTERS:
        return text[:MAX_CHARACTERS] + f"\n… (shortened; the payload has {len(body)} bytes)"
    return text


def redact_json(body: bytes, personal: Collection[str]) -> Any:
    """The payload, parsed, with every personal value hidden; NotJson if it cannot be parsed."""
    try:
        return redact(json.loads(make_storable(body.decode())), personal)
    except (ValueError, RecursionError):
        return NotJson(f"({len(body)} bytes that are not JSON)")


def redact(value: Any, personal: Collection[str]) -> Any:
    """`value` with each field hidden whose name `is_personal`, and with `redact_text` applied to all other texts."""
    if isinstance(value, dict):
        return {
            redact_text(key): HIDDEN
            if inner not in (None, "", [], {}) and is_personal(key, personal)
            else redact(inner, personal)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [redact(inner, personal) for inner in value]
    return redact_text(value) if isinstance(value, str) else value


def redact_text(text: str) -> str:
    """The text with e-mail addresses and phone, bank account and card numbers hidden."""
    text = IBAN.sub(lambda found: HIDDEN if _is_valid_iban(found[0]) else found[0], EMAIL.sub(HIDDEN, text))
    return CARD.sub(lambda found: HIDDEN if _is_valid_card(found[0]) else found[0], PHONE.sub(HIDDEN, text))


def _is_valid_iban(text: str) -> bool:
    """Checks the check digits: ISO 7064, MOD 97-10."""
    packed = text.replace(" ", "")
    return int("".join(str(int(one, 36)) for one in packed[4:] + packed[:4])) % 97 == 1


def _is_valid_card(text: str) -> bool:
    """Checks the check digit: ISO/IEC 7812-1, Luhn's algorithm."""
    digits = [int(one) for one in reversed(text) if one.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def is_personal(name: str, personal: Collection[str]) -> bool:
    """True if `name`, or one of the words in it, is one of `personal`; upper and lower case are the same."""
    words = {part.lower() for part in NAME_PART.findall(name)} | {name.lower()}
    return any(one.lower() in words for one in personal)
