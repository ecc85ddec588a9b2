"""What the local stack is started with: the user's own settings win, and the rest fits together."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import settings
from dev.stack.environment import (
    FIXED_PORTS,
    Ports,
    StackError,
    fixed_ports,
    local_secrets,
    stack_environment,
    without_settings,
)
from dev.stack.parts import WORKERS, parts, supervisor_config
from dev.stack.servers import free_ports
from tasks.routes import QUEUES

PORTS = Ports(8000, 5555, 6390, 8010, 8420, 8025)


MINE = "whsec_mine_0123456789_abcdefghijk"


def names(folder: Path, own: dict[str, str]) -> set[str]:
    return {part.name for part in parts(folder, PORTS, stack_environment(folder, PORTS, own))}


def test_the_environment_is_one_that_the_product_accepts(tmp_path: Path) -> None:
    loaded = settings.load(stack_environment(tmp_path, PORTS, {}))
    assert loaded.doc_service_url == "http://127.0.0.1:8010"
    assert loaded.public_url == "http://127.0.0.1:8000"
    assert [key.secret for key in loaded.api_keys] == [(tmp_path / "api-key").read_text()]


@pytest.mark.parametrize(
    ("own", "name", "value"),
    [
        (
            {"STRIPE_WEBHOOK_SECRET": MINE},
            "STRIPE_WEBHOOK_SECRET",
            MINE,
        ),
        ({"STRIPE_WEBHOOK_SECRET": MINE}, "STRIPE_API_KEY", None),  # of localstripe
        ({"STRIPE_API_KEY": "sk_test_mine"}, "STRIPE_API_BASE", None),  # Stripe's own is the default
        ({"DOC_SERVICE_URL": "https://docs.example.test"}, "DOC_SERVICE_API_KEY", None),  # of the simulator
        ({"DATABASE_URL": "postgresql://db/mine"}, "DATABASE_URL", "postgresql://db/mine"),
        ({"API_KEYS_FILE": "/run/secrets/keys"}, "API_KEYS", None),  # both set would be refused
    ],
)
def test_what_the_user_has_set_wins(tmp_path: Path, own: dict[str, str], name: str, value: str | None) -> None:
    assert (stack_environment(tmp_path, PORTS, own).get(name) or None) == value


@pytest.mark.parametrize(
    ("own", "left_out"),
    [
        ({}, set()),
        ({"REDIS_URL": "redis://elsewhere:6379/0"}, {"valkey"}),
        ({"REDIS_URL_FILE": "/run/secrets/redis"}, {"valkey"}),
        ({"DOC_SERVICE_URL": "https://docs.example.test"}, {"documents"}),
        ({"STRIPE_API_KEY": "sk_test_mine"}, {"stripe"}),
    ],
)
def test_a_real_service_makes_its_simulator_needless(tmp_path: Path, own: dict[str, str], left_out: set[str]) -> None:
    assert names(tmp_path, {}) - names(tmp_path, own) == left_out


def test_the_secrets_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    assert local_secrets(tmp_path) == local_secrets(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_no_secret_stands_in_a_command_or_in_the_runners_file(tmp_path: Path) -> None:
    environment = stack_environment(tmp_path, PORTS, {})
    config = supervisor_config(tmp_path, tmp_path, parts(tmp_path, PORTS, environment))
    assert not [name for name, value in local_secrets(tmp_path).items() if value in config]


def test_a_percent_sign_in_a_command_reaches_the_part_as_it_is(tmp_path: Path) -> None:
    config = supervisor_config(tmp_path, tmp_path, parts(tmp_path, PORTS, stack_environment(tmp_path, PORTS, {})))
    assert "-n payments@%%h -c 4" in config


def test_a_taken_port_is_named_with_the_variable_that_moves_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(StackError, match=rf"^port {port} is taken.* FLOWER_PORT="):
            fixed_ports(_free() | {"FLOWER_PORT": port})


@pytest.mark.parametrize("wrong", ["zero", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(StackError, match=r"^PORT is '"):
        fixed_ports({"PORT": wrong})


def test_the_demo_depends_on_nothing_that_the_user_has_set() -> None:
    own = {"PATH": "/bin", "STRIPE_API_KEY": "sk_live_mine", "API_KEYS_FILE": "/run/keys", "FLOWER_PORT": "1"}
    assert without_settings(own) == {"PATH": "/bin"}


def _free() -> dict[str, str]:
    return {name: str(port) for name, port in zip(FIXED_PORTS, free_ports(len(FIXED_PORTS)), strict=True)}


def test_every_queue_has_one_worker() -> None:
    assert sorted(queue for queues in WORKERS.values() for queue in queues) == sorted(QUEUES)
