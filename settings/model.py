"""Environment -> one frozen, validated Settings. The only reader of os.environ.

Every setting may also come from a file: NAME_FILE=/run/secrets/name. A bad value raises SettingsError, one line that
names the variable, its value (never that of a secret) and what it must be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from settings import api_keys, sources
from settings import parsers as values
from settings.api_keys import ApiKey
from settings.deprecated_names import with_new_names
from settings.parsers import Parser
from settings.sources import SourceSetting

MAX_PROCESS_KB = 200_000  # the memory of a worker's process
SLICE_SECONDS = 0.2  # the latest start of a job within a Celery task: see workers/backlog.py
STRIPE_RESENDS_DAYS = 30  # by hand or by API, from Stripe's dashboard: "Process undelivered webhook events"
LOCAL_REDIS = "redis://localhost:6379/0"
RETRY_ERRORS = "time.?out,timed out,temporar,unavailable,overload,too busy,try again,rate limit"
HANDOFF_SCHEDULE = "5s,5m,30m,2h,5h,10h,14h,20h,24h"  # as the Standard Webhooks specification recommends: 3 days
EMPTY_PARSERS = (values.grants, values.durations_by_name, sources.parse, api_keys.parse)  # parse an empty text, too
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104  with these BIND values it listens on loopback, too

# The console hides the payload fields that have one of these words in their name.
PERSONAL = "address,birth,card,email,iban,ip,name,phone,secret,shipping,ssn,tax,token,url"


class SettingsError(Exception):
    """A setting is missing or wrong; str() is one line for people."""


def _setting(parse: Parser, default: str, *, secret: bool = False) -> Any:
    return field(metadata={"parse": parse, "default": default, "secret": secret})


# --- the settings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Everything that can be set, each from the environment variable of the same name in capitals."""

    stripe_webhook_secret: tuple[str, ...] = _setting(values.stripe_secrets, "", secret=True)
    stripe_mode: str = _setting(values.one_of("any", "live", "test"), "")
    stripe_connected_accounts: tuple[str, ...] = _setting(values.stripe_accounts, "")
    stripe_api_key: str = _setting(values.text, "", secret=True)
    stripe_api_base: str = _setting(values.url("https", "http"), "https://api.stripe.com")
    doc_service_url: str = _setting(values.url("https", "http"), "")
    doc_service_api_key: str = _setting(values.text, "", secret=True)
    doc_status_path: str = _setting(values.status_path, "/api/v1/process/{task_id}")
    doc_webhook_scheme: str = _setting(values.one_of(*values.DOCUMENT_SCHEMES), "standard")
    doc_webhook_header: str = _setting(values.header, "")
    doc_webhook_secret: tuple[str, ...] = _setting(values.comma_list, "", secret=True)
    public_url: str = _setting(values.url("https", "http"), "")
    redis_url: str = _setting(values.url_or_sentinels("redis", "rediss"), LOCAL_REDIS, secret=True)
    broker_url: str = _setting(values.url_or_sentinels("redis", "rediss", "amqp", "amqps"), "", secret=True)
    database_url: str = _setting(values.database, "sqlite:///holdfast.db", secret=True)
    api_keys: tuple[ApiKey, ...] = _setting(api_keys.parse, "", secret=True)
    api_rate_per_minute: int = _setting(values.number(1, 1_000_000), "6000")
    api_mails_per_hour: int = _setting(values.number(0, 1_000_000), "1000")
    customer_notify_urls: tuple[str, ...] = _setting(values.comma_list, "", secret=True)
    admin_notify_urls: tuple[str, ...] = _setting(values.comma_list, "", secret=True)
    alert_notify_urls: tuple[str, ...] = _setting(values.comma_list, "", secret=True)
    alert_quiet: int = _setting(values.duration, "4h")
    alert_backlog_seconds: int = _setting(values.number(60, 30 * 86400), "1800")
    alert_silent: Mapping[str, int] = _setting(values.durations_by_name, "")
    document_store: str = _setting(values.store, "documents")
    document_spool: str = _setting(values.folder, "documents/.incoming")
    document_types: tuple[str, ...] = _setting(values.media_types, "")
    max_document_bytes: int = _setting(values.number(1, 100 * 1024**3), "5368709120")
    document_min_bytes_per_second: int = _setting(values.number(0, 1024**3), "1024")
    document_deadline: int = _setting(values.duration, "24h")
    document_waits: int = _setting(values.number(1, 1000), "7")
    document_starts: int = _setting(values.number(1, 100), "3")
    document_retry_errors: tuple[re.Pattern[str], ...] = _setting(values.patterns, RETRY_ERRORS)
    handoff_schedule: tuple[int, ...] = _setting(values.durations, HANDOFF_SCHEDULE)
    handoff_disable_after: int = _setting(values.duration, "5d")
    content_link_seconds: int = _setting(values.number(1, 30 * 86400), "3600")
    handoff_secret: tuple[str, ...] = _setting(values.standard_secrets, "", secret=True)
    app_webhook_url: str = _setting(values.url("https", "http"), "", secret=True)
    app_webhook_secret: tuple[str, ...] = _setting(values.standard_secrets, "", secret=True)
    sources: Mapping[str, SourceSetting] = _setting(sources.parse, "", secret=True)
    fulfilment: Mapping[str, tuple[str, ...]] = _setting(values.grants, "", secret=True)
    own_products: tuple[str, ...] = _setting(values.comma_list, "")
    own_metadata: tuple[tuple[str, str], ...] = _setting(values.metadata, "")
    entitlements: str = _setting(values.one_of("fulfilment", "stripe"), "fulfilment")
    access_after_refund: str = _setting(values.one_of("keep", "revoke_purchases", "revoke"), "revoke_purchases")
    access_while_disputed: str = _setting(values.one_of("keep", "revoke"), "keep")
    flower_url: str = _setting(values.url("https", "http"), "")
    redact_fields: tuple[str, ...] = _setting(values.comma_list, PERSONAL)
    call_out_allowed_hosts: tuple[str, ...] = _setting(values.comma_list, "")
    payment_retry_schedule: tuple[int, ...] = _setting(values.durations, "off")
    payment_grace_seconds: int = _setting(values.number(0, 365 * 86400), "259200")
    templates: str = _setting(values.existing_folder, "")
    messages_off: tuple[str, ...] = _setting(values.comma_list, "")
    business_name: str = _setting(values.text, "")
    support_email: str = _setting(values.text, "")
    portal_url: str = _setting(values.url("https", "http"), "")
    renewal_reminder_period: int = _setting(values.duration, "180d")
    port: int = _setting(values.number(1, 65535), "8000")
    bind: str = _setting(values.text, "127.0.0.1")
    web_processes: int = _setting(values.number(1, 64), "1")
    durability: str = _setting(values.one_of("always", "everysec", "none"), "always")
    replicas_ack: int = _setting(values.number(0, 9), "0")
    task_events: str = _setting(values.one_of("on", "off"), "on")
    traces_url: str = _setting(values.url("https", "http"), "", secret=True)
    heartbeat_file: str = _setting(values.text, "")
    signature_tolerance_seconds: int = _setting(values.number(1, 86400), "300")
    max_body_bytes: int = _setting(values.number(1024, 64 * 1024 * 1024), "1048576")
    lease_seconds: int = _setting(values.number(2, 86400), "90")
    job_time_limit_seconds: int = _setting(values.number(1, 86400), "60")
    worker_slots: int = _setting(values.number(1, 512), "1")
    worker_timeout_seconds: int = _setting(values.number(2, 3600), "10")
    ring_again_seconds: int = _setting(values.number(1, 3600), "10")
    max_attempts: int = _setting(values.number(1, 1000), "15")
    retry_base_seconds: int = _setting(values.number(1, 86400), "5")
    retry_cap_seconds: int = _setting(values.number(1, 30 * 86400), "21600")
    retention_days: int = _setting(values.number(1, 3650), "35")
    payload_days: int = _setting(values.number(1, 3650), "7")

    def __repr__(self) -> str:
        return "Settings(…)"  # a settings object in a traceback must not show its secrets

    @property
    def job_soft_limit_seconds(self) -> float:
        """When a slow job is interrupted, early enough before the hard limit to record its failure."""
        return self.job_time_limit_seconds - min(5, self.job_time_limit_seconds / 4)

    @property
    def spool_folder(self) -> str:
        """The folder of incomplete downloads, on the file system of the finished ones: they are renamed there."""
        spooled = self.spool_folder_setting == "DOCUMENT_SPOOL"
        return self.document_spool if spooled else f"{self.document_store}/.incoming"

    @property
    def spool_folder_setting(self) -> str:
        """The variable that sets spool_folder, for messages."""
        return "DOCUMENT_SPOOL" if self.document_store.startswith("s3://") else "DOCUMENT_STORE"

    @property
    def accepted_mode(self) -> str:
        """The mode whose Stripe events are accepted: STRIPE_MODE, or else the mode of STRIPE_API_KEY, or any."""
        by_key = (mode for mode in ("live", "test") if f"_{mode}_" in self.stripe_api_key[:8])
        return self.stripe_mode or next(by_key, "any")

    @property
    def alert_urls(self) -> tuple[str, ...]:
        """Where alerts are sent; if empty, nothing is checked for alerts either."""
        return () if self.alert_notify_urls == ("off",) else self.alert_notify_urls or self.admin_notify_urls

    @property
    def broker(self) -> str:
        """Where Celery's messages go: BROKER_URL, or else the Redis that holds the record."""
        return self.broker_url or self.redis_url


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Client:
    """The settings of the command line, which may run on another machine; defaults come from Settings."""

    holdfast_url: str = _setting(values.url("https", "http"), "")
    holdfast_api_key: str = _setting(values.text, "", secret=True)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read, parse and cross-check every setting. Raises SettingsError on the first that is wrong."""
    environ = _environment(environ)
    settings = Settings(**{f.name: _setting_of(environ, f) for f in fields(Settings)})
    for check in CROSS_CHECKS:
        check(settings)
    return settings


def ignore_netrc() -> None:
    """Keep the library requests from using the passwords of a .netrc in place of the keys and tokens that are set."""
    os.environ["NETRC"] = os.devnull


def load_client(environ: Mapping[str, str] | None = None) -> Client:
    """Where the API is, and a key to it: by default the receiver of this machine, and the first of its API_KEYS.

    Raises SettingsError. It reads only what it needs, so it works although other settings are wrong.
    """
    environ = _environment(environ)
    client = Client(**{f.name: _setting_of(environ, f) for f in fields(Client)})
    own = {f.name: _setting_of(environ, f) for f in fields(Settings) if f.name in ("bind", "port", "api_keys")}
    host = "127.0.0.1" if own["bind"] in ALL_ADDRESSES else own["bind"]
    return Client(
        holdfast_url=client.holdfast_url or f"http://{host}:{own['port']}",
        holdfast_api_key=client.holdfast_api_key.strip() or next((key.secret for key in own["api_keys"]), ""),
    )


def problems(environ: Mapping[str, str] | None = None) -> list[str]:
    """The message of every wrong value; or, if there is none, of every combination that is wrong."""
    environ = _environment(environ)
    found: dict[str, Any] = {}
    wrong = _wrong(lambda f: found.update({f.name: _setting_of(environ, f)}), fields(Settings))
    return wrong or _wrong(lambda check: check(Settings(**found)), CROSS_CHECKS)


def _wrong(check: Callable[[Any], None], of: Iterable[Any]) -> list[str]:
    lines = []
    for one in of:
        try:
            check(one)
        except SettingsError as error:
            lines.append(str(error))
    return lines


def _environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """`given` or the process's own environment, with the new name of each renamed setting."""
    try:
        return with_new_names(os.environ if given is None else given)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _setting_of(environ: Mapping[str, str], setting: Field[Any]) -> Any:
    return _read(environ, setting.name.upper(), **setting.metadata)


