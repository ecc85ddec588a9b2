"""Parsers of setting values: each gets the text, and raises ValueError with what the value must be."""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from settings import sentinel_url

Parser = Callable[[str], Any]
DOCUMENT_SCHEMES = ("standard", "hmac-sha256", "bearer", "token")
REDIS_OPTION = re.compile("db|username|password|protocol|ssl_[a-z_]+")
MIN_DIFFERENT = 8  # characters of a secret


def text(raw: str) -> str:
    return raw


def comma_list(raw: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in raw.split(",") if part.strip())


def number(low: int, high: int) -> Parser:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(raw)

    return parse


def one_of(*words: str) -> Parser:
    def parse(raw: str) -> str:
        if raw not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return raw

    return parse


def url(*schemes: str) -> Parser:
    def parse(raw: str) -> str:
        expected = f"a URL that starts with {' or '.join(s + '://' for s in schemes)}"
        try:
            parts = urlsplit(raw)
            parts.port  # noqa: B018  raises on a port that is not a number
        except ValueError:
            raise ValueError(expected) from None
        if parts.scheme not in schemes or not (parts.netloc or parts.path.strip("/")):
            raise ValueError(expected)
        return raw.rstrip("/")

    return parse


def url_or_sentinels(*schemes: str) -> Parser:
    single = url(*schemes, "sentinel")

    def parse(raw: str) -> str:
        return raw if sentinel_url.parse(raw) else _with_redis_options(str(single(raw)))

    return parse


def _with_redis_options(url: str) -> str:
    """redis-py takes any argument of a connection from the query, even those that undo our timeouts or decode data."""
    parts = urlsplit(url)
    unsafe = {name for name in dict(parse_qsl(parts.query, keep_blank_values=True)) if not REDIS_OPTION.fullmatch(name)}
    if parts.scheme in ("redis", "rediss") and unsafe:
        raise ValueError("a Redis URL whose query has only db, username, password, protocol and ssl_… options")
    return url


def database(raw: str) -> str:
    """A SQLAlchemy URL; plain postgres:// is what hosting services hand out, so it is accepted too."""
    for scheme in ("postgres://", "postgresql://"):
        if raw.startswith(scheme):
            return "postgresql+psycopg://" + raw.removeprefix(scheme)
    if not raw.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise ValueError("a URL that starts with sqlite:/// or postgresql://")
    return raw


def stripe_secrets(raw: str) -> tuple[str, ...]:
    return _secrets(raw, r"whsec_[A-Za-z0-9+/=_-]{24,}", "whsec_ and 24 or more letters and digits, as Stripe shows it")


def stripe_accounts(raw: str) -> tuple[str, ...]:
    accounts = comma_list(raw)
    if not all(re.fullmatch(r"acct_[A-Za-z0-9]{1,250}", one) for one in accounts):
        raise ValueError("ids of connected Stripe accounts, comma-separated, each starting with acct_")
    return accounts


def standard_secrets(raw: str) -> tuple[str, ...]:
    """Standard Webhooks: base64 of 24 to 64 random bytes behind whsec_ (its specification, "Signature scheme")."""
    expected = "whsec_ and the base64 of 24 to 64 random bytes"
    secrets = _secrets(raw, r"whsec_[A-Za-z0-9+/]+={0,2}", expected)
    if not all(24 <= len(_decoded(secret.removeprefix("whsec_"))) <= 64 for secret in secrets):
        raise ValueError(f"one or more secrets, comma-separated, each {expected}")
    return secrets


def _decoded(text: str) -> bytes:
    """The bytes of a text in base64, with or without padding; b"" if its length is impossible (4n + 1 characters)."""
    try:
        return base64.b64decode(text.rstrip("=") + "==")
    except binascii.Error:
        return b""


def plain_secrets(raw: str) -> tuple[str, ...]:
    return _secrets(raw, r"[!-~]{16,}", "16 or more random ASCII characters without spaces")


