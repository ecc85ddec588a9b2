"""Environment -> one frozen, validated Settings. The only reader of os.environ.

Every setting may also come from a file: NAME_FILE=/run/secrets/name. A bad value raises SettingsError, one line that
names the variable, what it got (never a secret) and what it takes.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sentinel_url

Parser = Callable[[str], Any]

STRIPE_RESENDS_DAYS = 30  # by hand or by API, from Stripe's dashboard: "Process undelivered webhook events"


class SettingsError(Exception):
    """A setting is missing or wrong; str() is one line for a person."""


# --- what a value may look like: each parser raises ValueError(what it takes) ---------------------------------------


def _text(raw: str) -> str:
    return raw


def _list(raw: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in raw.split(",") if part.strip())


def _number(low: int, high: int) -> Parser:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(raw)

    return parse


def _one_of(*words: str) -> Parser:
    def parse(raw: str) -> str:
        if raw not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return raw

    return parse


def _url(*schemes: str) -> Parser:
    def parse(raw: str) -> str:
        takes = f"a URL that starts with {' or '.join(s + '://' for s in schemes)}"
        try:
            parts = urlsplit(raw)
            parts.port  # noqa: B018  raises on a port that is no number
        except ValueError:
            raise ValueError(takes) from None
        if parts.scheme not in schemes or not (parts.netloc or parts.path.strip("/")):
            raise ValueError(takes)
        return raw.rstrip("/")

    return parse


def _url_or_sentinels(*schemes: str) -> Parser:
    single = _url(*schemes, "sentinel")

    def parse(raw: str) -> str:
        return raw if sentinel_url.parse(raw) else str(single(raw))

    return parse


def _database(raw: str) -> str:
    """A SQLAlchemy URL; plain postgres:// is what hosting services hand out, so it is taken too."""
    for scheme in ("postgres://", "postgresql://"):
        if raw.startswith(scheme):
            return "postgresql+psycopg://" + raw.removeprefix(scheme)
    if not raw.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise ValueError("a URL that starts with sqlite:/// or postgresql://")
    return raw


def _stripe_secrets(raw: str) -> tuple[str, ...]:
    secrets = _list(raw)
    if not secrets or not all(s.startswith("whsec_") for s in secrets):
        raise ValueError("one or more secrets, comma-separated, each starting with whsec_")
    return secrets


def _standard_secrets(raw: str) -> tuple[str, ...]:
    """Standard Webhooks: base64 of 24 to 64 random bytes behind whsec_ (its specification, "Signature scheme")."""
    secrets = _list(raw)
    if not secrets or not all(re.fullmatch(r"whsec_[A-Za-z0-9+/]{24,88}={0,2}", s) for s in secrets):
        raise ValueError("one or more secrets, comma-separated, each whsec_ and the base64 of 24 to 64 random bytes")
    return secrets


def _api_keys(raw: str) -> tuple[str, ...]:
    keys = _list(raw)
    if any(len(key) < 16 for key in keys):
        raise ValueError("keys of 16 characters or more, comma-separated")
    return keys


def _durations(raw: str) -> tuple[int, ...]:
    """'1h,1d' -> seconds; 'off' -> nothing."""
    if raw == "off":
        return ()
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    steps = [re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", step) for step in _list(raw)]
    if not steps or not all(steps):
        raise ValueError("'off', or times from one try to the next such as 1h,1d,3d (s, m, h or d)")
    return tuple(int(step[1]) * units[step[2]] for step in steps if step)


def _grants(raw: str) -> Mapping[str, tuple[str, ...]]:
    """'prod_1 = ["course"]' -> what each Stripe product or price grants."""
    try:
        found = tomllib.loads(raw)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f'TOML, a line for each product or price: prod_1 = ["course", "forum"] ({error})') from None
    for key, names in found.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and 0 < len(name) < 256 for name in names):
            raise ValueError(f'a list of names for {key!r}, such as ["course", "forum"]')
    return {key: tuple(names) for key, names in found.items()}


