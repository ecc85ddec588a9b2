"""Settings: what is taken, and the one line that a wrong one stops start-up with."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from settings import SCOPES, SettingsError, load, load_client, problems

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STRIPE_SECRET = "whsec_0123456789abcdefghijklmn"
KEYS_MUST_BE = "API_KEYS is (hidden); it must be"
KEY = "a-key-0123456789abcdefgh"


def test_all_settings_have_defaults() -> None:
    settings = load({})
    assert (settings.redis_url, settings.broker, settings.port) == (
        "redis://localhost:6379/0",
        "redis://localhost:6379/0",
        8000,
    )


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("STRIPE_WEBHOOK_SECRET", f"{STRIPE_SECRET}, {SECRET}", (STRIPE_SECRET, SECRET)),
        ("STRIPE_CONNECTED_ACCOUNTS", "acct_1, acct_2", ("acct_1", "acct_2")),
        ("DOC_WEBHOOK_SECRET", SECRET, (SECRET,)),
        ("DATABASE_URL", "postgres://u:p@db/x", "postgresql+psycopg://u:p@db/x"),
        ("DATABASE_URL", "sqlite:///var/x.db", "sqlite:///var/x.db"),
        ("PAYMENT_RETRY_SCHEDULE", "90s,1h,2d", (90, 3600, 172800)),
        ("PAYMENT_RETRY_SCHEDULE", "off", ()),
        ("PUBLIC_URL", "https://hooks.example/", "https://hooks.example"),
        ("BROKER_URL", "amqp://guest@rabbit//", "amqp://guest@rabbit"),
        ("FULFILMENT", 'prod_1 = ["a", "b"]\nprice_2 = []', {"prod_1": ("a", "b"), "price_2": ()}),
        ("FULFILMENT", "", {}),
        ("REDIS_URL", "sentinel://a,b:1/0?service=m", "sentinel://a,b:1/0?service=m"),
        ("REDIS_URL", "rediss://x?db=1&ssl_ca_certs=/ca&protocol=3", "rediss://x?db=1&ssl_ca_certs=/ca&protocol=3"),
        ("BROKER_URL", "amqp://x?heartbeat=10", "amqp://x?heartbeat=10"),
        ("BROKER_URL", "sentinel://:p%40@a/1?service=m", "sentinel://:p%40@a/1?service=m"),
        ("DOCUMENT_STORE", "s3://my-bucket.eu/a/b", "s3://my-bucket.eu/a/b"),
        ("DOCUMENT_TYPES", "Application/PDF, image/*", ("application/pdf", "image/*")),
        ("DOCUMENT_TYPES", "", ()),
        ("DOCUMENT_DEADLINE", "30m", 1800),
        ("DOCUMENT_RETRY_ERRORS", "off", ()),
        ("DOCUMENT_RETRY_ERRORS", "busy, 50[0-9]", (re.compile("busy", re.I), re.compile("50[0-9]", re.I))),
        ("DOC_STATUS_PATH", "/tasks/{task_id}/status", "/tasks/{task_id}/status"),
    ],
)
def test_a_value_is_parsed(name: str, value: str, parsed: object) -> None:
    assert getattr(load({name: value}), name.lower()) == parsed


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "http", "PORT is 'http'; it must be a whole number from 1 to 65535"),
        ("PORT", "70000", "PORT is '70000'; it must be a whole number from 1 to 65535"),
        ("DURABILITY", "maybe", "DURABILITY is 'maybe'; it must be one of always, everysec, none"),
        ("PUBLIC_URL", "hooks.example", "PUBLIC_URL is 'hooks.example'; it must be a URL that starts with https://"),
        *(
            (
                "REDIS_URL",
                f"redis://x/0?{query}",
                "REDIS_URL is (hidden); it must be a Redis URL whose query has only db,",
            )
            for query in ("decode_responses=true", "db=1&socket_timeout=30", "max_connections=")
        ),
        ("REDIS_URL", "http://x", "REDIS_URL is (hidden); it must be a URL that starts with redis://"),
        ("REDIS_URL", "unix:///run/redis.sock", "REDIS_URL is (hidden); it must be a URL that starts with redis://"),
        ("REDIS_URL", "sentinel://a:1,b:2/0", "REDIS_URL is (hidden); it must be several Sentinels of one service"),
        ("REDIS_URL", "sentinel://a:1,/0?service=m", "REDIS_URL is (hidden); it must be several Sentinels"),
        ("REDIS_URL", "sentinel://a:x/0?service=m", "REDIS_URL is (hidden); it must be several Sentinels"),
        ("REDIS_URL", "sentinel://a:1/m?service=m", "REDIS_URL is (hidden); it must be several Sentinels"),
        ("REDIS_URL", "sentinel://a:1/0?service=m&ssl=1", "REDIS_URL is (hidden); it must be several Sentinels"),
        ("BROKER_URL", "sentinel://a:1;sentinel://b:2", "BROKER_URL is (hidden); it must be several Sentinels"),
        ("REPLICAS_ACK", "all", "REPLICAS_ACK is 'all'; it must be a whole number from 0 to 9"),
        ("STRIPE_WEBHOOK_SECRET", "sk_live_1", "STRIPE_WEBHOOK_SECRET is (hidden); it must be one or more secrets"),
        ("STRIPE_CONNECTED_ACCOUNTS", "cus_1", "STRIPE_CONNECTED_ACCOUNTS is 'cus_1'; it must be ids of connected Str"),
        (
            "DOC_WEBHOOK_SECRET",
            "whsec_short",
            "DOC_WEBHOOK_SECRET is (hidden); for DOC_WEBHOOK_SCHEME=standard it must be",
        ),
        (
            "DOC_WEBHOOK_SCHEME",
            "md5",
            "DOC_WEBHOOK_SCHEME is 'md5'; it must be one of standard, hmac-sha256, bearer, to",
        ),
        (
            "DOC_WEBHOOK_SCHEME",
            "token",
            "DOC_WEBHOOK_SECRET is not set; for DOC_WEBHOOK_SCHEME=token it must be one or",
        ),
        (
            "DOC_WEBHOOK_HEADER",
            "X-Key",
            "DOC_WEBHOOK_HEADER is set, and DOC_WEBHOOK_SCHEME=standard uses no configurable",
        ),
        ("DOC_WEBHOOK_HEADER", "X: y", "DOC_WEBHOOK_HEADER is 'X: y'; it must be the name of an HTTP header"),
        (
            "FULFILMENT",
            "prod_1",
            "FULFILMENT is (hidden); it must be TOML, a line for each product or price: prod_1 = ",
        ),
        ("FULFILMENT", 'prod_1 = "a"', "FULFILMENT is (hidden); it must be a list of names for 'prod_1'"),
        ("FULFILMENT", 'prod_1 = ["a", ""]', "FULFILMENT is (hidden); it must be a list of names for 'prod_1'"),
        ("FULFILMENT", '[prod_1]\nx = ["a"]', "FULFILMENT is (hidden); it must be a list of names for 'prod_1'"),
        (
            "DOCUMENT_STORE",
            "gs://b/x",
            "DOCUMENT_STORE is 'gs://b/x'; it must be the path of a folder, or s3://bucket/pre",
        ),
        (
            "DOCUMENT_STORE",
            "s3://",
            "DOCUMENT_STORE is 's3://'; it must be the path of a folder, or s3://bucket/prefix",
        ),
        ("DOCUMENT_STORE", "s3://B_!/x", "DOCUMENT_STORE is 's3://B_!/x'; it must be the path of a folder, or s3://bu"),
        ("DOCUMENT_TYPES", "pdf", "DOCUMENT_TYPES is 'pdf'; it must be media types, comma-separated"),
        ("DOCUMENT_DEADLINE", "off", "DOCUMENT_DEADLINE is 'off'; it must be a time such as 90s, 30m, 24h or 7d"),
        ("DOCUMENT_DEADLINE", "1h,2h", "DOCUMENT_DEADLINE is '1h,2h'; it must be a time such as"),
        (
            "DOCUMENT_RETRY_ERRORS",
            "(",
            "DOCUMENT_RETRY_ERRORS is '('; it must be 'off', or words or regular expressions",
        ),
        (
            "DOC_STATUS_PATH",
            "/tasks",
            "DOC_STATUS_PATH is '/tasks'; it must be a path that starts with / and contains",
        ),
        ("APP_WEBHOOK_URL", "https://app.example", "set both APP_WEBHOOK_URL and APP_WEBHOOK_SECRET, or neither"),
        ("APP_WEBHOOK_SECRET", SECRET, "set both APP_WEBHOOK_URL and APP_WEBHOOK_SECRET, or neither"),
        ("ACCESS_WHILE_DISPUTED", "off", "ACCESS_WHILE_DISPUTED is 'off'; it must be one of keep, revoke"),
        (
            "API_KEYS",
            "k" * 8 + "-0123456789abcd",
            "API_KEYS is (hidden); it must be keys of 24 or more characters, at le",
        ),
        (
            "API_KEYS",
            "abcdefg" * 4,
            "API_KEYS is (hidden); it must be keys of 24 or more characters, at least 8 of them",
        ),
        ("API_KEYS", "bot:read:short-0123456789", f"{KEYS_MUST_BE} keys of 24 or more characters"),
        (
            "API_KEYS",
            f"bot:reed:{KEY}",
            "API_KEYS is (hidden); it must be keys, each alone or as name:scopes:key: the name",
        ),
        (
            "API_KEYS",
            f"bot::{KEY}",
            "API_KEYS is (hidden); it must be keys, each alone or as name:scopes:key: the name in",
        ),
        ("API_KEYS", f"A bot:read:{KEY}", f"{KEYS_MUST_BE} keys, each alone or as name:scopes:key: "),
        ("API_KEYS", f"read:{KEY}", f"{KEYS_MUST_BE} keys, each alone or as name:scopes:key: "),
        ("PAYMENT_RETRY_SCHEDULE", "1 hour", "PAYMENT_RETRY_SCHEDULE is '1 hour'; it must be 'off', or times"),
        ("DATABASE_URL", "mysql://u:p@db", "DATABASE_URL is (hidden); it must be a URL that starts with sqlite:///"),
        ("DOC_SERVICE_URL", "https://docs.example", "PUBLIC_URL is not set"),
        ("RETENTION_DAYS", "30", "RETENTION_DAYS is 30; it must be more than the 30 days for which Stripe may send"),
        ("LEASE_SECONDS", "30", "JOB_TIME_LIMIT_SECONDS is 60; it must be less than LEASE_SECONDS (30)"),
    ],
)
def test_a_wrong_value_is_reported_in_one_line_with_what_it_must_be(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: value})
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("letters", [31, 33, 37, 41, 85, 87, 88])
@pytest.mark.parametrize("name", ["DOC_WEBHOOK_SECRET", "HANDOFF_SECRET", "APP_WEBHOOK_SECRET"])
def test_a_signing_secret_that_is_not_the_base64_of_24_to_64_bytes_stops_start_up(name: str, letters: int) -> None:
    secret = "whsec_" + ("MfKQ9r8GKYqrTwjU" * 6)[:letters]
    with pytest.raises(SettingsError, match=rf"{name} is \(hidden\); .*must be .*the base64 of 24 to 64 random bytes"):
        load({"APP_WEBHOOK_URL": "https://app.example", "APP_WEBHOOK_SECRET": SECRET, name: secret})


@pytest.mark.parametrize("letters", [32, 34, 35, 43, 86])
@pytest.mark.parametrize("padding", ["", "=", "=="])
def test_a_signing_secret_that_is_accepted_signs(letters: int, padding: str) -> None:
    secret = "whsec_" + ("MfKQ9r8GKYqrTwjU" * 6)[:letters] + padding
    (accepted,) = load({"HANDOFF_SECRET": secret}).handoff_secret
    assert Webhook(accepted).sign("msg_1", datetime.now(UTC), "{}")


# Known to everybody, or soon guessed. What is behind whsec_:
PLACEHOLDERS = ("", "…", "short", "x" * 32, "change-me-0123456789abcdef", "…0123456789abcdefghijklmn")
SIGNING_SECRETS = ("STRIPE_WEBHOOK_SECRET", "DOC_WEBHOOK_SECRET", "APP_WEBHOOK_SECRET", "HANDOFF_SECRET")


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
@pytest.mark.parametrize("name", SIGNING_SECRETS)
def test_a_placeholder_is_no_secret(name: str, placeholder: str) -> None:
    for value in (f"whsec_{placeholder}", f"{STRIPE_SECRET},whsec_{placeholder}"):
        with pytest.raises(SettingsError, match=f"{name} is .hidden.; .*it must be one or more secrets") as caught:
            load({name: value})
        assert not placeholder or placeholder not in str(caught.value)


@pytest.mark.parametrize("secret", ["a-short-one", "x" * 32, "change-me-change-me", "abababababababababab"])
@pytest.mark.parametrize("scheme", ["hmac-sha256", "bearer"])
def test_a_placeholder_is_no_key_of_a_source(scheme: str, secret: str) -> None:
    with pytest.raises(SettingsError, match=r"DOC_WEBHOOK_SECRET is .hidden."):
        load({"DOC_WEBHOOK_SCHEME": scheme, "DOC_WEBHOOK_SECRET": secret})
    with pytest.raises(SettingsError, match=r"SOURCES is .hidden.*the secret of .github. is one or more secrets"):
        load({"SOURCES": f'[github]\nscheme = "{scheme}"\nsecret = "{secret}"'})


def test_an_api_key_has_a_name_and_scopes_of_its_own_or_a_digest_as_name_and_all_scopes() -> None:
    plain, named = load({"API_KEYS": f"{KEY},shop.bot:write+read:{KEY}:2"}).api_keys
    assert (plain.name, sorted(plain.scopes), plain.secret) == ("api key abc150d9", sorted(SCOPES), KEY)
    assert (named.name, sorted(named.scopes), named.secret) == ("shop.bot", ["read", "write"], f"{KEY}:2")
    assert KEY not in f"{plain!r} {named}"


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    assert load({"DOC_WEBHOOK_SECRET_FILE": str(tmp_path / "secret")}).doc_webhook_secret == (SECRET,)


def test_a_missing_file_and_a_value_set_twice_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PORT_FILE is .* which cannot be read"):
        load({"PORT_FILE": str(tmp_path / "none")})
    with pytest.raises(SettingsError, match="PORT and PORT_FILE are both set"):
        load({"PORT_FILE": "x", "PORT": "1"})


def test_settings_do_not_show_their_secrets() -> None:
    assert SECRET not in repr(load({"DOC_WEBHOOK_SECRET": SECRET}))


@pytest.mark.parametrize(
    ("environ", "url", "key"),
    [
        ({}, "http://127.0.0.1:8000", ""),
        ({"PORT": "9000", "BIND": "0.0.0.0"}, "http://127.0.0.1:9000", ""),
        ({"BIND": "10.0.0.5"}, "http://10.0.0.5:8000", ""),
        ({"API_KEYS": f"bot:read:{KEY}, {KEY}2"}, "http://127.0.0.1:8000", KEY),
        ({"API_KEYS": KEY, "HOLDFAST_API_KEY": "mine"}, "http://127.0.0.1:8000", "mine"),
        ({"HOLDFAST_URL": "https://hooks.example/", "LEASE_SECONDS": "soon"}, "https://hooks.example", ""),
    ],
)
def test_the_command_line_uses_the_receiver_of_this_machine_by_default(
    environ: dict[str, str], url: str, key: str
) -> None:
    client = load_client(environ)
    assert (client.holdfast_url, client.holdfast_api_key) == (url, key)
    assert "mine" not in repr(client)


def test_every_problem_is_reported_and_not_only_the_first() -> None:
    assert problems({}) == []
    wrong = problems({"PORT": "http", "DURABILITY": "maybe", "RETENTION_DAYS": "3"})
    assert [line.split()[0] for line in wrong] == ["PORT", "DURABILITY"], (
        "combinations are checked only if each value is valid"
    )
    together = problems({"RETENTION_DAYS": "3", "APP_WEBHOOK_URL": "https://app.example"})
    assert [line.split(" is ")[0] for line in together] == [
        "RETENTION_DAYS",
        "set both APP_WEBHOOK_URL and APP_WEBHOOK_SECRET, or neither",
    ]
