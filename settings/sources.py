"""SOURCES: custom sources, in TOML, one table for each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from settings import parsers as values

BUILT_IN_SOURCES = ("stripe", "documents", "api", "holdfast")
SCHEMES = ("standard", "hmac-sha256", "bearer")
HEADERS = {"hmac-sha256": "X-Hub-Signature-256", "bearer": "Authorization"}
LOCATION = r"header:[A-Za-z0-9-]{1,100}|body:[A-Za-z0-9_-]{1,100}(\.[A-Za-z0-9_-]{1,100})*"


@dataclass(frozen=True, slots=True, repr=False)
class SourceSetting:
    """One custom source. `id` and `type` are locations: `header:<name>`, or `body:<field>.<field>`."""

    scheme: str
    secrets: tuple[str, ...]
    header: str  # the one with the signature or key; empty for the scheme standard
    id: str  # empty: a digest of the body
    type: str

    @property
    def id_is_unsigned(self) -> bool:
        """Whether the id is in a header that the signature does not cover. A bearer key covers nothing."""
        signed_header = "header:webhook-id" if self.scheme == "standard" else ""
        return self.scheme != "bearer" and self.id.startswith("header:") and self.id.lower() != signed_header


def parse(raw: str) -> Mapping[str, SourceSetting]:
    """The sources by name. Raises ValueError with what the setting must be."""
    try:
        tables = tomllib.loads(raw)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"TOML with a table for each source ({error})") from None
    return {name: _source(name, table) for name, table in tables.items()}


def _source(name: str, table: Any) -> SourceSetting:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", name) or name in BUILT_IN_SOURCES:
        raise ValueError(
            "TOML with names of lower-case letters, digits and -,"
            f" other than {', '.join(BUILT_IN_SOURCES)}; not {name!r}"
        )
    if not isinstance(table, dict) or not table.keys() <= {"scheme", "secret", "header", "id", "type"}:
        raise ValueError(f"TOML in which [{name}] has scheme, secret, header, id and type, and nothing else")
    scheme = table.get("scheme", "standard")
    if scheme not in SCHEMES:
        raise ValueError(f"TOML in which the scheme of [{name}] is one of {', '.join(SCHEMES)}")
    standard = scheme == "standard"
    header = _of(name, table, "header", HEADERS.get(scheme, ""), r"[A-Za-z0-9-]{1,100}")
    if standard and header:
        raise ValueError(f"TOML in which [{name}] has no header: the scheme standard has its own")
    id_location = _of(name, table, "id", "header:webhook-id" if standard else "", LOCATION)
    return SourceSetting(scheme, _secrets(name, scheme, table.get("secret")), header, id_location, _type(name, table))


def _type(name: str, table: Mapping[str, Any]) -> str:
    return _of(name, table, "type", "body:type", LOCATION)


def _of(name: str, table: Mapping[str, Any], field: str, default: str, pattern: str) -> str:
    value = table.get(field, default)
    if value != default and not (isinstance(value, str) and re.fullmatch(pattern, value)):
        expected = "the name of a header" if field == "header" else "header:<name> or body:<field>.<field>"
        raise ValueError(f"TOML in which the {field} of [{name}] is {expected}")
    return str(value)


def _secrets(name: str, scheme: str, given: Any) -> tuple[str, ...]:
    secrets = [given] if isinstance(given, str) else given
    if not isinstance(secrets, list) or not all(isinstance(secret, str) for secret in secrets):
        raise ValueError(f"TOML in which the secret of [{name}] is a string, or a list of strings, the new one first")
    parse_secrets = values.standard_secrets if scheme == "standard" else values.plain_secrets
    try:
        return parse_secrets(",".join(secrets))
    except ValueError as error:
        raise ValueError(f"TOML in which the secret of [{name}] is {error}") from None
