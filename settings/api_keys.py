"""API_KEYS: the keys for the API and the console, each with a name and scopes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from settings.parsers import MIN_DIFFERENT, comma_list, has_few_characters

SCOPES = ("read", "write", "replay", "admin")
MIN_CHARACTERS = 24
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, repr=False)
class ApiKey:
    """A key. `name` stands for it in the audit log and in logs, and does not reveal it."""

    name: str
    scopes: frozenset[str]
    secret: str


def parse(raw: str) -> tuple[ApiKey, ...]:
    """`key` (all scopes) or `name:scopes:key`, comma-separated. Raises ValueError with what the setting must be."""
    return tuple(_api_key(entry) for entry in comma_list(raw))


def _api_key(entry: str) -> ApiKey:
    name, scopes, secret = entry.split(":", 2) if entry.count(":") >= 2 else ("", "", entry)
    if ":" in entry and not (NAME.fullmatch(name) and {*scopes.split("+")} <= {*SCOPES}):
        raise ValueError(
            "keys, each alone or as name:scopes:key: the name in lower-case letters, digits and ._-,"
            f" the scopes {', '.join(SCOPES)}, joined by +"
        )
    if len(secret) < MIN_CHARACTERS or has_few_characters(secret):
        raise ValueError(
            f"keys of {MIN_CHARACTERS} or more characters, at least {MIN_DIFFERENT} of them different, comma-separated"
        )
    digest = hashlib.sha256(secret.encode()).hexdigest()[:8]
    return ApiKey(name or f"api key {digest}", frozenset(scopes.split("+") if name else SCOPES), secret)
