"""The recipients of a message: addresses that are valid, and as mail servers and other services need them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import idna

# An addr-spec of RFC 5321 and 6531: one address, never a list. Longer ones do not fit the columns of a mail server.
LOCAL_PART = re.compile(r"""[^\s@<>()\[\]:;,\\".]+(\.[^\s@<>()\[\]:;,\\".]+)*|"([^"\\\r\n\x00]|\\[\x20-\x7e])+\"""")
MAX_LOCAL_CHARACTERS, MAX_DOMAIN_CHARACTERS = 64, 255
PHONE = re.compile(r"\+?[0-9 ().-]{5,30}")


@dataclass(frozen=True, slots=True)
class Recipient:
    """The customer: a valid address and phone number, and the languages that they prefer, the first first."""

    email: str = ""
    phone: str = ""
    locales: tuple[str, ...] = ()

    @property
    def reachable(self) -> bool:
        return bool(self.email or self.phone)


def valid_email(raw: str | None) -> str:
    """The address with its domain as in DNS (müller.example is xn--mller-kva.example); "" if it is none."""
    local, _, domain = (raw or "").strip().rpartition("@")
    if not LOCAL_PART.fullmatch(local) or len(local.encode()) > MAX_LOCAL_CHARACTERS:
        return ""
    try:
        ascii_domain = idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        return ""
    return f"{local}@{ascii_domain}" if len(ascii_domain) <= MAX_DOMAIN_CHARACTERS else ""


def valid_phone(raw: str | None) -> str:
    """The number; "" if it is none."""
    return raw if raw and PHONE.fullmatch(raw) else ""
