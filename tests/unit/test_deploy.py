"""What the containers are made of agrees with the code: queues, settings, secrets. No container is started here."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery.signals import heartbeat_sent

import celeryconfig
from settings import Settings, SettingsError, load
from tasks.routes import QUEUES
from web.ops.health import DURABILITY
from workers import signals

ROOT = Path(__file__).parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}
EXAMPLE = (ROOT / ".env.example").read_text()
SECRET = {f.name.upper(): bool(f.metadata["secret"]) for f in fields(Settings)}
DEFAULTS = {f.name.upper(): str(f.metadata["default"]) for f in fields(Settings)}
OWN_TO_COMPOSE = {"COMPOSE_PROJECT_NAME"}

THREADS = 52  # of a receiver process: docs/security.md

LONG = "x" * 16
SIGNING = "whsec_0123456789abcdefghijklmn"
GOOD = {
    "STRIPE_WEBHOOK_SECRET": SIGNING,
    "POSTGRES_PASSWORD": LONG,
    "POSTGRES_ADMIN_PASSWORD": LONG,
    "VALKEY_PASSWORD": LONG,
    "VALKEY_FLOWER_PASSWORD": LONG,
    "FLOWER_BASIC_AUTH": f"admin:{LONG}",
}


def named(text: str, *, commented: bool) -> dict[str, str]:
    """The settings a .env names, with or without those in comments."""
    start = r"^(?:# )?" if commented else "^"
    return dict(re.findall(start + r"([A-Z_]+)=(.*)$", text, re.MULTILINE))


def folder_with(tmp_path: Path, env: str | None) -> Path:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / ".env.example").write_text(EXAMPLE)
    if env is not None:
        (tmp_path / ".env").write_text(env)
    return tmp_path


def run(folder: Path, script: str) -> tuple[int, str]:
    done = subprocess.run(["sh", folder / "deploy" / script], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def env(**changes: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in (GOOD | changes).items())


# --- docker-compose.yml -----------------------------------------------------------------------------------------------


def test_every_queue_has_a_worker_service() -> None:
    assert {name: service["command"].split()[5] for name, service in WORKERS.items()} == {
        f"worker-{queue}": queue for queue in QUEUES
    }


def test_a_worker_service_can_be_scaled_and_stopped_softly() -> None:
    for service in WORKERS.values():
        assert not {"container_name", "ports", "hostname"} & set(service)
        assert service["stop_grace_period"] == "45s"


def test_a_worker_touches_the_file_that_its_health_check_looks_at(tmp_path: Path) -> None:
    for service in WORKERS.values():
        assert service["environment"]["HEARTBEAT_FILE"] in service["healthcheck"]["test"][1]
    signals.connect(load({"HEARTBEAT_FILE": str(tmp_path / "heartbeat")}), "host/1", None)
    heartbeat_sent.send(sender=None)  # as the worker's loop does every 2 seconds
    assert (tmp_path / "heartbeat").exists()


def test_only_the_proxy_can_be_reached_from_outside() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"caddy", "receiver"}
    assert all(port.startswith("127.0.0.1:") for port in published["receiver"])


def test_every_service_is_watched_started_again_and_has_bounded_logs() -> None:
    for name, service in SERVICES.items():
        assert service["logging"]["options"]["max-size"]
        if name not in ("create-role", "migrate", "doctor"):  # they end by themselves
            assert service["healthcheck"]["test"]
            assert service["restart"] == "unless-stopped"


def test_every_service_has_a_limit_of_memory() -> None:
    assert [name for name, service in SERVICES.items() if not service.get("mem_limit")] == []


MB = 1_000_000
MAIN_PROCESS = 130 * MB
UNITS = {"m": 1 << 20, "g": 1 << 30}


@pytest.mark.parametrize("name", WORKERS)
def test_the_processes_of_a_worker_fit_into_its_memory_when_each_is_as_large_as_it_may_be(name: str) -> None:
    processes = int(WORKERS[name]["command"].split(" -c ")[1].split()[0])
    limit = WORKERS[name]["mem_limit"]
    needed = MAIN_PROCESS + processes * celeryconfig.worker_max_memory_per_child * 1000
    assert needed <= int(limit[:-1]) * UNITS[limit[-1]]


def test_the_receiver_may_have_the_threads_of_as_many_processes_as_can_be_set() -> None:
    assert SERVICES["receiver"]["pids_limit"] > load({"WEB_PROCESSES": "64"}).web_processes * (THREADS + 1)


def given(service: str) -> set[str]:
    """The names of the variables that a service gets."""
    assert "env_file" not in SERVICES[service], "it would get all of .env"
    return set(SERVICES[service]["environment"])


def in_files(names: Iterable[str]) -> set[str]:
    """Names that may come from a file, which .env or an override names."""
    return {f"{name}_FILE" for name in names if SECRET[name]} - {"REDIS_URL_FILE", "DATABASE_URL_FILE"}


def test_only_the_worker_that_downloads_writes_documents() -> None:
    mounts = {
        name: [one for one in service.get("volumes", ()) if "documents" in one] for name, service in SERVICES.items()
    }
    assert [name for name, found in mounts.items() if found and not found[0].endswith(":ro")] == [
        "worker-downloads",
        "doctor",
    ]


def test_every_setting_reaches_the_receiver_or_the_workers() -> None:
    assert given("receiver") | given("worker-payments") >= set(SECRET) | in_files(SECRET)


def test_doctor_has_the_settings_of_all_parts_and_runs_on_request_only() -> None:
    assert given("doctor") == given("receiver") | given("worker-payments")
    assert SERVICES["doctor"]["profiles"]


def test_a_service_gets_the_settings_that_its_code_reads() -> None:
    for service, folders in {"receiver": ("web",), "worker-payments": ("tasks", "workers")}.items():
        code = "".join(file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py"))
        read = {name.upper() for name in re.findall(r"\bsettings\.([a-z_]+)", code)}
        assert read & set(SECRET) <= given(service), service


def test_a_service_gets_no_secret_that_it_does_not_use() -> None:
    secrets = {name for name in SECRET if SECRET[name]}
    assert secrets - given("receiver") >= {"DOC_SERVICE_API_KEY", "CUSTOMER_NOTIFY_URLS", "APP_WEBHOOK_SECRET"}
    assert secrets - given("worker-payments") == {"STRIPE_WEBHOOK_SECRET"}
    assert given("migrate") == {"DATABASE_URL"}
    assert given("flower") == {"REDIS_URL", "BROKER_URL", "FLOWER_BASIC_AUTH"}


def test_no_part_of_holdfast_logs_in_as_the_superuser_of_postgres_or_the_default_user_of_valkey() -> None:
    admins = [name for name, it in SERVICES.items() if "POSTGRES_ADMIN_PASSWORD" in str(it.get("environment"))]
    assert admins == ["postgres", "create-role"]
    users = {name: re.findall(r"//(\w*):", str(service["environment"])) for name, service in SERVICES.items()}
    assert {user for found in users.values() for user in found} == {"holdfast", "flower"}
    assert users["flower"] == ["flower"]


def test_the_database_is_migrated_only_after_its_role_was_created() -> None:
    assert SERVICES["create-role"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["depends_on"] == {"create-role": {"condition": "service_completed_successfully"}}


def test_flower_may_read_the_lengths_of_all_queues() -> None:
    script = (ROOT / "deploy" / "start-valkey.sh").read_text()
    assert re.findall(r"%R~([a-z]+)\*", script) == list(QUEUES)


def test_the_store_is_configured_as_readyz_demands() -> None:
    lines = (ROOT / "deploy" / "valkey.conf").read_text().splitlines()
    assert {f"{name} {value}" for name, value in DURABILITY["always"][0].items()} <= set(lines)


def test_no_default_holds_another_variable() -> None:
    """docker-compose 1.29 takes `${A:-${B}}` for a text, and hands it on as it stands."""
    assert not re.findall(r"\$\{[^}]*\$\{", COMPOSE_TEXT)


# --- .env.example -----------------------------------------------------------------------------------------------------


def test_the_example_names_only_what_exists() -> None:
    used_by_compose = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_TEXT))
    as_files = {f"{name}_FILE" for name in DEFAULTS}
    read_by_boto3 = {name for name in named(EXAMPLE, commented=True) if name.startswith("AWS_")}
    known = set(DEFAULTS) | as_files | used_by_compose | OWN_TO_COMPOSE | read_by_boto3
    assert set(named(EXAMPLE, commented=True)) <= known


def test_the_example_names_everything_that_compose_takes() -> None:
    assert set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE_TEXT)) <= set(named(EXAMPLE, commented=False))
    assert set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_TEXT)) <= set(named(EXAMPLE, commented=True))


def test_the_defaults_in_the_example_are_correct() -> None:
    section = EXAMPLE.partition("these are the defaults")[2].partition("# ---")[0]
    told = {name: value for name, value in named(section, commented=True).items() if name in DEFAULTS}
    assert told == {name: DEFAULTS[name] for name in told}
    assert len(told) >= 7


def test_the_signing_secret_of_the_example_is_rejected_by_the_settings_too() -> None:
    with pytest.raises(SettingsError, match="STRIPE_WEBHOOK_SECRET"):
        load(named(EXAMPLE, commented=False))


# --- make-env.sh and check-env.sh -------------------------------------------------------------------------------------


def test_without_an_env_file_the_message_says_how_to_create_it(tmp_path: Path) -> None:
    assert run(folder_with(tmp_path, None), "check-env.sh") == (
        1,
        ".env does not exist; create it with: sh deploy/make-env.sh\n",
    )


def test_each_unchanged_secret_of_the_example_is_reported_on_its_own_line(tmp_path: Path) -> None:
    code, told = run(folder_with(tmp_path, EXAMPLE), "check-env.sh")
    example = [name for name, value in named(EXAMPLE, commented=False).items() if "change-me" in value]
    assert code == 1
    assert sorted(line.split()[1] for line in told.splitlines()) == sorted(example)
    assert set(GOOD) < set(example)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"STRIPE_WEBHOOK_SECRET": "", "DOC_WEBHOOK_SECRET": SIGNING},
        {"API_KEYS": f"shop:read+write:{LONG}-0123456789, {LONG}-0123456789"},
        {"API_KEYS": ""},
        {"STRIPE_WEBHOOK_SECRET": "", "STRIPE_WEBHOOK_SECRET_FILE": "/run/secrets/stripe"},
        {"STRIPE_WEBHOOK_SECRET": "", "DOC_WEBHOOK_SECRET_FILE": "/run/secrets/documents"},
        {"CUSTOMER_NOTIFY_URLS": "mailtos://u:pa%24word@smtp.example?from=a@b.example&to={email}#1"},
        {"DOMAIN": " shop.example "},
    ],
)
def test_changed_secrets_are_accepted(tmp_path: Path, changes: dict[str, str]) -> None:
    assert run(folder_with(tmp_path, env(**changes)), "check-env.sh") == (0, "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"STRIPE_WEBHOOK_SECRET": ""}, "STRIPE_WEBHOOK_SECRET is not set"),
        ({"STRIPE_WEBHOOK_SECRET": "   "}, "STRIPE_WEBHOOK_SECRET is not set"),
        ({"STRIPE_WEBHOOK_SECRET": '""'}, "STRIPE_WEBHOOK_SECRET is (hidden); it must be one or more secrets"),
        ({"STRIPE_WEBHOOK_SECRET": "we_1234567890abcdefghijklmnop"}, "STRIPE_WEBHOOK_SECRET is (hidden); it must be"),
        (
            {"STRIPE_WEBHOOK_SECRET": "sk_live_1234567890abcdefghijklmn"},
            "STRIPE_WEBHOOK_SECRET is (hidden); it must be",
        ),
        (
            {"CUSTOMER_NOTIFY_URLS": "mailtos://u:pa$word@smtp.example"},
            "CUSTOMER_NOTIFY_URLS is (hidden); it must have no $",
        ),
        ({"DOC_SERVICE_API_KEY": "pa${word"}, "DOC_SERVICE_API_KEY is (hidden); it must have no $"),
        ({"BUSINESS_NAME": '"unterminated'}, "BUSINESS_NAME is (hidden); it must have no $"),
        ({"BUSINESS_NAME": " 'quoted'"}, "BUSINESS_NAME is (hidden); it must have no $"),
        ({"BUSINESS_NAME": "My Shop # the best"}, "BUSINESS_NAME is (hidden); it must have no $"),
        ({"DOC_WEBHOOK_SECRET": "0123456789$abcdefghijkl"}, "DOC_WEBHOOK_SECRET is (hidden); it must have no $"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_"}, "STRIPE_WEBHOOK_SECRET is (hidden); it must be one or more secrets"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_…"}, "STRIPE_WEBHOOK_SECRET is (hidden); it must be one or more secrets"),
        ({"STRIPE_WEBHOOK_SECRET": f"{SIGNING},whsec_a"}, "STRIPE_WEBHOOK_SECRET is (hidden); it must be one or more"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_" + "x" * 32}, "STRIPE_WEBHOOK_SECRET is (hidden); it must be one or more"),
        ({"DOC_WEBHOOK_SECRET": "whsec_short-one"}, "DOC_WEBHOOK_SECRET is (hidden); it must be one or more secrets"),
        ({"APP_WEBHOOK_SECRET": "a" * 40}, "APP_WEBHOOK_SECRET is (hidden); it must be one or more secrets"),
        ({"HANDOFF_SECRET": "whsec_short"}, "HANDOFF_SECRET is (hidden); it must be one or more secrets"),
        ({"POSTGRES_PASSWORD": ""}, "POSTGRES_PASSWORD is not set"),
        ({"VALKEY_PASSWORD": "tooshort"}, "VALKEY_PASSWORD is (hidden); it must be 16 or more"),
        ({"VALKEY_PASSWORD": f"{LONG}@/:"}, "VALKEY_PASSWORD is (hidden); it must be 16 or more"),
        ({"POSTGRES_PASSWORD": f"'{LONG}'"}, "POSTGRES_PASSWORD is (hidden); it must be 16 or more"),
        ({"FLOWER_BASIC_AUTH": LONG}, "FLOWER_BASIC_AUTH is (hidden); it must be user:password"),
        ({"FLOWER_BASIC_AUTH": "admin:short"}, "FLOWER_BASIC_AUTH is (hidden); it must be user:password"),
        ({"API_KEYS": "change-me"}, "API_KEYS is unchanged from the example"),
        ({"API_KEYS": f"{LONG}-0123456789,short"}, "API_KEYS is (hidden); it must be one or more secrets"),
        ({"API_KEYS": "a" * 40}, "API_KEYS is (hidden); it must be one or more secrets"),
        ({"API_KEYS": "bot:read:short-0123456789"}, "API_KEYS is (hidden); it must be one or more secrets"),
    ],
)
def test_an_invalid_secret_is_reported_on_one_line_that_does_not_show_it(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    code, told = run(folder_with(tmp_path, env(**changes)), "check-env.sh")
    (value,) = changes.values()
    assert code == 1
    assert told.startswith(f".env: {words}")
    assert told.count("\n") == 1
    shown = value.strip().removeprefix("whsec_")
    assert not shown or shown not in told


SIZES = {
    ("", ""): 0,
    ("1gb", "2g"): 0,
    ("512mb", ""): 0,
    ("1073741824", "2g"): 0,
    ("4gb", "8G"): 0,
    ("2gb", ""): 1,
    ("4gb", "6g"): 1,
    ("", "512m"): 1,
    ("a lot", "9g"): 1,
    ("1gb", "a lot"): 1,
}


@pytest.mark.parametrize("sizes", SIZES)
def test_the_container_of_valkey_has_room_for_a_copy_of_its_memory(tmp_path: Path, sizes: tuple[str, str]) -> None:
    settings = dict(zip(("VALKEY_MAXMEMORY", "VALKEY_MEM_LIMIT"), sizes, strict=True))
    code, told = run(folder_with(tmp_path, env(**settings)), "check-env.sh")
    assert code == SIZES[sizes]
    assert told.count("must be at least twice VALKEY_MAXMEMORY") == code


@pytest.mark.parametrize(
    ("processes", "limit", "code"), [("", "", 0), ("1", "768m", 0), ("2", "", 1), ("2", "1536m", 0), ("8", "4g", 1)]
)
def test_the_container_of_the_receiver_has_room_for_its_processes(
    tmp_path: Path, processes: str, limit: str, code: int
) -> None:
    settings = env(WEB_PROCESSES=processes, RECEIVER_MEM_LIMIT=limit)
    answer, told = run(folder_with(tmp_path, settings), "check-env.sh")
    assert (answer, told.count("must be at least 768m for each of WEB_PROCESSES")) == (code, code)


def test_a_name_that_compose_does_not_use_is_reported(tmp_path: Path) -> None:
    code, printed = run(folder_with(tmp_path, env(STRIPE_API_KEYS="rk_live_1", PAYLOAD_DAYS="9")), "check-env.sh")
    message = "STRIPE_API_KEYS is not used by docker-compose.yml; it must be a name of docs/settings.md or .env.example"
    assert (code, printed) == (1, f".env: {message}\n")


def test_every_name_of_the_example_is_used(tmp_path: Path) -> None:
    text = "".join(f"{name}={value}\n" for name, value in named(EXAMPLE, commented=True).items())
    assert "is not used" not in run(folder_with(tmp_path, text), "check-env.sh")[1]


def test_the_last_value_counts_as_in_compose(tmp_path: Path) -> None:
    code, told = run(folder_with(tmp_path, env() + "VALKEY_PASSWORD=short\n"), "check-env.sh")
    assert (code, "VALKEY_PASSWORD" in told) == (1, True)


def test_a_created_env_file_lacks_only_the_secret_from_stripe(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, None)
    assert run(folder, "make-env.sh")[0] == 0
    made = named((folder / ".env").read_text(), commented=False)
    secrets = [made[name].removeprefix("admin:") for name in (*GOOD, "API_KEYS") if name != "STRIPE_WEBHOOK_SECRET"]
    assert run(folder, "check-env.sh")[1].startswith(".env: STRIPE_WEBHOOK_SECRET is unchanged from the example")
    assert len(set(secrets)) == len(secrets) == 6
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)
    assert (folder / ".env").stat().st_mode & 0o077 == 0


def test_an_existing_env_file_is_never_replaced(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "KEEP=me\n")
    assert run(folder, "make-env.sh")[0] == 1
    assert (folder / ".env").read_text() == "KEEP=me\n"


# --- the Dockerfile ---------------------------------------------------------------------------------------------------


def pin(folder: Path, digests: str) -> tuple[int, str]:
    """Run deploy/pin-images.sh with a `docker` that prints `digests`, a shell expression of "$5", the image."""
    (folder / "docker").write_text(f'#!/bin/sh\necho "$*" >>{folder}/asked\n{digests}\n')
    (folder / "docker").chmod(0o755)
    environ = {"PATH": f"{folder}:/usr/bin:/bin"}
    script = ["sh", str(folder / "deploy" / "pin-images.sh")]
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_base_images_can_be_pinned_and_the_pins_renewed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, None)
    original = re.sub("@sha256:[0-9a-f]{64}", "", (ROOT / "Dockerfile").read_text())
    (folder / "Dockerfile").write_text(original)
    images = re.findall(r"^FROM (\S+:\S+) AS", original, re.MULTILINE)  # without a tag it is a stage of our own
    for character in "ab":
        assert pin(folder, f'echo "sha256:{character * 64}"')[0] == 0
        pinned = (folder / "Dockerfile").read_text()
        assert re.findall(r"^FROM (\S+:\S+) AS", pinned, re.MULTILINE) == [
            f"{one}@sha256:{character * 64}" for one in images
        ]
        assert pinned.replace(f"@sha256:{character * 64}", "") == original
    asked = (folder / "asked").read_text().splitlines()
    assert asked == [f"buildx imagetools inspect --format {{{{.Manifest.Digest}}}} {one}" for one in images] * 2


@pytest.mark.parametrize("answer", ["exit 1", "echo none", "echo"])
def test_an_image_whose_digest_cannot_be_read_is_left_as_it_is(tmp_path: Path, answer: str) -> None:
    folder = folder_with(tmp_path, None)
    shutil.copy(ROOT / "Dockerfile", folder)
    code, told = pin(folder, answer)
    assert (code, "valkey/valkey:8" in told) == (1, True)
    assert (folder / "Dockerfile").read_text() == (ROOT / "Dockerfile").read_text()