def _read(environ: Mapping[str, str], name: str, *, parse: Parser, default: str, secret: bool) -> Any:
    raw = _raw(environ, name).strip() or default
    if raw == "" and parse not in EMPTY_PARSERS:  # unset, and unset is allowed: an empty value of the parsed type
        return () if parse in values.LIST_PARSERS else ""
    try:
        return parse(raw)
    except ValueError as error:
        raise SettingsError(f"{name} is {'(hidden)' if secret else repr(raw)}; it must be {error}") from None


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


# --- combinations that would break a guarantee ------------------------------------------------------------------------


def _check_times(s: Settings) -> None:
    if s.job_time_limit_seconds >= s.lease_seconds:
        raise SettingsError(
            f"JOB_TIME_LIMIT_SECONDS is {s.job_time_limit_seconds}; it must be less than LEASE_SECONDS"
            f" ({s.lease_seconds}), or a slow job would run twice at once"
        )


def _check_stripe_mode(s: Settings) -> None:
    other = {"live": "_test_", "test": "_live_"}.get(s.stripe_mode)
    if other and other in s.stripe_api_key[:8]:
        raise SettingsError(f"STRIPE_MODE is {s.stripe_mode}, and STRIPE_API_KEY (hidden) is a key of the other mode")


def _check_retention(s: Settings) -> None:
    if s.retention_days <= STRIPE_RESENDS_DAYS:
        raise SettingsError(
            f"RETENTION_DAYS is {s.retention_days}; it must be more than the {STRIPE_RESENDS_DAYS} days for which"
            " Stripe may send an event again, or it would be processed twice"
        )