def _secrets(raw: str, pattern: str, expected: str) -> tuple[str, ...]:
    secrets = comma_list(raw)
    if not secrets or not all(re.fullmatch(pattern, one) and not _is_placeholder(one) for one in secrets):
        raise ValueError(f"one or more secrets, comma-separated, each {expected}")
    return secrets


def _is_placeholder(secret: str) -> bool:
    return has_few_characters(secret.removeprefix("whsec_")) or "change-me" in secret.lower()


def has_few_characters(secret: str) -> bool:
    """Whether fewer than MIN_DIFFERENT characters of it differ: such a secret was typed, not drawn at random."""
    return len(set(secret)) < MIN_DIFFERENT


def metadata(raw: str) -> tuple[tuple[str, str], ...]:
    """'site=shop,app=crm' -> pairs."""
    pairs = [tuple(part.strip() for part in one.split("=", 1)) for one in comma_list(raw)]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError("keys and values of Stripe's metadata, comma-separated, such as site=shop")
    return tuple((key, value) for key, value in pairs)


def header(raw: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,100}", raw):
        raise ValueError("the name of an HTTP header, such as X-Signature")
    return raw


def durations(raw: str) -> tuple[int, ...]:
    """'1h,1d' -> seconds; 'off' -> none."""
    if raw == "off":
        return ()
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    steps = [re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", step) for step in comma_list(raw)]
    if not steps or not all(steps):
        raise ValueError("'off', or times between attempts such as 1h,1d,3d (s, m, h or d)")
    return tuple(int(step[1]) * units[step[2]] for step in steps if step)


def duration(raw: str) -> int:
    """'24h' -> seconds."""
    if not re.fullmatch(r"[1-9][0-9]{0,6}[smhd]", raw):
        raise ValueError("a time such as 90s, 30m, 24h or 7d")
    return durations(raw)[0]


def durations_by_name(raw: str) -> Mapping[str, int]:
    """'stripe=24h,github=7d' -> seconds by name."""
    try:
        return {name.strip(): duration(time.strip()) for name, time in (one.split("=") for one in comma_list(raw))}
    except ValueError:
        raise ValueError("names of sources, each with a time, comma-separated, such as stripe=24h,github=7d") from None


def patterns(raw: str) -> tuple[re.Pattern[str], ...]:
    """'time.?out,overload' -> compiled patterns, not case-sensitive; 'off' -> none."""
    try:
        return () if raw == "off" else tuple(re.compile(part, re.IGNORECASE) for part in comma_list(raw))
    except re.error as error:
        raise ValueError(f"'off', or words or regular expressions, comma-separated ({error})") from None


def status_path(raw: str) -> str:
    if not raw.startswith("/") or raw.count("{task_id}") != 1:
        raise ValueError("a path that starts with / and contains {task_id} once")
    return raw


def grants(raw: str) -> Mapping[str, tuple[str, ...]]:
    """'prod_1 = ["course"]' -> what each Stripe product or price grants."""
    try:
        found = tomllib.loads(raw)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f'TOML, a line for each product or price: prod_1 = ["course", "forum"] ({error})') from None
    for key, names in found.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and 0 < len(name) < 256 for name in names):
            raise ValueError(f'a list of names for {key!r}, such as ["course", "forum"]')
    return {key: tuple(names) for key, names in found.items()}


def folder(raw: str) -> str:
    if "://" in raw:
        raise ValueError("the path of a folder")
    return raw


def existing_folder(raw: str) -> str:
    if not Path(raw).is_dir():
        raise ValueError("the path of an existing folder")
    return raw


def store(raw: str) -> str:
    """Bucket names: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""
    if "://" in raw and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#\s]*)?", raw):
        raise ValueError("the path of a folder, or s3://bucket/prefix")
    return raw


def media_types(raw: str) -> tuple[str, ...]:
    types = comma_list(raw.lower())
    if not all(re.fullmatch(r"[a-z0-9.+-]+/(\*|[a-z0-9.+-]+)", one) for one in types):
        raise ValueError("media types, comma-separated, such as application/pdf,image/*")
    return types


LIST_PARSERS = (comma_list, metadata, stripe_secrets, stripe_accounts, standard_secrets, media_types)
