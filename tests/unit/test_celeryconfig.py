"""celeryconfig.py: Celery ignores a setting it does not know, so a misspelt one would guard nothing."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
from celery.app.defaults import NAMESPACES, flatten
from kombu.connection import Connection
from kombu.transport.redis import Channel, SentinelChannel

import celeryconfig
from settings import SLICE_SECONDS

KNOWN = {name for name, _ in flatten(NAMESPACES)}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The module as it is under the environment that the test asks for."""
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    request.addfinalizer(lambda: importlib.reload(celeryconfig))
    request.addfinalizer(monkeypatch.undo)
    return importlib.reload(celeryconfig)


def names(module: ModuleType) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_") and name not in {"load"}}


def test_celery_knows_every_setting() -> None:
    assert names(celeryconfig) - KNOWN == set()


def test_kombu_knows_every_transport_option() -> None:
    assert set(celeryconfig.broker_transport_options) - set(Channel.from_transport_options) == set()


SENTINELS = "sentinel://user:p%40%3A@[::1]:5,b/3?service=shop&sentinel_password=%C3%A9"


@pytest.mark.parametrize("config", [{"REDIS_URL": SENTINELS}], indirect=True)
def test_celery_asks_the_same_sentinels_with_the_same_passwords(config: ModuleType) -> None:
    options = config.broker_transport_options
    assert set(options) - set(SentinelChannel.from_transport_options) == set()
    assert (options["master_name"], options["sentinel_kwargs"]["password"]) == ("shop", "é")
    broker = Connection(config.broker_url, transport_options=options)  # type: ignore[no-untyped-call]
    assert (broker.userid, broker.password, broker.virtual_host) == ("user", "p@:", "3")
    assert broker.alt == ["sentinel://user:p%40%3A@[::1]:5/3", "sentinel://user:p%40%3A@b:26379/3"]


@pytest.mark.parametrize("config", [{"BROKER_URL": "amqp://guest@rabbit"}], indirect=True)
def test_prefetch_is_off_on_redis_and_least_where_it_cannot_be(config: ModuleType) -> None:
    assert (config.worker_disable_prefetch, config.worker_prefetch_multiplier) == (False, 1)


@pytest.mark.parametrize("config", [{"LEASE_SECONDS": "90", "JOB_TIME_LIMIT_SECONDS": "60"}], indirect=True)
def test_a_slow_job_is_told_then_killed_then_loses_its_lease(config: ModuleType) -> None:
    """Each job has 55 and 60 seconds, also one that begins at the end of a slice."""
    assert (config.task_soft_time_limit, config.task_time_limit) == (55 + SLICE_SECONDS, 60 + SLICE_SECONDS)


@pytest.mark.parametrize(
    ("config", "sent"), [({"TASK_EVENTS": "off"}, False), ({"TASK_EVENTS": "on"}, True)], indirect=["config"]
)
def test_flowers_history_is_the_users_choice(config: ModuleType, sent: bool) -> None:
    assert config.worker_send_task_events is sent


@pytest.mark.parametrize(
    ("config", "exclusive"),
    [({"BROKER_URL": "amqp://guest@rabbit"}, False), ({"REDIS_URL": SENTINELS}, True)],
    indirect=["config"],
)
def test_a_lost_connection_locks_no_control_queue_of_rabbitmq(config: ModuleType, exclusive: bool) -> None:
    assert (config.control_queue_exclusive, config.control_queue_durable) == (exclusive, not exclusive)