def _check_document_service(s: Settings) -> None:
    if s.doc_service_url and not s.public_url:
        raise SettingsError(
            "PUBLIC_URL is not set; it must be the https:// address at which the document service can reach Holdfast"
        )


def _check_app_webhook(s: Settings) -> None:
    if bool(s.app_webhook_url) != bool(s.app_webhook_secret):
        raise SettingsError("set both APP_WEBHOOK_URL and APP_WEBHOOK_SECRET, or neither")


def _check_document_scheme(s: Settings) -> None:
    scheme, secrets = s.doc_webhook_scheme, s.doc_webhook_secret
    parse = values.standard_secrets if scheme == "standard" else values.plain_secrets
    try:
        parse(",".join(secrets))
    except ValueError as error:
        if secrets or scheme != "standard":
            got = "(hidden)" if secrets else "not set"
            raise SettingsError(
                f"DOC_WEBHOOK_SECRET is {got}; for DOC_WEBHOOK_SCHEME={scheme} it must be {error}"
            ) from None
    if s.doc_webhook_header and scheme not in ("hmac-sha256", "bearer"):
        raise SettingsError(f"DOC_WEBHOOK_HEADER is set, and DOC_WEBHOOK_SCHEME={scheme} uses no configurable header")


CROSS_CHECKS = (
    _check_times,
    _check_stripe_mode,
    _check_retention,
    _check_document_scheme,
    _check_document_service,
    _check_app_webhook,
)