def _folder(raw: str) -> str:
    if "://" in raw:
        raise ValueError("the path of a folder")
    return raw


def _existing_folder(raw: str) -> str:
    if not Path(raw).is_dir():
        raise ValueError("the path of a folder that is there")
    return raw


def _store(raw: str) -> str:
    """Bucket names: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""
    if "://" in raw and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#\s]*)?", raw):
        raise ValueError("the path of a folder, or s3://bucket/prefix")
    return raw


def _media_types(raw: str) -> tuple[str, ...]:
    types = _list(raw.lower())
    if not all(re.fullmatch(r"[a-z0-9.+-]+/(\*|[a-z0-9.+-]+)", one) for one in types):
        raise ValueError("media types, comma-separated, such as application/pdf,image/*")
    return types


def _setting(parse: Parser, default: str, *, secret: bool = False) -> Any:
    return field(metadata={"parse": parse, "default": default, "secret": secret})


# --- the settings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Everything that can be set, each from the environment variable of the same name in capitals."""

    stripe_webhook_secret: tuple[str, ...] = _setting(_stripe_secrets, "", secret=True)
    stripe_mode: str = _setting(_one_of("any", "live", "test"), "any")
    stripe_api_key: str = _setting(_text, "", secret=True)
    stripe_api_base: str = _setting(_url("https", "http"), "https://api.stripe.com")
    doc_service_url: str = _setting(_url("https", "http"), "")
    doc_service_api_key: str = _setting(_text, "", secret=True)
    doc_webhook_secret: tuple[str, ...] = _setting(_standard_secrets, "", secret=True)
    public_url: str = _setting(_url("https", "http"), "")
    redis_url: str = _setting(_url_or_sentinels("redis", "rediss", "unix"), "redis://localhost:6379/0", secret=True)
    broker_url: str = _setting(_url_or_sentinels("redis", "rediss", "amqp", "amqps"), "", secret=True)
    database_url: str = _setting(_database, "sqlite:///holdfast.db", secret=True)
    api_keys: tuple[str, ...] = _setting(_api_keys, "", secret=True)
    customer_notify_urls: tuple[str, ...] = _setting(_list, "", secret=True)
    admin_notify_urls: tuple[str, ...] = _setting(_list, "", secret=True)
    document_store: str = _setting(_store, "documents")
    document_spool: str = _setting(_folder, "documents/.incoming")
    document_types: tuple[str, ...] = _setting(_media_types, "")
    max_document_bytes: int = _setting(_number(1, 100 * 1024**3), "5368709120")
    handoff_secret: tuple[str, ...] = _setting(_standard_secrets, "", secret=True)
    app_webhook_url: str = _setting(_url("https", "http"), "", secret=True)
    app_webhook_secret: tuple[str, ...] = _setting(_standard_secrets, "", secret=True)
    fulfilment: Mapping[str, tuple[str, ...]] = _setting(_grants, "", secret=True)
    access_while_disputed: str = _setting(_one_of("keep", "revoke"), "keep")
    call_out_allowed_hosts: tuple[str, ...] = _setting(_list, "")
    payment_retry_schedule: tuple[int, ...] = _setting(_durations, "1h,1d,3d,5d")
    payment_grace_seconds: int = _setting(_number(0, 365 * 86400), "259200")
    templates: str = _setting(_existing_folder, "")
    port: int = _setting(_number(1, 65535), "8000")
    bind: str = _setting(_text, "127.0.0.1")
    web_processes: int = _setting(_number(1, 64), "1")
    durability: str = _setting(_one_of("always", "everysec", "none"), "always")
    replicas_ack: int = _setting(_number(0, 9), "0")
    task_events: str = _setting(_one_of("on", "off"), "on")
    heartbeat_file: str = _setting(_text, "")
    signature_tolerance_seconds: int = _setting(_number(1, 86400), "300")
    max_body_bytes: int = _setting(_number(1024, 64 * 1024 * 1024), "1048576")
    lease_seconds: int = _setting(_number(2, 86400), "90")
    job_time_limit_seconds: int = _setting(_number(1, 86400), "60")
    ring_again_seconds: int = _setting(_number(1, 3600), "10")
    max_attempts: int = _setting(_number(1, 1000), "15")
    retry_base_seconds: int = _setting(_number(1, 86400), "5")
    retry_cap_seconds: int = _setting(_number(1, 30 * 86400), "21600")
    retention_days: int = _setting(_number(1, 3650), "35")
    payload_days: int = _setting(_number(1, 3650), "7")

    def __repr__(self) -> str:
        return "Settings(…)"  # a settings object in a traceback must not show its secrets

    @property
    def job_soft_limit_seconds(self) -> float:
        """When a slow job is told so, early enough before the hard limit to write its failure down."""
        return self.job_time_limit_seconds - min(5, self.job_time_limit_seconds / 4)

    @property
    def document_incoming(self) -> str:
        """Where a download lies until it is whole: beside the finished ones, so that it can be given its name there."""
        return self.document_spool if self.document_store.startswith("s3://") else f"{self.document_store}/.incoming"

    @property
    def broker(self) -> str:
        """Where Celery's messages go: BROKER_URL, or else the Redis that holds the record."""
        return self.broker_url or self.redis_url


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read, parse and cross-check every setting. Raises SettingsError on the first that is wrong."""
    environ = os.environ if environ is None else environ
    settings = Settings(**{f.name: _read(environ, f.name.upper(), **f.metadata) for f in fields(Settings)})
    _check_together(settings)
    return settings


def _read(environ: Mapping[str, str], name: str, *, parse: Parser, default: str, secret: bool) -> Any:
    raw = _raw(environ, name).strip() or default
    if raw == "" and parse is not _grants:  # unset, and unset is allowed: an empty value of the parsed type
        return () if parse in (_list, _stripe_secrets, _standard_secrets, _api_keys, _media_types) else ""
    try:
        return parse(raw)
    except ValueError as error:
        raise SettingsError(f"{name} is {'(hidden)' if secret else repr(raw)}; it takes {error}") from None


def _raw(environ: Mapping[str, str], name: str) -> str:
    path = environ.get(f"{name}_FILE", "")
    if not path:
        return environ.get(name, "")
    if environ.get(name):
        raise SettingsError(f"{name} and {name}_FILE are both set; set one of them")
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE is {path!r}, which cannot be read ({type(error).__name__})") from None


def _check_together(s: Settings) -> None:
    """Refuse combinations that would break the promise."""
    if s.job_time_limit_seconds >= s.lease_seconds:
        raise SettingsError(
            f"JOB_TIME_LIMIT_SECONDS is {s.job_time_limit_seconds}; it takes less than LEASE_SECONDS"
            f" ({s.lease_seconds}), or a slow job would run twice at once"
        )
    other = {"live": "_test_", "test": "_live_"}.get(s.stripe_mode)
    if other and other in s.stripe_api_key[:8]:
        raise SettingsError(f"STRIPE_MODE is {s.stripe_mode}, and STRIPE_API_KEY (hidden) is a key of the other mode")
    if s.retention_days <= STRIPE_RESENDS_DAYS:
        raise SettingsError(
            f"RETENTION_DAYS is {s.retention_days}; it takes more than the {STRIPE_RESENDS_DAYS} days for which Stripe"
            " may send an event again, or that would be done twice"
        )
    if s.doc_service_url and not s.public_url:
        raise SettingsError("PUBLIC_URL is not set; it takes the https:// address the document service can call us at")
    if bool(s.app_webhook_url) != bool(s.app_webhook_secret):
        raise SettingsError("APP_WEBHOOK_URL and APP_WEBHOOK_SECRET take each other: one of them is set alone")
