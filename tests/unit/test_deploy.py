"""What the containers are made of agrees with the code: queues, settings, secrets. No container is started here."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery.signals import heartbeat_sent

from settings import Settings, SettingsError, load
from tasks.routes import QUEUES
from web.ops.health import DURABILITY
from workers import signals

ROOT = Path(__file__).parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}
EXAMPLE = (ROOT / ".env.example").read_text()
DEFAULTS = {f.name.upper(): str(f.metadata["default"]) for f in fields(Settings)}
OWN_TO_COMPOSE = {"COMPOSE_PROJECT_NAME"}

LONG = "x" * 16
GOOD = {
    "STRIPE_WEBHOOK_SECRET": "whsec_abc",
    "POSTGRES_PASSWORD": LONG,
    "VALKEY_PASSWORD": LONG,
    "FLOWER_BASIC_AUTH": f"admin:{LONG}",
}


def named(text: str, *, commented: bool) -> dict[str, str]:
    """The settings a .env names, with or without those in comments."""
    start = r"^(?:# )?" if commented else "^"
    return dict(re.findall(start + r"([A-Z_]+)=(.*)$", text, re.MULTILINE))


def folder_with(tmp_path: Path, env: str | None) -> Path:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
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
    signals.connect(load({"HEARTBEAT_FILE": str(tmp_path / "heartbeat")}))
    heartbeat_sent.send(sender=None)  # as the worker's loop does every 2 seconds
    assert (tmp_path / "heartbeat").exists()


def test_only_the_proxy_can_be_reached_from_outside() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"caddy", "receiver"}
    assert all(port.startswith("127.0.0.1:") for port in published["receiver"])


def test_every_service_is_watched_started_again_and_has_bounded_logs() -> None:
    for name, service in SERVICES.items():
        assert service["logging"]["options"]["max-size"]
        if name != "migrate":  # it ends by itself
            assert service["healthcheck"]["test"]
            assert service["restart"] == "unless-stopped"


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


@pytest.mark.parametrize("changes", [{}, {"STRIPE_WEBHOOK_SECRET": "", "DOC_WEBHOOK_SECRET": "whsec_abc"}])
def test_changed_secrets_are_accepted(tmp_path: Path, changes: dict[str, str]) -> None:
    assert run(folder_with(tmp_path, env(**changes)), "check-env.sh") == (0, "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"STRIPE_WEBHOOK_SECRET": ""}, "STRIPE_WEBHOOK_SECRET is not set"),
        ({"POSTGRES_PASSWORD": ""}, "POSTGRES_PASSWORD is not set"),
        ({"VALKEY_PASSWORD": "tooshort"}, "VALKEY_PASSWORD is (hidden); it must be 16 or more"),
        ({"VALKEY_PASSWORD": f"{LONG}@/:"}, "VALKEY_PASSWORD is (hidden); it must be 16 or more"),
        ({"POSTGRES_PASSWORD": f"'{LONG}'"}, "POSTGRES_PASSWORD is (hidden); it must be 16 or more"),
        ({"FLOWER_BASIC_AUTH": LONG}, "FLOWER_BASIC_AUTH is (hidden); it must be user:password"),
        ({"FLOWER_BASIC_AUTH": "admin:short"}, "FLOWER_BASIC_AUTH is (hidden); it must be user:password"),
        ({"API_KEYS": "change-me"}, "API_KEYS is unchanged from the example"),
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
    assert not value or value not in told


def test_the_last_value_counts_as_in_compose(tmp_path: Path) -> None:
    code, told = run(folder_with(tmp_path, env() + "VALKEY_PASSWORD=short\n"), "check-env.sh")
    assert (code, "VALKEY_PASSWORD" in told) == (1, True)


def test_a_created_env_file_lacks_only_the_secret_from_stripe(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, None)
    assert run(folder, "make-env.sh")[0] == 0
    made = named((folder / ".env").read_text(), commented=False)
    secrets = [made[name].removeprefix("admin:") for name in (*GOOD, "API_KEYS") if name != "STRIPE_WEBHOOK_SECRET"]
    assert run(folder, "check-env.sh")[1].startswith(".env: STRIPE_WEBHOOK_SECRET is unchanged from the example")
    assert len(set(secrets)) == len(secrets) == 4
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)
    assert (folder / ".env").stat().st_mode & 0o077 == 0


def test_an_existing_env_file_is_never_replaced(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "KEEP=me\n")
    assert run(folder, "make-env.sh")[0] == 1
    assert (folder / ".env").read_text() == "KEEP=me\n"
